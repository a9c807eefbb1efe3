"""Which certificates are revoked, for connections that are already established.

New connections are checked by OpenSSL against the same lists; this table answers the question again while they last.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509

from caprpc.pki.pem import parse_revocation_lists


@dataclass(frozen=True, slots=True)
class RevocationList:
    """One issuer's certificate revocation list (CRL)."""

    issuer: str
    """RFC 4514."""
    next_update: float
    """When it expires, seconds since the epoch; 0 if it does not say, which counts as expired."""
    serials: frozenset[int]


@dataclass(frozen=True, slots=True)
class RevocationTable:
    """The revocation lists of one identity, by issuer; without a current list nothing of that issuer is valid."""

    lists: Mapping[str, RevocationList]

    @classmethod
    def parse(cls, pem: bytes) -> "RevocationTable":
        """Return the table of all lists in a PEM file.

        Two lists of one issuer (an old one and its successor) are united, and expire with the earlier.

        Raises:
            ValueError: The file holds no list, or one that does not parse.
        """
        lists: dict[str, RevocationList] = {}
        for crl in parse_revocation_lists(pem):
            one = _entries(crl)
            key = _folded(one.issuer)
            other = lists.get(key)
            if other is not None:
                one = RevocationList(one.issuer, min(one.next_update, other.next_update), one.serials | other.serials)
            lists[key] = one
        return cls(lists)

    def of(self, issuer: str) -> RevocationList | None:
        """Return the list of an issuer (RFC 4514 name); names compare as OpenSSL compares them, without case."""
        return self.lists.get(_folded(issuer))

    def objection(self, serials: tuple[tuple[str, int], ...], now: float) -> str | None:
        """Return ``revoked`` or ``crl`` (missing or expired list) for a chain of (issuer, serial), None if all is
        well.
        """
        for issuer, serial in serials:
            current = self.of(issuer)
            if current is None or now >= current.next_update:
                return "crl"
            if serial in current.serials:
                return "revoked"
        return None


def _entries(crl: x509.CertificateRevocationList) -> RevocationList:
    next_update = crl.next_update_utc
    return RevocationList(
        issuer=crl.issuer.rfc4514_string(),
        next_update=next_update.timestamp() if next_update else 0.0,
        serials=frozenset(entry.serial_number for entry in crl),
    )


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())
