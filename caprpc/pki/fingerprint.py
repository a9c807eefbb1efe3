"""Fingerprints of keys: how policies name a certificate authority."""

import hashlib

from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def key_fingerprint(public_key: CertificatePublicKeyTypes) -> str:
    """Return ``sha256:`` and the hexadecimal digest of the key's SubjectPublicKeyInfo (DER).

    The key, not the certificate: a CA certificate that is renewed with its key keeps its fingerprint.
    """
    spki = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(spki).hexdigest()
