"""The directory one run works in: throw-away certificates, the text file, and what peers prepare for themselves."""

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rpcbench.cases import LINES

HOST: Final = "127.0.0.1"
TRUST_DOMAIN: Final = "bench.example"
_BOTH_ROLES: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
"""Pyro5's callbacks connect from server to client."""
_LIFETIME: Final = datetime.timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Identity:
    """A directory in CapRPC's layout, which serves every other peer as well."""

    directory: Path
    spiffe: str

    @property
    def certificate(self) -> Path:
        """Our leaf certificate, PEM."""
        return self.directory / "cert.pem"

    @property
    def key(self) -> Path:
        """Its private key, PEM, readable by the owner only."""
        return self.directory / "key.pem"

    @property
    def anchors(self) -> Path:
        """The CA certificates that peers must chain to, PEM."""
        return self.directory / "anchors.pem"


@dataclass(frozen=True, slots=True)
class Site:
    """The working directory of a run."""

    directory: Path

    @property
    def server(self) -> Identity:
        """Who servers are."""
        return Identity(self.directory / "server", f"spiffe://{TRUST_DOMAIN}/server")

    @property
    def client(self) -> Identity:
        """Who clients are."""
        return Identity(self.directory / "client", f"spiffe://{TRUST_DOMAIN}/client")

    @property
    def lines(self) -> Path:
        """The text file of the ``lines`` case."""
        return self.directory / "lines.txt"


def make_site(directory: Path) -> Site:
    """Fill an empty directory: a P-256 CA, a server and a client identity, an empty revocation list, the text file."""
    site = Site(directory)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    ca = _ca_certificate(ca_key, now)
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.subject)
        .last_update(now - _LIFETIME)
        .next_update(now + _LIFETIME)
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(_authority_key_id(ca_key), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    for identity in (site.server, site.client):
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = _leaf_certificate(identity.spiffe, key, ca, ca_key, now)
        identity.directory.mkdir(mode=0o700)
        _write(identity.certificate, leaf.public_bytes(serialization.Encoding.PEM))
        _write(identity.key, _key_pem(key))
        _write(identity.anchors, ca.public_bytes(serialization.Encoding.PEM))
        _write(identity.directory / "crl.pem", crl.public_bytes(serialization.Encoding.PEM))
    site.lines.write_text("".join(f"line {number} of the text\n" for number in range(LINES)), encoding="utf-8")
    return site


def _ca_certificate(key: ec.EllipticCurvePrivateKey, now: datetime.datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark CA")])
    return (
        _certificate(name, name, key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf_certificate(
    spiffe: str,
    key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
) -> x509.Certificate:
    names = [
        x509.UniformResourceIdentifier(spiffe),
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address(HOST)),
    ]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, spiffe.rpartition("/")[2])])
    return (
        _certificate(subject, ca.subject, key, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_BOTH_ROLES), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_authority_key_id(ca_key), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
    )


def _authority_key_id(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _key_usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not sign,
        crl_sign=not sign,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
