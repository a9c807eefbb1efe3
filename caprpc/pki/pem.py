"""PEM files of several certificates or revocation lists."""

import re
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

_PEM_CRL: Final = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


def parse_certificates(pem: bytes) -> list[x509.Certificate]:
    """Return every certificate of a PEM file, in order.

    Raises:
        ValueError: There is none, or one is damaged.
    """
    found = x509.load_pem_x509_certificates(pem)
    if len(found) != pem.count(b"-----BEGIN CERTIFICATE-----"):
        raise ValueError("a damaged certificate")
    return found


def parse_revocation_lists(pem: bytes) -> list[x509.CertificateRevocationList]:
    """Return every revocation list of a PEM file, in order.

    Raises:
        ValueError: There is none, or one is damaged.
    """
    blocks: list[bytes] = _PEM_CRL.findall(pem)
    begun = pem.count(b"-----BEGIN")
    if not blocks or len(blocks) != begun:
        raise ValueError(f"{len(blocks)} whole revocation lists among {begun} PEM blocks")
    return [x509.load_pem_x509_crl(block) for block in blocks]


def certificates_pem(certificates: list[x509.Certificate]) -> bytes:
    """Return certificates as one PEM file."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def revocation_lists_pem(lists: list[x509.CertificateRevocationList]) -> bytes:
    """Return revocation lists as one PEM file."""
    return b"".join(one.public_bytes(Encoding.PEM) for one in lists)
