"""Who the other side is: the evidence that a finished handshake leaves behind."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """One peer, proved by its certificate chain.

    Constructed in ``caprpc/tls/identity.py`` and nowhere else; a session cannot be built without one.
    """

    principal: str
    """The leaf's only URI SAN, exact text, such as ``spiffe://org-b.example/treasury/feed``."""

    anchor: str
    """``sha256:`` and the hexadecimal digest of the trust anchor's SubjectPublicKeyInfo (DER)."""

    leaf_key: str
    """``sha256:`` and the hexadecimal digest of the leaf's SubjectPublicKeyInfo (DER)."""

    serials: tuple[tuple[str, int], ...]
    """For each certificate of the verified chain, leaf first: issuer name (RFC 4514) and serial number."""

    not_after: float
    """The earliest expiry in the verified chain, seconds since the epoch (UTC)."""

    address: str
    """Transport address the connection came from or was made to; for the audit log only."""

    @property
    def trust_domain(self) -> str:
        """The authority part of the principal: ``org-b.example``."""
        return self.principal.split("/", 3)[2]
