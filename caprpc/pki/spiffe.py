"""SPIFFE IDs: the only form a principal takes.

https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md, narrowed: at most 255 bytes, and a path is
mandatory because an identity without one names a whole trust domain.
"""

import re
from dataclasses import dataclass
from typing import Final

MAX_SPIFFE_BYTES: Final = 255
"""Longest principal; the standard allows 2,048, nobody can read them, and audit lines carry them."""

_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", re.ASCII)
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_SCHEME: Final = "spiffe://"


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """A SPIFFE ID that is valid; two are equal only if their bytes are."""

    text: str
    """The whole identifier: ``spiffe://org-b.example/treasury/feed``."""

    trust_domain: str
    """The authority: ``org-b.example``."""

    @classmethod
    def parse(cls, text: str) -> "SpiffeId":
        """Return the identifier, taken literally: nothing is decoded, folded or normalised.

        Raises:
            ValueError: The text is no SPIFFE ID of ours; the message names the part that is wrong.
        """
        if len(text) > MAX_SPIFFE_BYTES:
            raise ValueError(f"SPIFFE ID of {len(text)} bytes, at most {MAX_SPIFFE_BYTES} allowed")
        if not text.startswith(_SCHEME):
            raise ValueError("SPIFFE ID must start with spiffe:// in lower case")
        trust_domain, slash, path = text[len(_SCHEME) :].partition("/")
        check_trust_domain(trust_domain)
        if not slash:
            raise ValueError("SPIFFE ID without a path names a trust domain, not a service")
        for segment in path.split("/"):
            if not _SEGMENT.fullmatch(segment) or segment in (".", ".."):
                raise ValueError(
                    f"SPIFFE ID path segment {segment!r}: expected letters, digits, dot, dash and underscore, "
                    "not empty, not '.' or '..'"
                )
        return cls(text, trust_domain)


def check_trust_domain(text: str) -> str:
    """Return the trust domain unchanged.

    Raises:
        ValueError: It is empty, not lower case, or has a port, user, wildcard, control or non-ASCII byte.
    """
    if not _TRUST_DOMAIN.fullmatch(text) or ".." in text:
        raise ValueError(f"trust domain {text!r}: expected lower-case letters, digits, dots, dashes and underscores")
    return text
