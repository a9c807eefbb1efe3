"""Throw-away certificate authorities: fresh keys in a second, with any defect a test needs.

Never for anything but tests: the keys lie about in memory and in temporary directories.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from caprpc.pki.certificates import (
    Issuer,
    PrivateKey,
    Validity,
    authority_extensions,
    certificate_pem,
    common_name,
    issue,
    key_pem,
    leaf_extensions,
    new_key,
    revocation_list,
    self_signed,
)
from caprpc.pki.fingerprint import key_fingerprint

_DAY = timedelta(days=1)
_VALIDITY = timedelta(days=60)
"""Long enough that nobody is warned of an end."""


@dataclass(frozen=True, slots=True)
class ThrowawayLeaf:
    """A service's certificate, its key, and the intermediates to send with it."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)
    intermediates: tuple[x509.Certificate, ...] = ()

    @property
    def chain_pem(self) -> bytes:
        """What belongs into ``cert.pem``."""
        return b"".join(certificate_pem(one) for one in (self.certificate, *self.intermediates))


class ThrowawayCa:
    """One certificate authority; revoking is remembered, and ``crl_pem`` tells of it."""

    def __init__(self, issuer: Issuer, *, parent: "ThrowawayCa | None" = None) -> None:
        self.issuer = issuer
        self.parent = parent
        self.revoked: list[int] = []

    @property
    def certificate(self) -> x509.Certificate:
        """The CA's own certificate."""
        return self.issuer.certificate

    @property
    def fingerprint(self) -> str:
        """``sha256:…``, as policies name it."""
        return key_fingerprint(self.issuer.key.public_key())

    @property
    def pem(self) -> bytes:
        """What belongs into ``anchors.pem``."""
        return certificate_pem(self.certificate)

    def intermediate(self, name: str = "Intermediate", *, trust_domains: Iterable[str] = ()) -> "ThrowawayCa":
        """Return a CA below this one (whose ``path_length`` must allow it)."""
        key = new_key()
        extensions = authority_extensions(key.public_key(), trust_domains=trust_domains)
        certificate = issue(self.issuer, key.public_key(), common_name(name), extensions, _around_now())
        return ThrowawayCa(Issuer(certificate, key), parent=self)

    def leaf(
        self,
        spiffe_id: str = "spiffe://acme.example/service",
        *,
        role: str = "both",
        dns_names: Iterable[str] = (),
        addresses: Iterable[str] = (),
        validity: Validity | None = None,
        key: PrivateKey | None = None,
        subject: x509.Name | None = None,
        without: Sequence[type[x509.ExtensionType]] = (),
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> ThrowawayLeaf:
        """Return a certificate of this CA, with defects if asked for.

        Args:
            spiffe_id: Its URI name; not checked.
            role: ``client``, ``server`` or ``both``.
            dns_names: DNS names.
            addresses: IP addresses.
            validity: When it is valid; from yesterday, for 60 days, if left out.
            key: Its key; a fresh P-256 one if left out.
            subject: Its subject; ``CN=throw-away`` if left out.
            without: Extension types to leave out.
            extra: Extensions to add, or to put in place of those in ``without``.
        """
        own = key or new_key()
        ips = [ip_address(address) for address in addresses]
        extensions = [
            *(
                (extension, critical)
                for extension, critical in leaf_extensions(
                    own.public_key(), spiffe_id, role, dns_names=dns_names, addresses=ips
                )
                if not isinstance(extension, tuple(without))
            ),
            *extra,
        ]
        certificate = issue(
            self.issuer, own.public_key(), subject or common_name("throw-away"), extensions, validity or _around_now()
        )
        chain = []
        authority: ThrowawayCa | None = self
        while authority is not None and authority.parent is not None:
            chain.append(authority.certificate)
            authority = authority.parent
        return ThrowawayLeaf(certificate, own, tuple(chain))

    def revoke(self, certificate: x509.Certificate) -> None:
        """Put a certificate of this CA on its list."""
        self.revoked.append(certificate.serial_number)

    def crl_pem(self, *, validity: Validity | None = None, signer: Issuer | None = None) -> bytes:
        """Return the CA's current revocation list; ``signer`` forges it with another key."""
        moment = datetime.now(UTC) - timedelta(minutes=1)
        crl = revocation_list(
            signer or self.issuer,
            [(serial, moment) for serial in self.revoked],
            validity or _around_now(),
            number=len(self.revoked) + 1,
        )
        return crl.public_bytes(Encoding.PEM)


class ThrowawayPki:
    """Certificate authorities that trust nobody but whom a test says."""

    def __init__(self, *, key_kind: str = "p256") -> None:
        self.key_kind = key_kind

    def ca(
        self,
        name: str = "Acme CA",
        *,
        path_length: int | None = 1,
        trust_domains: Iterable[str] = (),
        validity: Validity | None = None,
    ) -> ThrowawayCa:
        """Return a fresh root CA."""
        key = new_key(self.key_kind)
        extensions = authority_extensions(key.public_key(), path_length=path_length, trust_domains=trust_domains)
        return ThrowawayCa(self_signed(key, common_name(name), extensions, validity or _around_now()))

    def write_identity(
        self,
        directory: Path,
        leaf: ThrowawayLeaf,
        *,
        trust: Sequence[ThrowawayCa],
        crls: Sequence[bytes] | None = None,
    ) -> Path:
        """Write an identity directory for ``Identity.load`` and return it; an existing one is overwritten.

        Args:
            directory: Where; made with mode 0700.
            leaf: Our certificate and key.
            trust: The CAs whose peers we accept. Intermediates among them are not anchors, only their lists are used.
            crls: Revocation lists (PEM) instead of the current ones of ``trust``.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lists = [ca.crl_pem() for ca in trust] if crls is None else crls
        _write(directory / "cert.pem", leaf.chain_pem, 0o644)
        _write(directory / "key.pem", key_pem(leaf.key), 0o600)
        _write(directory / "anchors.pem", b"".join(ca.pem for ca in trust if ca.parent is None), 0o644)
        _write(directory / "crl.pem", b"".join(lists), 0o644)
        return directory


def _around_now() -> Validity:
    now = datetime.now(UTC)
    return Validity(now - _DAY, now + _VALIDITY)


def _write(path: Path, content: bytes, mode: int) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=mode)
    path.chmod(mode)
    path.write_bytes(content)
