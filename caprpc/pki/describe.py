"""What certificates, revocation lists and identity directories say, for people and for JSON."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from caprpc.errors import ConfigurationError, printable
from caprpc.pki.fingerprint import key_fingerprint
from caprpc.pki.pem import parse_certificates, parse_revocation_lists

_USAGE_NAMES: Final = {ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth", ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth"}


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says; nothing is verified."""

    file: str
    subject: str
    issuer: str
    is_authority: bool
    principals: tuple[str, ...]
    """Its URI names; a service has exactly one."""
    dns_names: tuple[str, ...]
    addresses: tuple[str, ...]
    usages: tuple[str, ...]
    """Extended key usages."""
    key: str
    fingerprint: str
    """Of its key: for a CA, what policies name under ``ca``."""
    serial: str
    not_before: str
    not_after: str
    expired: bool


@dataclass(frozen=True, slots=True)
class ListFacts:
    """What a revocation list says; nothing is verified."""

    file: str
    issuer: str
    revoked: tuple[str, ...]
    """Serial numbers, hexadecimal."""
    last_update: str
    next_update: str
    expired: bool


def describe(path: Path, now: datetime) -> list[CertificateFacts | ListFacts]:
    """Return what a PEM file, or every certificate and list of an identity or CA directory, says.

    Raises:
        ConfigurationError: There is nothing to show, or it is damaged.
    """
    if not path.is_dir():
        return _describe_file(path, now)
    names = ("cert.pem", "ca.pem", "anchors.pem", "crl.pem")
    files = [path / name for name in names if (path / name).exists()]
    if not files:
        raise ConfigurationError(
            f"none of {', '.join(names)} is in this directory",
            where=str(path),
            hint="name an identity directory, that of a CA, or a file",
        )
    return [fact for file in files for fact in _describe_file(file, now)]


def _describe_file(path: Path, now: datetime) -> list[CertificateFacts | ListFacts]:
    pem = path.read_bytes()
    try:
        if b"-----BEGIN X509 CRL-----" in pem:
            return [_list_facts(one, path, now) for one in parse_revocation_lists(pem)]
        return [_certificate_facts(one, path, now) for one in parse_certificates(pem)]
    except ValueError as exc:
        raise ConfigurationError(
            "no PEM certificate and no revocation list, or a damaged one",
            where=str(path),
            hint="private keys are never shown",
        ) from exc


def _certificate_facts(certificate: x509.Certificate, path: Path, now: datetime) -> CertificateFacts:
    extensions = {extension.oid: extension.value for extension in certificate.extensions}
    basic = extensions.get(x509.BasicConstraints.oid)
    usages = extensions.get(x509.ExtendedKeyUsage.oid)
    names = extensions.get(x509.SubjectAlternativeName.oid)
    if not isinstance(names, x509.SubjectAlternativeName):
        names = x509.SubjectAlternativeName([])
    return CertificateFacts(
        file=str(path),
        subject=printable(certificate.subject.rfc4514_string()),
        issuer=printable(certificate.issuer.rfc4514_string()),
        is_authority=isinstance(basic, x509.BasicConstraints) and basic.ca,
        principals=tuple(printable(one) for one in names.get_values_for_type(x509.UniformResourceIdentifier)),
        dns_names=tuple(printable(one) for one in names.get_values_for_type(x509.DNSName)),
        addresses=tuple(str(one) for one in names.get_values_for_type(x509.IPAddress)),
        usages=tuple(_USAGE_NAMES.get(oid, oid.dotted_string) for oid in usages)
        if isinstance(usages, x509.ExtendedKeyUsage)
        else (),
        key=_key_words(certificate.public_key()),
        fingerprint=key_fingerprint(certificate.public_key()),
        serial=f"{certificate.serial_number:x}",
        not_before=certificate.not_valid_before_utc.isoformat(),
        not_after=certificate.not_valid_after_utc.isoformat(),
        expired=now >= certificate.not_valid_after_utc,
    )


def _list_facts(crl: x509.CertificateRevocationList, path: Path, now: datetime) -> ListFacts:
    end = crl.next_update_utc
    return ListFacts(
        file=str(path),
        issuer=printable(crl.issuer.rfc4514_string()),
        revoked=tuple(f"{entry.serial_number:x}" for entry in crl),
        last_update=crl.last_update_utc.isoformat(),
        next_update=end.isoformat() if end else "",
        expired=end is None or now >= end,
    )


def _key_words(key: object) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    return "Ed25519" if isinstance(key, ed25519.Ed25519PublicKey) else type(key).__name__
