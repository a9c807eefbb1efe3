"""What handling a message costs, so that a turn of a connection can end before it has taken everything that came."""

import sys
from typing import Final

from caprpc.wire.messages import AnyMessage, Batch, Call

UNBOUNDED: Final = sys.maxsize
"""Everything that has come."""

_PLAIN_BYTES: Final = 64
"""No more than three references stand in so little."""
_DEAR_BYTES: Final = 64 * 1024
"""So much ends a turn, whatever it is."""
_EXTENSION_HEADS: Final = bytes(range(0xC7, 0xCA)) + bytes(range(0xD4, 0xD9))
_OTHER_BYTES: Final = bytes(set(range(256)) - set(_EXTENSION_HEADS))


def cost_of(message: AnyMessage, size: int) -> int:
    """Return the cost of a message whose frame has so many bytes: 1 for a small one, about 10 µs."""
    cost = 1 + (size >> 10)
    if type(message) is Call:
        payload = message.payload
        if _PLAIN_BYTES < len(payload) < _DEAR_BYTES:
            # A reference becomes an entry of a table, and other extensions are decoded one by one: about 3 µs each.
            # Other values that look like them make a turn shorter, and nothing else.
            cost += len(payload.translate(None, _OTHER_BYTES)) >> 2
    elif type(message) is Batch:
        # Each call of it is checked and recorded.
        cost += sum(run.count for run in message.runs) >> 1
    return cost
