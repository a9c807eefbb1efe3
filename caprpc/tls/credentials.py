"""Our own identity: an immutable snapshot of an identity directory.

A reload makes a new one; a connection keeps the context it was made with and is checked against the newest
(``still_valid``).
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from caprpc.errors import ConfigurationError, IdentityRefused
from caprpc.pki.files import check_directory, read_owned
from caprpc.pki.fingerprint import key_fingerprint
from caprpc.pki.pem import parse_certificates
from caprpc.tls.profile import Authority, Leaf, LeafCache, parse_authority, parse_leaf
from caprpc.tls.revocation import RevocationTable

FILES: Final = ("cert.pem", "key.pem", "anchors.pem", "crl.pem")
"""What an identity directory holds."""

_HINT: Final = f"an identity directory holds {', '.join(FILES)}"
_DAMAGED: Final = "copy it again from where it was issued, or issue it anew: caprpc pki renew"

EXPIRY_WARNING_S: Final = 7 * 86_400
"""How long before an expiry ``problems`` speaks of it."""


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    """The bytes of the four files as they were read, once."""

    cert: bytes
    key: bytes = field(repr=False)
    anchors: bytes
    crl: bytes
    digest: str
    """SHA-256 over all four: tells one epoch from another."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Our certificate with its key, the CAs we trust, and their revocation lists."""

    directory: Path
    files: IdentityFiles = field(repr=False)
    leaf: Leaf
    leaf_der: bytes = field(repr=False)
    authorities: Mapping[bytes, Authority] = field(repr=False)
    """The trust anchors by their DER, parsed once: a handshake looks them up."""
    revocation: RevocationTable = field(repr=False)
    leaves: LeafCache = field(default_factory=LeafCache, repr=False, compare=False)
    """Leaves of peers that were parsed under this epoch."""

    @classmethod
    def load(cls, directory: Path | str, *, now: float | None = None) -> "Identity":
        """Read an identity directory: ``cert.pem`` (leaf first), ``key.pem``, ``anchors.pem``, ``crl.pem``.

        Args:
            directory: As written by ``caprpc pki issue``.
            now: Seconds since the epoch; the clock if it is left out.

        Raises:
            ConfigurationError: A file is missing, malformed, unsafe (readable or writable by others), does not fit
            the others, or
                our certificate is expired or not fit for its role.
        """
        directory = Path(directory)
        moment = time.time() if now is None else now
        check_directory(directory, hint="make one with `caprpc pki issue`")
        files = _read_files(directory)
        leaf, leaf_der = _own_leaf(files, directory, moment)
        return cls(
            directory=directory,
            files=files,
            leaf=leaf,
            leaf_der=leaf_der,
            authorities=MappingProxyType(_anchors(files.anchors, directory / "anchors.pem")),
            revocation=_revocation(files.crl, directory / "crl.pem"),
        )

    @property
    def principal(self) -> str:
        """Who we are to our peers."""
        return self.leaf.spiffe.text

    @property
    def leaf_key(self) -> str:
        """Fingerprint of our leaf's key; part of the connection id."""
        return self.leaf.key

    @property
    def anchors(self) -> frozenset[str]:
        """Fingerprints of the CAs we trust to prove peers."""
        return frozenset(authority.key for authority in self.authorities.values())

    def changed(self) -> bool:
        """Whether the directory differs from this snapshot, or cannot be read; then ``reload`` says more."""
        try:
            return _read_files(self.directory).digest != self.files.digest
        except ConfigurationError:
            return True

    def reload(self, *, now: float | None = None) -> "Identity":
        """Return the next epoch from the same directory; this one stays as it is.

        Raises:
            ConfigurationError: As for ``load``; keep using this one, and tell the operator.
        """
        return Identity.load(self.directory, now=now)

    def problems(self, now: float) -> tuple[str, ...]:
        """Return what will make handshakes fail now or soon, one sentence each, for the operator."""
        found: list[str] = []
        _note_expiry(found, "our certificate", self.leaf.not_after, now)
        for authority in self.authorities.values():
            _note_expiry(found, f"the CA certificate of {authority.name}", authority.not_after, now)
            current = self.revocation.of(authority.name)
            if current is None:
                found.append(f"no revocation list of {authority.name} in crl.pem: its peers are refused")
            else:
                _note_expiry(found, f"the revocation list of {authority.name}", current.next_update, now)
        return tuple(found)


