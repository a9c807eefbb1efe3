"""The systems that are compared. To add one: a module with ``PEERS``, and a line in the registry."""
