"""Certificates and revocation lists, built in memory: the shape that ``caprpc.tls`` demands, and nothing more."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
"""A private key that signs certificates; RSA only for authorities that exist already."""

KEY_KINDS: Final = ("p256", "ed25519")
"""What ``new_key`` makes. P-256 is the faster one in OpenSSL's handshakes."""

ROLES: Final = ("client", "server", "both")

BACKDATE: Final = timedelta(minutes=5)
"""A fresh certificate is valid this long before now, for machines whose clocks are a little behind."""

CA_DAYS: Final = 5 * 365
LEAF_DAYS: Final = 90
"""Short enough that renewing is a habit."""
CRL_DAYS: Final = 30
"""A revocation list that is not renewed in this time stops every connection."""

_USAGES: Final = {"client": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}

Extensions = Sequence[tuple[x509.ExtensionType, bool]]
"""Extensions with their criticality."""


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when."""

    not_before: datetime
    not_after: datetime

    @classmethod
    def of_days(cls, days: int, now: datetime | None = None) -> "Validity":
        """Return the validity of something issued now."""
        moment = now or datetime.now(UTC)
        return cls(moment - BACKDATE, moment + timedelta(days=days))


@dataclass(frozen=True, slots=True)
class Issuer:
    """A CA certificate with its private key."""

    certificate: x509.Certificate
    key: PrivateKey


def new_key(kind: str = "p256") -> PrivateKey:
    """Return a fresh private key of one of ``KEY_KINDS``.

    Raises:
        ValueError: No such kind.
    """
    if kind == "p256":
        return ec.generate_private_key(ec.SECP256R1())
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    raise ValueError(f"key kind {kind!r}, expected one of {', '.join(KEY_KINDS)}")


def common_name(text: str) -> x509.Name:
    """Return a name for people; CapRPC never reads it as an identity."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def authority_extensions(
    key: CertificatePublicKeyTypes, *, path_length: int | None = 0, trust_domains: Iterable[str] = ()
) -> list[tuple[x509.ExtensionType, bool]]:
    """Return the extensions of a CA; ``trust_domains`` become URI name constraints, if there are any."""
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=True, path_length=path_length), True),
        (_key_usage(signs_certificates=True), True),
        (x509.SubjectKeyIdentifier.from_public_key(key), False),
    ]
    permitted = [x509.UniformResourceIdentifier(domain) for domain in trust_domains]
    if permitted:
        extensions.append((x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None), True))
    return extensions


def leaf_extensions(
    key: CertificatePublicKeyTypes,
    spiffe_id: str,
    role: str,
    *,
    dns_names: Iterable[str] = (),
    addresses: Iterable[IPv4Address | IPv6Address] = (),
) -> list[tuple[x509.ExtensionType, bool]]:
    """Return the extensions of a service's certificate; ``role`` is one of ``ROLES``."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(spiffe_id)]
    names += [x509.DNSName(name) for name in dns_names]
    names += [x509.IPAddress(address) for address in addresses]
    usages = list(_USAGES.values()) if role == "both" else [_USAGES[role]]
    return [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(signs_certificates=False), True),
        (x509.ExtendedKeyUsage(usages), False),
        (x509.SubjectAlternativeName(names), False),
        (x509.SubjectKeyIdentifier.from_public_key(key), False),
    ]


def self_signed(key: PrivateKey, subject: x509.Name, extensions: Extensions, validity: Validity) -> Issuer:
    """Return a root CA."""
    certificate = _sign(subject, key.public_key(), subject, key, extensions, validity)
    return Issuer(certificate, key)


def issue(
    issuer: Issuer, key: CertificatePublicKeyTypes, subject: x509.Name, extensions: Extensions, validity: Validity
) -> x509.Certificate:
    """Return a certificate for ``key``; the authority key identifier is added, strict verification needs it."""
    identified = [*extensions, (_issuer_identifier(issuer), False)]
    return _sign(subject, key, issuer.certificate.subject, issuer.key, identified, validity)


def revocation_list(
    issuer: Issuer, revoked: Iterable[tuple[int, datetime]], validity: Validity, *, number: int
) -> x509.CertificateRevocationList:
    """Return a CRL over (serial, time of revocation)."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(validity.not_before)
        .next_update(validity.not_after)
        .add_extension(_issuer_identifier(issuer), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for serial, moment in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(moment).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(issuer.key, _hash_for(issuer.key))


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM)


def key_pem(key: PrivateKey) -> bytes:
    """Return a private key as PEM (PKCS #8), in clear: the file that holds it must have mode 0600."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _sign(
    subject: x509.Name,
    key: CertificatePublicKeyTypes,
    issuer: x509.Name,
    issuer_key: PrivateKey,
    extensions: Extensions,
    validity: Validity,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity.not_before)
        .not_valid_after(validity.not_after)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, _hash_for(issuer_key))


def _hash_for(key: PrivateKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _issuer_identifier(issuer: Issuer) -> x509.AuthorityKeyIdentifier:
    own = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
