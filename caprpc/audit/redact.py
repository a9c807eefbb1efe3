"""Keyed digests stand in the log for argument values that the policy does not let it keep in clear."""

import hmac
from typing import Final

DIGEST_MARK: Final = "hmac:"
"""A value in ``args`` that begins so is a digest."""

KEY_BYTES: Final = 32

_DIGEST_CHARACTERS: Final = 32
"""128 bits: nobody finds a second value for a digest, and the record stays short."""


class Redactor:
    """Makes digests of values with the secret of one log.

    Each digest has its own key, derived from the log's secret and the place of the value, so that an operator can
    open one digest to an auditor (``opening_key``) and no other. Without a key a digest cannot be tested for a guess.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def digest(self, value: bytes, connection: str, question: int, parameter: str) -> str:
        """Return ``hmac:`` and 32 hexadecimal digits for an encoded value."""
        return digest_with(self.opening_key(connection, question, parameter), value)

    def opening_key(self, connection: str, question: int, parameter: str) -> bytes:
        """Return the key of one digest, with which its value can be shown to be the recorded one."""
        place = f"{connection}\0{question}\0{parameter}".encode("utf-8", "backslashreplace")
        return hmac.digest(self._secret, place, "sha256")


def digest_with(opening_key: bytes, value: bytes) -> str:
    """Return the digest of an encoded value under the key that is its own."""
    return DIGEST_MARK + hmac.digest(opening_key, value, "sha256").hex()[:_DIGEST_CHARACTERS]
