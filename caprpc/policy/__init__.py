"""Policy: who may do what with which reference, read from reviewed files, and the guard that enforces it.

Reference: ``docs/reference/policy.md``.
"""

from caprpc.policy.contracts import contracts_to_toml
from caprpc.policy.directory import PolicySet
from caprpc.policy.guard import Facet, Guard, Permit, PrincipalQuotas
from caprpc.policy.listed import grant_line
from caprpc.policy.model import Accepted, Lend, MemberLimit, Offer, Policy
from caprpc.policy.names import OPAQUE
from caprpc.policy.refused import REASONS, Refused

__all__ = [
    "OPAQUE",
    "REASONS",
    "Accepted",
    "Facet",
    "Guard",
    "Lend",
    "MemberLimit",
    "Offer",
    "Permit",
    "Policy",
    "PolicySet",
    "PrincipalQuotas",
    "Refused",
    "contracts_to_toml",
    "grant_line",
]
