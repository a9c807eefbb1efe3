"""Payloads that stand in one message, such as the runs of a batch: its bounds hold for all of them together.

Wire protocol, section 5.2.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from caprpc.errors import RemoteProtocolError
from caprpc.limits import Limits
from caprpc.wire.codec import unpack_tree
from caprpc.wire.weight import charged

_ITEMS_PER_BYTE: Final = 2
"""No value counts as more for each of its bytes: an extension, which counts as four, takes three."""


class Pieces:
    """Reads payloads one after the other; what one of them holds is not left for those behind it."""

    __slots__ = ("_limits", "_taken", "together")

    def __init__(self, limits: Limits, sizes: Sequence[int]) -> None:
        """Take the limits of the message, and the sizes of the payloads that stand in it."""
        self._limits = limits
        self._taken = False
        self.together = len(sizes) > 1 and sum(sizes) > min(limits.max_items // _ITEMS_PER_BYTE, limits.max_pair_keys)
        """Whether they may be too much together: a few bytes cannot, and one payload keeps to the bounds by itself."""

    def unpack(self, blob: bytes) -> Any:
        """Return the value of the next payload.

        Raises:
            RemoteProtocolError: As for ``codec.unpack``, and if the payloads hold more than one may.
        """
        limits = self._limits
        if not limits.max_items:
            raise RemoteProtocolError("a payload behind others that hold all that may be in a message")
        try:
            value, plain = unpack_tree(blob, limits)
        except RemoteProtocolError as exc:
            if not self._taken:
                raise
            raise RemoteProtocolError(f"{exc}, less what stands before it in the message") from None
        if self.together:
            items, hashed = charged(value, plain=plain)
            left = max(limits.max_items - items, 0), max(limits.max_pair_keys - hashed, 0)
            self._limits = replace(limits, max_items=left[0], max_pair_keys=left[1])
            self._taken = True
        return value


def check_pieces(payloads: Sequence[bytes], limits: Limits) -> None:
    """Make sure that payloads may stand in one message, each of which may stand in it alone.

    Raises:
        ValueError: They hold too much together.
    """
    pieces = Pieces(limits, [len(payload) for payload in payloads])
    if pieces.together:
        try:
            for payload in payloads:
                pieces.unpack(payload)
        except RemoteProtocolError as exc:
            raise ValueError(f"the receiver would refuse this: {exc}") from None
