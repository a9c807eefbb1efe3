"""Policy: who may do what with which reference, read from reviewed files, and the guard that enforces it.

Reference: ``docs/reference/policy.md``.
"""

from caprpc.policy.arguments import ArgumentRule
from caprpc.policy.contracts import contracts_to_toml
from caprpc.policy.directory import PolicySet
from caprpc.policy.expectations import Expectation
from caprpc.policy.guard import Facet, Guard, Permit, PrincipalQuotas
from caprpc.policy.listed import grant_line
from caprpc.policy.model import Accepted, Grant, Key, Lend, MemberLimit, Offer, Policy, Restorable, Root
from caprpc.policy.names import OPAQUE
from caprpc.policy.refused import REASONS, Refused
from caprpc.policy.revoked import RevokedFile

__all__ = [
    "OPAQUE",
    "REASONS",
    "Accepted",
    "ArgumentRule",
    "Expectation",
    "Facet",
    "Grant",
    "Guard",
    "Key",
    "Lend",
    "MemberLimit",
    "Offer",
    "Permit",
    "Policy",
    "PolicySet",
    "PrincipalQuotas",
    "Refused",
    "Restorable",
    "RevokedFile",
    "Root",
    "contracts_to_toml",
    "grant_line",
]
