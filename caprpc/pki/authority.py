"""A private certificate authority in a directory, for development and small deployments.

The directory: ``ca.pem`` and ``crl.pem`` (public; partners get them), ``ca.key`` (mode 0600), ``index.json`` (what was
issued), and one identity directory for each service.
"""

import re
from collections.abc import Sequence
from dataclasses import replace as changed
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import load_pem_private_key

from caprpc.errors import ConfigurationError
from caprpc.pki.certificates import (
    CA_DAYS,
    CRL_DAYS,
    LEAF_DAYS,
    ROLES,
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
from caprpc.pki.files import SECRET_MODE, check_directory, locked, make_directory, read_owned, replace, write_new
from caprpc.pki.fingerprint import key_fingerprint
from caprpc.pki.index import Index, Issued
from caprpc.pki.pem import revocation_lists_pem
from caprpc.pki.spiffe import SpiffeId, check_trust_domain
from caprpc.pki.trust import certificates_in, renew_list

CA_CERTIFICATE: Final = "ca.pem"
CA_KEY: Final = "ca.key"
CA_LIST: Final = "crl.pem"
CA_INDEX: Final = "index.json"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_DNS_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_MAX_DNS_NAME: Final = 253
_HINT: Final = "make one with `caprpc pki init`"


class PrivateCa:
    """One CA; its invariant: whatever it signed is in its index before anybody holds it, so that it can be revoked."""

    def __init__(self, directory: Path, issuer: Issuer) -> None:
        self.directory = directory
        self._issuer = issuer

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        trust_domain: str,
        key_kind: str = "p256",
        days: int = CA_DAYS,
        crl_days: int = CRL_DAYS,
        constrained: bool = True,
        now: datetime | None = None,
    ) -> "PrivateCa":
        """Make a CA in a new or empty directory.

        Args:
            directory: Where.
            trust_domain: The SPIFFE trust domain that it speaks for, such as ``acme.example``.
            key_kind: ``p256`` or ``ed25519``.
            days: How long the CA lasts.
            crl_days: How long its first revocation list lasts.
            constrained: Write the trust domain into the CA certificate (name constraint), so that it can speak for no
                other.
            now: The time; the clock if left out.

        Raises:
            ConfigurationError: The directory is not empty, or the trust domain is malformed.
        """
        try:
            check_trust_domain(trust_domain)
            key = new_key(key_kind)
        except ValueError as exc:
            raise ConfigurationError(str(exc)) from exc
        make_directory(directory)
        extensions = authority_extensions(key.public_key(), trust_domains=[trust_domain] if constrained else ())
        issuer = self_signed(key, common_name(f"{trust_domain} CA"), extensions, Validity.of_days(days, now))
        write_new(directory / CA_KEY, key_pem(key), mode=SECRET_MODE)
        write_new(directory / CA_CERTIFICATE, certificate_pem(issuer.certificate))
        write_new(directory / CA_INDEX, Index(trust_domain, 0, ()).to_json())
        authority = cls(directory, issuer)
        authority.renew_list(days=crl_days, now=now)
        return authority

    @classmethod
    def open(cls, directory: Path) -> "PrivateCa":
        """Open a CA that ``create`` made.

        Raises:
            ConfigurationError: It is incomplete, damaged, or others could have touched it.
        """
        check_directory(directory, hint=_HINT)
        certificate = certificates_in(directory / CA_CERTIFICATE)[0]
        key = _load_key(directory / CA_KEY)
        if key_fingerprint(key.public_key()) != key_fingerprint(certificate.public_key()):
            raise ConfigurationError(
                "the CA's key does not belong to ca.pem",
                where=str(directory / CA_KEY),
                hint="restore both files from the same backup",
            )
        return cls(directory, Issuer(certificate, key))

    @property
    def fingerprint(self) -> str:
        """``sha256:…``: what a partner's policy names under ``ca``."""
        return key_fingerprint(self._issuer.certificate.public_key())

    @property
    def index(self) -> Index:
        """What was issued and revoked so far."""
        return Index.parse(read_owned(self.directory / CA_INDEX, secret=False), where=str(self.directory / CA_INDEX))

    def issue(
        self,
        name: str,
        *,
        role: str,
        spiffe_path: str = "",
        dns_names: Sequence[str] = (),
        addresses: Sequence[str] = (),
        days: int = LEAF_DAYS,
        out: Path | None = None,
        now: datetime | None = None,
    ) -> tuple[Issued, Path]:
        """Issue a certificate with a fresh key and write its identity directory, which trusts this CA.

        Args:
            name: What we call it; the directory's name too.
            role: ``client``, ``server`` or ``both``.
            spiffe_path: The path of its SPIFFE ID; ``/name`` if left out.
            dns_names: Names under which a server is dialled.
            addresses: Addresses under which a server is dialled; if any is listed, no other is accepted.
            days: How long it lasts, at most as long as the CA.
            out: The identity directory; ``name`` in the CA's directory if left out.
            now: The time; the clock if left out.

        Raises:
            ConfigurationError: The name is taken, a name is malformed, or the directory exists.
        """
        with locked(self.directory):
            index = self.index
            if any(one.name == name for one in index.issued):
                raise ConfigurationError(
                    f"{name!r} was issued before",
                    hint=f"caprpc pki renew {self.directory} {name}, or choose another name",
                )
            if not _NAME.fullmatch(name):
                raise ConfigurationError(f"name {name!r}: expected letters, digits, dots, dashes and underscores")
            entry = Issued(
                name=name,
                spiffe_id=_spiffe_id(index.trust_domain, spiffe_path or f"/{name}"),
                role=_one_of(role),
                dns_names=tuple(_dns_name(one) for one in dns_names),
                addresses=tuple(_address(one) for one in addresses),
            )
            directory = out or self.directory / name
            make_directory(directory)
            entry, certificate, key = self._sign(index, entry, days, now)
            write_new(directory / "key.pem", key, mode=SECRET_MODE)
            write_new(directory / "cert.pem", certificate)
            write_new(directory / "anchors.pem", certificate_pem(self._issuer.certificate))
            write_new(directory / "crl.pem", read_owned(self.directory / CA_LIST, secret=False))
        return entry, directory

    def renew(
        self, name: str, *, days: int = LEAF_DAYS, out: Path | None = None, now: datetime | None = None
    ) -> tuple[Issued, Path]:
        """Issue a new certificate with a fresh key for the same names, in place; the old one stays valid until it
        expires.

        Raises:
            ConfigurationError: Nothing of that name was issued, or it was revoked.
        """
        with locked(self.directory):
            index = self.index
            same = [one for one in index.issued if one.name == name]
            if not same:
                raise ConfigurationError(f"nothing was issued as {name!r}", hint=f"caprpc pki list {self.directory}")
            if same[-1].revoked:
                raise ConfigurationError(
                    f"{name!r} was revoked on {same[-1].revoked}", hint="issue it under another name if it is to return"
                )
            directory = out or self.directory / name
            check_directory(directory, hint="say where it is with --out")
            entry, certificate, key = self._sign(index, same[-1], days, now)
            replace(directory / "key.pem", key, mode=SECRET_MODE)
            replace(directory / "cert.pem", certificate)
        return entry, directory

    def revoke(self, which: str, *, days: int = CRL_DAYS, now: datetime | None = None) -> list[Issued]:
        """Revoke by name (all certificates of that name) or by serial number (hexadecimal), and renew the list.

        Raises:
            ConfigurationError: Nothing of that name or number was issued.
        """
        moment = now or datetime.now(UTC)
        with locked(self.directory):
            index = self.index
            hit = {one.serial for one in index.issued if which in (one.name, one.serial)}
            if not hit:
                raise ConfigurationError(
                    f"nothing was issued as {which!r}", hint=f"caprpc pki list {self.directory} shows names and serials"
                )
            stamp = moment.isoformat(timespec="seconds")
            issued = tuple(
                changed(one, revoked=stamp) if one.serial in hit and not one.revoked else one for one in index.issued
            )
            self._save(Index(index.trust_domain, index.list_number, issued))
            self._write_list(days, moment)
        return [one for one in issued if one.serial in hit]

    def renew_list(self, *, days: int = CRL_DAYS, now: datetime | None = None) -> list[Path]:
        """Sign a fresh revocation list into ``crl.pem``; return the identity directories in here that got it too."""
        with locked(self.directory):
            return self._write_list(days, now or datetime.now(UTC))

    def identity_directories(self) -> list[Path]:
        """Return the identity directories that lie in the CA's directory."""
        return sorted(path.parent for path in self.directory.glob("*/anchors.pem"))

    def _sign(self, index: Index, entry: Issued, days: int, now: datetime | None) -> tuple[Issued, bytes, bytes]:
        """Return the index entry, the certificate and the key (PEM); the entry is saved first."""
        validity = Validity.of_days(days, now)
        end = min(validity.not_after, self._issuer.certificate.not_valid_after_utc)
        key = new_key("ed25519" if self._signs_with_ed25519() else "p256")
        extensions = leaf_extensions(
            key.public_key(),
            entry.spiffe_id,
            entry.role,
            dns_names=entry.dns_names,
            addresses=[ip_address(one) for one in entry.addresses],
        )
        certificate = issue(
            self._issuer, key.public_key(), common_name(entry.name), extensions, Validity(validity.not_before, end)
        )
        entry = changed(
            entry, serial=f"{certificate.serial_number:x}", not_after=end.isoformat(timespec="seconds"), revoked=""
        )
        self._save(Index(index.trust_domain, index.list_number, (*index.issued, entry)))
        return entry, certificate_pem(certificate), key_pem(key)

    def _signs_with_ed25519(self) -> bool:
        return self._issuer.certificate.signature_hash_algorithm is None

    def _write_list(self, days: int, now: datetime) -> list[Path]:
        index = self.index
        number = index.list_number + 1
        revoked = [(int(one.serial, 16), datetime.fromisoformat(one.revoked)) for one in index.issued if one.revoked]
        current = revocation_list(self._issuer, revoked, Validity.of_days(days, now), number=number)
        self._save(Index(index.trust_domain, number, index.issued))
        replace(self.directory / CA_LIST, revocation_lists_pem([current]))
        directories = self.identity_directories()
        for directory in directories:
            renew_list(directory, self._issuer.certificate, current)
        return directories

    def _save(self, index: Index) -> None:
        replace(self.directory / CA_INDEX, index.to_json())


