"""Sturdy references: ``caprpc://host:port/name#caprpc_sr_…``, a capability that outlives a connection.

The fragment is the secret. Its prefix and its checksum are there for leak scanners: ``PATTERN`` finds it in any text.
"""

import hashlib
import re
import secrets
import zlib
from base64 import b32encode
from dataclasses import dataclass, field
from typing import Final

from caprpc.address import Address
from caprpc.errors import ConfigurationError

PREFIX: Final = "caprpc_sr_"

RANDOM_BYTES: Final = 20
"""160 random bits: 32 characters without padding. Nobody finds one of n grants in fewer than 2^159/n guesses."""

_CHECK_CHARACTERS: Final = 7
"""A CRC-32 in base 32. It keeps scanners from crying wolf and shows typing errors; it guards nothing."""

PATTERN: Final = r"caprpc_sr_[a-z2-7]{39}(?![a-z2-7])"
"""The regular expression for leak scanners; ``is_secret`` tells a secret from what only looks like one."""

_SECRET: Final = re.compile(PATTERN)

MAX_SECRET_CHARS: Final = 64
"""Longest text that is looked at when a peer presents a secret."""

_DOMAIN: Final = b"caprpc sturdy reference 1\0"
"""Keeps the digest of a secret from being the digest of anything else."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}")


def new_secret() -> str:
    """Return a fresh secret."""
    body = _base32(secrets.token_bytes(RANDOM_BYTES))
    return PREFIX + body + _check(body)


def is_secret(text: str) -> bool:
    """Whether a text is a secret as ``new_secret`` makes them, checksum included."""
    if not _SECRET.fullmatch(text):
        return False
    body = text[len(PREFIX) : -_CHECK_CHARACTERS]
    return _check(body) == text[-_CHECK_CHARACTERS:]


def digest_of(secret: str) -> bytes:
    """Return the 32 bytes by which a secret is stored and found; any text has one."""
    return hashlib.sha256(_DOMAIN + secret.encode("utf-8", "surrogatepass")).digest()


def without_secret(text: str) -> str:
    """Return a text for people, such as a URL that was mistyped, with everything behind ``#`` left out."""
    before, hash_, _ = text.partition("#")
    return f"{before}#(secret)" if hash_ else before


@dataclass(frozen=True, slots=True)
class SturdyUri:
    """A parsed sturdy reference. ``repr`` and ``str`` leave the secret out; ``reveal`` gives all of it."""

    address: Address
    name: str
    """The root, or the kind of object, that it stands for."""
    secret: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "SturdyUri":
        """Return the parts of a sturdy reference.

        Raises:
            ConfigurationError: It is none, or was mistyped; the message does not hold the secret.
        """
        location, hash_, secret = text.partition("#")
        where, slash, name = location.rpartition("/")
        if not hash_ or not slash or not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"{without_secret(text)!r} is no sturdy reference: caprpc://host:port/name#{PREFIX}... expected",
                where="uri",
            )
        if not is_secret(secret):
            raise ConfigurationError(
                f"the secret of {without_secret(text)!r} is mistyped or cut: {PREFIX}, 32 characters and a checksum of "
                f"{_CHECK_CHARACTERS} expected",
                where="uri",
                hint="copy the whole text behind #",
            )
        return cls(Address.parse(where), name, secret)

    def reveal(self) -> str:
        """Return the text with the secret: whoever may restore it needs nothing else."""
        return f"{self.address}/{self.name}#{self.secret}"

    def __str__(self) -> str:
        return f"{self.address}/{self.name}#(secret)"


def address_of(text: str) -> Address:
    """Return where to dial for an address or for a sturdy reference.

    Raises:
        ConfigurationError: The text is neither.
    """
    return SturdyUri.parse(text).address if "#" in text else Address.parse(text)


def _base32(data: bytes) -> str:
    return b32encode(data).decode("ascii").rstrip("=").lower()


def _check(body: str) -> str:
    return _base32(zlib.crc32((PREFIX + body).encode("ascii")).to_bytes(4, "big"))
