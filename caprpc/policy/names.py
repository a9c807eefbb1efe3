"""Grammars of the words in a policy: exact, ASCII, and never a pattern."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from caprpc.policy.text import describe_character

MAX_NAME_CHARS: Final = 128
"""Longest name of a member, facet, interface or root."""
MAX_SPIFFE_CHARS: Final = 2048
"""SPIFFE ID, section 2.3."""

OPAQUE: Final = "opaque"
"""In place of a facet name: the peer may hold the reference and hand it back, and nothing else."""

PLACEHOLDER: Final = "sha256:" + "0" * 64
"""In templates: the digest of no key."""

NAME_GRAMMAR: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
LABEL_GRAMMAR: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
FILE_GRAMMAR: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.toml")
ANCHOR_GRAMMAR: Final = re.compile(r"sha256:[0-9a-f]{64}")
DOMAIN_GRAMMAR: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?)*")
SEGMENT_GRAMMAR: Final = re.compile(r"[A-Za-z0-9._-]+")


def name_fault(name: str) -> str:
    """Return what is wrong with the name of a member, facet, interface, root or parameter; empty if nothing."""
    if len(name) <= MAX_NAME_CHARS and NAME_GRAMMAR.fullmatch(name):
        return ""
    return _common_fault(name) or "is not a name (letters, digits and '_')"


def label_fault(label: str) -> str:
    """Return what is wrong with the name of a policy, invariant or tag; empty if nothing."""
    if len(label) <= MAX_NAME_CHARS and LABEL_GRAMMAR.fullmatch(label):
        return ""
    return _common_fault(label) or "is not a name (letters, digits, '.', '_', '-')"


def file_fault(name: str) -> str:
    """Return what is wrong with the name of a listed file; empty if nothing."""
    fault = _common_fault(name)
    if fault:
        return fault
    if "/" in name or "\\" in name:
        return "has a directory in it: all files of a policy lie in one directory"
    return "" if FILE_GRAMMAR.fullmatch(name) else "is not the name of a .toml file"


def anchor_fault(text: str) -> str:
    """Return what is wrong with the fingerprint of a trust anchor's key; empty if nothing."""
    if ANCHOR_GRAMMAR.fullmatch(text):
        return ""
    return _character_fault(text) or "is not 'sha256:' and 64 lower-case hexadecimal digits"


def spiffe_fault(text: str) -> str:
    """Return what is wrong with an exact SPIFFE ID; empty if nothing. SPIFFE ID, section 2."""
    fault = _character_fault(text)
    if fault:
        return fault
    if len(text) > MAX_SPIFFE_CHARS:
        return f"is longer than {MAX_SPIFFE_CHARS} characters"
    scheme, _, rest = text.partition("://")
    if scheme != "spiffe":
        return "does not begin with 'spiffe://'"
    domain, *segments = rest.split("/")
    if not DOMAIN_GRAMMAR.fullmatch(domain):
        return "has no trust domain in lower case such as 'org-b.example'"
    if not segments:
        return "names a whole trust domain, not one workload: a path must follow"
    if any(not SEGMENT_GRAMMAR.fullmatch(segment) or segment in {".", ".."} for segment in segments):
        return "has a path with an empty, '.' or '..' segment, or other characters than letters, digits, '.', '_', '-'"
    return ""


def trust_domain(spiffe: str) -> str:
    """Return the authority part of a SPIFFE ID: ``org-b.example``."""
    return spiffe.split("/", 3)[2]


def template_fault(text: str) -> str:
    """Return a complaint if the text looks like a template; the policy language has none."""
    for opening in ("${", "{{", "{%", "<%"):
        if opening in text:
            return f"holds {opening!r}: there is no templating; write the value"
    return ""


def grammar_of(fault_of: Callable[[str], str]) -> str:
    """Return how words of a grammar are written; empty for those of other modules."""
    return _WRITTEN.get(fault_of, "")


def _common_fault(name: str) -> str:
    fault = _character_fault(name)
    if fault:
        return fault
    if name.startswith("_"):
        return "begins with '_': private names are never granted"
    if len(name) > MAX_NAME_CHARS:
        return f"is longer than {MAX_NAME_CHARS} characters"
    return ""


def _character_fault(text: str) -> str:
    if not text:
        return "is empty"
    fault = template_fault(text)
    if fault:
        return fault
    for character in text:
        if not character.isascii():
            return f"has {describe_character(character)}: only ASCII is allowed"
        if not character.isprintable() or character == " ":
            return f"has {describe_character(character)} in it"
        if character in "*?[]":
            return f"has the wildcard {character!r}: every name must be written out"
    return ""


_WRITTEN: Final[Mapping[Callable[[str], str], str]] = MappingProxyType(
    {
        name_fault: "write each name out: a letter, then letters, digits and '_'",
        label_fault: "write a letter or digit, then letters, digits, '.', '_' and '-'",
        file_fault: "write the name of a .toml file in this directory",
        anchor_fault: "write what this prints: caprpc pki show",
        spiffe_fault: "write one ID out, such as spiffe://org-b.example/treasury/feed",
    }
)
