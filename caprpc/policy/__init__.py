"""Policy: who may do what with which reference, read from reviewed files, and the guard that enforces it.

Reference: ``docs/reference/policy.md``.
"""

from caprpc.policy.arguments import ArgumentRule
from caprpc.policy.attenuation import Narrowing, Only, Rules, keys_of, rules_of, word_of
from caprpc.policy.authority import MOST_DERIVATIONS, OVER, REVOKED, Right
from caprpc.policy.contracts import contracts_to_toml
from caprpc.policy.derived import DerivedFacet, base_of, keys, may_pass_on, sources
from caprpc.policy.directory import INDEX_FILE, NOTE_FILE, PolicySet
from caprpc.policy.expectations import Expectation
from caprpc.policy.guard import Facet, Guard, Permit, PrincipalQuotas
from caprpc.policy.held import LIGHT_BYTES, ArgumentBudget, ArgumentPool, HeldArguments
from caprpc.policy.listed import grant_line, grant_word
from caprpc.policy.model import (
    ENDINGS,
    NO_LIMIT,
    NO_PASSING,
    Accepted,
    Grant,
    Key,
    Lend,
    MemberLimit,
    Offer,
    Policy,
    Restorable,
    Root,
)
from caprpc.policy.names import OPAQUE, spiffe_fault
from caprpc.policy.pool import Pool
from caprpc.policy.pools import Holding, Pools, SharedGlitches, buffer_share
from caprpc.policy.refused import REASONS, Refused
from caprpc.policy.revoked import RevokedFile

__all__ = [
    "ENDINGS",
    "MOST_DERIVATIONS",
    "INDEX_FILE",
    "LIGHT_BYTES",
    "NOTE_FILE",
    "NO_LIMIT",
    "NO_PASSING",
    "OPAQUE",
    "OVER",
    "REASONS",
    "REVOKED",
    "Accepted",
    "ArgumentBudget",
    "ArgumentPool",
    "ArgumentRule",
    "DerivedFacet",
    "Expectation",
    "Facet",
    "Grant",
    "Guard",
    "HeldArguments",
    "Holding",
    "Key",
    "Lend",
    "MemberLimit",
    "Narrowing",
    "Offer",
    "Only",
    "Permit",
    "Pool",
    "Pools",
    "buffer_share",
    "Policy",
    "PolicySet",
    "PrincipalQuotas",
    "Refused",
    "Restorable",
    "RevokedFile",
    "Right",
    "SharedGlitches",
    "Root",
    "Rules",
    "base_of",
    "contracts_to_toml",
    "grant_line",
    "grant_word",
    "keys",
    "keys_of",
    "may_pass_on",
    "rules_of",
    "sources",
    "spiffe_fault",
    "word_of",
]