def _note_expiry(found: list[str], what: str, not_after: float, now: float) -> None:
    if now >= not_after - EXPIRY_WARNING_S:
        verb = "expired" if now >= not_after else "expires"
        found.append(f"{what} {verb} on {_date(not_after)}")


def _date(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _read_files(directory: Path) -> IdentityFiles:
    cert, key, anchors, crl = (read_owned(directory / name, secret=name == "key.pem", hint=_HINT) for name in FILES)
    digest = hashlib.sha256()
    for content in (cert, key, anchors, crl):
        digest.update(hashlib.sha256(content).digest())
    return IdentityFiles(cert=cert, key=key, anchors=anchors, crl=crl, digest=digest.hexdigest())


def _certificates(pem: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return parse_certificates(pem)
    except ValueError as exc:
        raise ConfigurationError("no PEM certificates, or a damaged one", where=str(path), hint=_DAMAGED) from exc


def _own_leaf(files: IdentityFiles, directory: Path, now: float) -> tuple[Leaf, bytes]:
    where = directory / "cert.pem"
    certificate = _certificates(files.cert, where)[0]
    der = _der(certificate)
    try:
        leaf = parse_leaf(der)
    except IdentityRefused as exc:
        raise ConfigurationError(
            f"peers will not accept this certificate: {exc.detail}",
            where=str(where),
            hint="the leaf comes first; see docs/reference/tls-and-identity.md",
        ) from exc
    if not leaf.roles:
        raise ConfigurationError(
            "the certificate is made for neither clientAuth nor serverAuth",
            where=str(where),
            hint="issue it with `caprpc pki issue --role client|server|both`",
        )
    if now >= leaf.not_after:
        raise ConfigurationError(
            f"our certificate expired on {_date(leaf.not_after)}",
            where=str(where),
            hint="issue a new one with `caprpc pki issue`",
        )
    if now < certificate.not_valid_before_utc.timestamp():
        raise ConfigurationError(
            f"our certificate is not valid before {_date(certificate.not_valid_before_utc.timestamp())}",
            where=str(where),
            hint="check the clock",
        )
    if _key_of(files.key, directory / "key.pem") != leaf.key:
        raise ConfigurationError(
            "the private key does not belong to cert.pem",
            where=str(directory / "key.pem"),
            hint="copy both files from the same `caprpc pki issue`",
        )
    return leaf, der


def _key_of(pem: bytes, path: Path) -> str:
    """Return the fingerprint of the private key's public half."""
    try:
        return key_fingerprint(load_pem_private_key(pem, password=None).public_key())  # type: ignore[arg-type]
    except TypeError as exc:
        raise ConfigurationError(
            "the private key is encrypted; a service cannot ask for a passphrase",
            where=str(path),
            hint=f"openssl pkey -in {path} -out key.pem, with mode 0600, and let the disk or a secret store protect it",
        ) from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ConfigurationError("no PEM private key, or a damaged one", where=str(path), hint=_DAMAGED) from exc


def _anchors(pem: bytes, path: Path) -> dict[bytes, Authority]:
    found: dict[bytes, Authority] = {}
    for certificate in _certificates(pem, path):
        der = _der(certificate)
        try:
            authority = parse_authority(der)
        except IdentityRefused as exc:
            raise ConfigurationError(
                f"not a usable CA: {exc.detail}",
                where=str(path),
                hint="docs/reference/tls-and-identity.md says what a CA has to be; caprpc pki init makes such a one",
            ) from exc
        if certificate.issuer != certificate.subject:
            raise ConfigurationError(
                f"{authority.name} is an intermediate CA; an anchor signs itself",
                where=str(path),
                hint="put the root CA here; peers send their intermediates in cert.pem",
            )
        found[der] = authority
    return found


def _revocation(pem: bytes, path: Path) -> RevocationTable:
    try:
        return RevocationTable.parse(pem)
    except ValueError as exc:
        raise ConfigurationError(
            f"no usable revocation lists: {exc}",
            where=str(path),
            hint="renew it with `caprpc pki crl DIR` and copy its crl.pem here",
        ) from exc


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
