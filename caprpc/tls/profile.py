"""The certificate profile: what a leaf must be before its name counts. TLS and identity reference, section 3.

OpenSSL has verified signatures, dates, revocation and constraints before this runs; that is a chain, not an identity.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from caprpc.errors import IdentityRefused, printable
from caprpc.pki.fingerprint import key_fingerprint
from caprpc.pki.spiffe import SpiffeId

MAX_CERTIFICATE_BYTES: Final = 16 * 1024
"""Largest certificate that is parsed at all; honest ones have 1 to 2 KiB."""

MAX_ALTERNATIVE_NAMES: Final = 64
"""Most subject alternative names of a leaf."""

MAX_CACHED_LEAVES: Final = 1024
"""Most leaves that a cache holds: some MiB; only what a trusted CA has signed comes that far."""

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 4096
"""Above this a verification costs more than the caller deserves."""

ROLE_USAGES: Final = {"client": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}
"""The extended key usage that each role demands."""

_Parsed = TypeVar("_Parsed")
_CURVES: Final = ("secp256r1", "secp384r1")
_HASHES: Final = ("sha256", "sha384", "sha512")
_CONSTRAINT: Final = re.compile(r"\.?[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?)*")
"""A host, or ``.domain``; RFC 5280 knows nothing else for URIs."""
_LABEL_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf certificate that fits the profile."""

    spiffe: SpiffeId
    key: str
    """Fingerprint of its public key."""
    roles: frozenset[str]
    """``client``, ``server`` or both, by extended key usage."""
    dns_names: frozenset[str]
    """In lower case; none has a wildcard."""
    ip_addresses: frozenset[IPv4Address | IPv6Address]
    serial: int
    not_after: float


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA certificate of a verified chain."""

    name: str
    """Subject, RFC 4514."""
    issuer: str
    key: str
    """Fingerprint of its public key."""
    serial: int
    not_after: float
    permitted_hosts: tuple[str, ...] | None
    """URI name constraints: hosts, or ``.domain`` for all below it; None if there are none."""
    excluded_hosts: tuple[str, ...]


def parse_leaf(der: bytes) -> Leaf:
    """Return the leaf of a chain.

    Raises:
        IdentityRefused: It does not fit the profile; the code says in what.
    """
    return _parse(der, _leaf_of)


class LeafCache:
    """Leaves by their DER, so that a peer which connects again costs no parsing; a leaf is what its bytes say.

    Thread-safe: entries are only added, and all are dropped when there are ``MAX_CACHED_LEAVES``.
    """

    __slots__ = ("_leaves",)

    def __init__(self) -> None:
        self._leaves: dict[bytes, Leaf] = {}

    def parse(self, der: bytes) -> Leaf:
        """Return the leaf of a chain, as ``parse_leaf``."""
        leaf = self._leaves.get(der)
        if leaf is None:
            leaf = parse_leaf(der)
            if len(self._leaves) >= MAX_CACHED_LEAVES:
                self._leaves.clear()
            self._leaves[der] = leaf
        return leaf


def parse_authority(der: bytes) -> Authority:
    """Return a CA certificate of a chain.

    Raises:
        IdentityRefused: It is too large, malformed, no CA, or its key or signature is too weak.
    """
    return _parse(der, _authority_of)


def check_name_constraints(leaf: Leaf, authority: Authority) -> None:
    """Check the leaf's trust domain against the URI name constraints of a CA above it (RFC 5280, 4.2.1.10).

    Besides OpenSSL: whether and how it reads URI constraints depends on its version.

    Raises:
        IdentityRefused: The CA may not issue for this trust domain.
    """
    host, name = leaf.spiffe.trust_domain, printable(authority.name)
    permitted = authority.permitted_hosts
    if permitted is not None and not any(_host_matches(host, entry) for entry in permitted):
        raise IdentityRefused(
            "name-constraint", printable(f"{name} may not issue for {host}: permitted are {permitted}", 512)
        )
    # What is no host excludes we do not know what: then everything.
    if any(not _CONSTRAINT.fullmatch(entry) or _host_matches(host, entry) for entry in authority.excluded_hosts):
        raise IdentityRefused("name-constraint", f"{name} may not issue for {host}: it is excluded")


def _parse(der: bytes, reader: Callable[[x509.Certificate], _Parsed]) -> _Parsed:
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise IdentityRefused("size", f"certificate of {len(der)} bytes, at most {MAX_CERTIFICATE_BYTES} allowed")
    try:
        return reader(x509.load_der_x509_certificate(der))
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, UserWarning) as exc:
        # UserWarning: cryptography warns of some malformations, which ``python -W error`` turns into exceptions.
        raise IdentityRefused("malformed", f"certificate does not parse: {printable(str(exc))}") from exc


def _leaf_of(certificate: x509.Certificate) -> Leaf:
    key = _check_key(certificate)
    if certificate.serial_number <= 0:
        raise IdentityRefused("malformed", "serial number is not positive; revocation could not name it")
    extensions = {extension.oid: extension.value for extension in certificate.extensions}
    basic = extensions.get(x509.BasicConstraints.oid)
    if isinstance(basic, x509.BasicConstraints) and basic.ca:
        raise IdentityRefused("ca-leaf", "a CA certificate is no service's identity")
    usage = extensions.get(x509.KeyUsage.oid)
    if isinstance(usage, x509.KeyUsage):
        if usage.key_cert_sign or usage.crl_sign:
            raise IdentityRefused("ca-leaf", "a key that may sign certificates is no service's identity")
        if not usage.digital_signature:
            raise IdentityRefused("key-usage", "key usage lacks digitalSignature")
    extended = extensions.get(x509.ExtendedKeyUsage.oid)
    if not isinstance(extended, x509.ExtendedKeyUsage):
        raise IdentityRefused("eku", "no extended key usage; clientAuth or serverAuth must be written out")
    names = extensions.get(x509.SubjectAlternativeName.oid)
    if not isinstance(names, x509.SubjectAlternativeName):
        raise IdentityRefused("identity-missing", "no subject alternative name; the common name is never read")
    if len(names) > MAX_ALTERNATIVE_NAMES:
        raise IdentityRefused("size", f"{len(names)} alternative names, at most {MAX_ALTERNATIVE_NAMES} allowed")
    return Leaf(
        spiffe=_spiffe_of(names),
        key=key_fingerprint(key),
        roles=frozenset(role for role, oid in ROLE_USAGES.items() if oid in extended),
        dns_names=frozenset(_dns_name(name) for name in names.get_values_for_type(x509.DNSName)),
        ip_addresses=frozenset(_address(address) for address in names.get_values_for_type(x509.IPAddress)),
        serial=certificate.serial_number,
        not_after=certificate.not_valid_after_utc.timestamp(),
    )


def _authority_of(certificate: x509.Certificate) -> Authority:
    key = _check_key(certificate)
    permitted: tuple[str, ...] | None = None
    excluded: tuple[str, ...] = ()
    is_authority = False
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints):
            is_authority = value.ca
        elif isinstance(value, x509.NameConstraints):
            permitted = _hosts(value.permitted_subtrees) or None
            excluded = _hosts(value.excluded_subtrees)
    if not is_authority:
        subject = printable(certificate.subject.rfc4514_string())
        raise IdentityRefused("chain", f"{subject} issued a certificate but is no CA")
    return Authority(
        name=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        key=key_fingerprint(key),
        serial=certificate.serial_number,
        not_after=certificate.not_valid_after_utc.timestamp(),
        permitted_hosts=permitted,
        excluded_hosts=excluded,
    )


def _check_key(certificate: x509.Certificate) -> CertificatePublicKeyTypes:
    """Return the public key if it and the signature over it are strong enough."""
    if certificate.signature_algorithm_oid != SignatureAlgorithmOID.ED25519:
        algorithm = certificate.signature_hash_algorithm
        if algorithm is None or algorithm.name not in _HASHES:
            name = algorithm.name if algorithm else certificate.signature_algorithm_oid.dotted_string
            raise IdentityRefused("signature", f"signed with {name}; expected SHA-256, SHA-384, SHA-512 or Ed25519")
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in _CURVES:
            raise IdentityRefused("key", f"key on curve {key.curve.name}; expected P-256 or P-384")
    elif isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise IdentityRefused(
                "key", f"RSA key of {key.key_size} bits; expected {MIN_RSA_BITS} to {MAX_RSA_BITS} or P-256"
            )
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        raise IdentityRefused("key", f"key of type {type(key).__name__}; expected P-256, P-384, Ed25519 or RSA")
    return key


def _spiffe_of(names: x509.SubjectAlternativeName) -> SpiffeId:
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if not uris:
        raise IdentityRefused(
            "identity-missing", "no URI among the subject alternative names; expected one spiffe:// ID"
        )
    if len(uris) > 1:
        raise IdentityRefused(
            "identity-ambiguous", f"{len(uris)} URIs among the alternative names, expected exactly one"
        )
    try:
        return SpiffeId.parse(uris[0])
    except ValueError as exc:
        raise IdentityRefused("identity-malformed", printable(str(exc))) from exc


def _dns_name(name: str) -> str:
    if not name or not _LABEL_CHARACTERS.issuperset(name):
        raise IdentityRefused(
            "identity-malformed", f"DNS name {printable(name)!r}: wildcards and other characters are not accepted"
        )
    return name.lower()


def _address(address: IPv4Address | IPv6Address | IPv4Network | IPv6Network) -> IPv4Address | IPv6Address:
    if not isinstance(address, IPv4Address | IPv6Address):
        raise IdentityRefused("identity-malformed", f"{address} is a network, expected an address")
    return address


def _hosts(subtrees: list[x509.GeneralName] | None) -> tuple[str, ...]:
    """Return URI name constraints; hosts are the same in whatever case they are written."""
    return tuple(entry.value.lower() for entry in subtrees or () if isinstance(entry, x509.UniformResourceIdentifier))


def _host_matches(host: str, entry: str) -> bool:
    """A constraint is a host, or ``.domain`` for every host below it, and nothing else."""
    return host.endswith(entry) and len(host) > len(entry) if entry.startswith(".") else host == entry
