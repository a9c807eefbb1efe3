"""Objects over a session: dispatch of permitted calls, stubs, and the sans-I/O connection that drivers run."""
