"""The demonstration: a line counter whose file and function stay with the client, and attacks on it that fail."""
