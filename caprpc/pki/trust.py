"""Whom an identity directory trusts: its ``anchors.pem`` and the revocation lists for them in ``crl.pem``."""

from pathlib import Path

from cryptography import x509

from caprpc.errors import ConfigurationError
from caprpc.pki.files import locked, read_owned, replace
from caprpc.pki.fingerprint import key_fingerprint
from caprpc.pki.pem import certificates_pem, parse_certificates, parse_revocation_lists, revocation_lists_pem


def trust(directory: Path, authority: bytes, revocation: bytes) -> str:
    """Add a CA (PEM) and its current revocation list (PEM) to an identity directory; return the CA's fingerprint.

    A CA that is trusted already, by its key, is replaced together with its list: this is also how a list is renewed.

    Raises:
        ConfigurationError: One of the files is damaged, the certificate is no self-signed CA, or the list is not its
        list.
    """
    new = _one_authority(authority)
    current = _own_list(revocation, new)
    fingerprint = key_fingerprint(new.public_key())
    with locked(directory):
        anchors = [
            one
            for one in certificates_in(directory / "anchors.pem")
            if key_fingerprint(one.public_key()) != fingerprint
        ]
        _replace_lists(directory / "crl.pem", current, new)
        replace(directory / "anchors.pem", certificates_pem([*anchors, new]))
    return fingerprint


def renew_list(directory: Path, authority: x509.Certificate, revocation: x509.CertificateRevocationList) -> None:
    """Replace the revocation list of one CA in an identity directory; the lists of all others stay."""
    with locked(directory):
        _replace_lists(directory / "crl.pem", revocation, authority)


def certificates_in(path: Path) -> list[x509.Certificate]:
    """Return the certificates of a PEM file.

    Raises:
        ConfigurationError: It cannot be read or is damaged.
    """
    try:
        return parse_certificates(read_owned(path, secret=False))
    except ValueError as exc:
        raise ConfigurationError("no PEM certificates, or a damaged one", where=str(path)) from exc


def lists_in(path: Path) -> list[x509.CertificateRevocationList]:
    """Return the revocation lists of a PEM file.

    Raises:
        ConfigurationError: It cannot be read or is damaged.
    """
    try:
        return parse_revocation_lists(read_owned(path, secret=False))
    except ValueError as exc:
        raise ConfigurationError(f"no usable revocation lists: {exc}", where=str(path)) from exc


def _one_authority(pem: bytes) -> x509.Certificate:
    try:
        found = parse_certificates(pem)
    except ValueError as exc:
        raise ConfigurationError("the CA file holds no PEM certificate, or a damaged one") from exc
    if len(found) != 1:
        raise ConfigurationError(f"the CA file holds {len(found)} certificates, expected one self-signed CA")
    certificate = found[0]
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.verify_directly_issued_by(certificate)
    except (x509.ExtensionNotFound, ValueError, TypeError) as exc:
        raise ConfigurationError("the certificate is no CA that signs itself") from exc
    except Exception as exc:
        # cryptography.exceptions.InvalidSignature derives from Exception only.
        raise ConfigurationError("the certificate's own signature does not verify") from exc
    if not basic.ca:
        raise ConfigurationError(
            "the certificate is no CA", hint="ask the partner for their CA certificate, not for a service's"
        )
    return certificate


def _own_list(pem: bytes, authority: x509.Certificate) -> x509.CertificateRevocationList:
    """Return the CA's list among those of a file, by its signature."""
    try:
        found = parse_revocation_lists(pem)
    except ValueError as exc:
        raise ConfigurationError(f"the CRL file is of no use: {exc}") from exc
    for one in found:
        if is_signed_by(one, authority):
            return one
    raise ConfigurationError(
        f"no revocation list in the CRL file is signed by {authority.subject.rfc4514_string()}",
        hint="ask the partner for the list of this CA (crl.pem beside their ca.pem)",
    )


def _replace_lists(path: Path, current: x509.CertificateRevocationList, authority: x509.Certificate) -> None:
    others = [one for one in lists_in(path) if not is_signed_by(one, authority)] if path.exists() else []
    replace(path, revocation_lists_pem([*others, current]))


def is_signed_by(revocation: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    """Whether a revocation list is the CA's: signed with its key."""
    try:
        return revocation.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except TypeError:
        # A key that cannot sign lists at all.
        return False
