"""Tools for tests of services: a throw-away PKI, deployments, and in-memory pairs."""
