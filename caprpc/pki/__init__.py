"""A small private certificate authority and what certificates mean to CapRPC.

Library of the ``caprpc pki`` commands, for development and small deployments; larger ones bring their own CA that
follows the leaf profile of ``docs/reference/tls-and-identity.md``.
"""
