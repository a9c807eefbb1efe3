"""Whom an identity directory trusts: its ``anchors.pem`` and the revocation lists for them in ``crl.pem``."""

from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from caprpc.errors import ConfigurationError
from caprpc.pki.files import locked, read_owned, replace
from caprpc.pki.fingerprint import key_fingerprint
from caprpc.pki.pem import certificates_pem, parse_certificates, parse_revocation_lists, revocation_lists_pem

_COPY_AGAIN: Final = "copy it again from where it comes from"


def trust(directory: Path, authority: bytes, revocation: bytes) -> str:
    """Add a CA (PEM) and its current revocation lists (PEM) to an identity directory; return the CA's fingerprint.

    A CA that is trusted already, by its key, is replaced together with its lists: this is also how a list is renewed.

    Args:
        directory: The identity directory.
        authority: The self-signed CA, and the intermediates below it if it has any.
        revocation: A current list of each of them.

    Raises:
        ConfigurationError: A file is damaged, the certificates are not one CA with its intermediates, or a list is
            missing or of somebody else.
    """
    root, intermediates = _authorities(authority)
    issuers = [root, *intermediates]
    current = [_own_list(revocation, one) for one in issuers]
    fingerprint = key_fingerprint(root.public_key())
    with locked(directory):
        anchors = [
            one
            for one in certificates_in(directory / "anchors.pem")
            if key_fingerprint(one.public_key()) != fingerprint
        ]
        _replace_lists(directory / "crl.pem", current, issuers)
        replace(directory / "anchors.pem", certificates_pem([*anchors, root]))
    return fingerprint


def renew_list(directory: Path, authority: x509.Certificate, revocation: x509.CertificateRevocationList) -> None:
    """Replace the revocation list of one CA in an identity directory; the lists of all others stay."""
    with locked(directory):
        _replace_lists(directory / "crl.pem", [revocation], [authority])


def certificates_in(path: Path) -> list[x509.Certificate]:
    """Return the certificates of a PEM file.

    Raises:
        ConfigurationError: It cannot be read or is damaged.
    """
    try:
        return parse_certificates(read_owned(path, secret=False))
    except ValueError as exc:
        raise ConfigurationError("no PEM certificates, or a damaged one", where=str(path), hint=_COPY_AGAIN) from exc


def lists_in(path: Path) -> list[x509.CertificateRevocationList]:
    """Return the revocation lists of a PEM file.

    Raises:
        ConfigurationError: It cannot be read or is damaged.
    """
    try:
        return parse_revocation_lists(read_owned(path, secret=False))
    except ValueError as exc:
        raise ConfigurationError(f"no usable revocation lists: {exc}", where=str(path), hint=_COPY_AGAIN) from exc


def _authorities(pem: bytes) -> tuple[x509.Certificate, list[x509.Certificate]]:
    """Return the one self-signed CA of a file and the intermediates below it."""
    try:
        found = parse_certificates(pem)
    except ValueError as exc:
        raise ConfigurationError("the CA file holds no PEM certificate, or a damaged one", hint=_COPY_AGAIN) from exc
    if not all(_is_authority(one) for one in found):
        raise ConfigurationError(
            "the CA file holds a certificate that is no CA",
            hint="ask the partner for their CA certificate, not for a service's",
        )
    roots = [one for one in found if _issued(one, one)]
    if len(roots) != 1:
        raise ConfigurationError(
            f"the CA file holds {len(roots)} self-signed CAs, expected one",
            hint="run caprpc pki trust once for each partner, with the CA of that one",
        )
    intermediates = [one for one in found if one not in roots]
    for one in intermediates:
        if not any(_issued(issuer, one) for issuer in found):
            raise ConfigurationError(
                f"{one.subject.rfc4514_string()} in the CA file was issued by none of the others",
                hint="ask the partner for the certificates of all CAs between this one and its root",
            )
    return roots[0], intermediates


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _own_list(pem: bytes, authority: x509.Certificate) -> x509.CertificateRevocationList:
    """Return the CA's list among those of a file, by its signature."""
    try:
        found = parse_revocation_lists(pem)
    except ValueError as exc:
        raise ConfigurationError(f"the CRL file is of no use: {exc}", hint=_COPY_AGAIN) from exc
    for one in found:
        if is_signed_by(one, authority):
            return one
    raise ConfigurationError(
        f"no revocation list in the CRL file is signed by {authority.subject.rfc4514_string()}",
        hint="ask the partner for the list of this CA (crl.pem beside their ca.pem)",
    )


def _replace_lists(path: Path, current: list[x509.CertificateRevocationList], issuers: list[x509.Certificate]) -> None:
    """Put the current lists of some issuers in place of the ones they had; the lists of all others stay."""
    before = lists_in(path) if path.exists() else []
    others = [one for one in before if not any(is_signed_by(one, issuer) for issuer in issuers)]
    replace(path, revocation_lists_pem([*others, *current]))


def is_signed_by(revocation: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    """Whether a revocation list is the CA's: signed with its key."""
    try:
        return revocation.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except TypeError:
        # A key that cannot sign lists at all.
        return False
