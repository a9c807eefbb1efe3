"""Tools for tests of services: a throw-away PKI and, in time, in-memory pairs."""