def _load_key(path: Path) -> PrivateKey:
    try:
        key = load_pem_private_key(read_owned(path, secret=True, hint=_HINT), password=None)
    except (ValueError, TypeError) as exc:
        raise ConfigurationError(
            "no PEM private key, or an encrypted or damaged one",
            where=str(path),
            hint="restore it from a backup; an encrypted one: openssl pkey -in FILE -out ca.key, with mode 0600",
        ) from exc
    if not isinstance(key, PrivateKey):
        raise ConfigurationError(
            f"a key of type {type(key).__name__} cannot sign here",
            where=str(path),
            hint="a CA needs an elliptic-curve, Ed25519 or RSA key",
        )
    return key


def _spiffe_id(trust_domain: str, path: str) -> str:
    if not path.startswith("/"):
        raise ConfigurationError(f"SPIFFE path {path!r} must begin with a slash")
    try:
        return SpiffeId.parse(f"spiffe://{trust_domain}{path}").text
    except ValueError as exc:
        raise ConfigurationError(str(exc)) from exc


def _one_of(role: str) -> str:
    if role not in ROLES:
        raise ConfigurationError(f"role {role!r}, expected one of {', '.join(ROLES)}")
    return role


def _dns_name(name: str) -> str:
    folded = name.lower()
    if len(folded) > _MAX_DNS_NAME or not all(_DNS_LABEL.fullmatch(label) for label in folded.split(".")):
        raise ConfigurationError(f"DNS name {name!r}: expected a host name without wildcard")
    return folded


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError as exc:
        raise ConfigurationError(f"address {text!r}: {exc}") from exc
