"""What handling a message costs, so that a turn of a connection can end before it has taken everything that came."""

import sys
from typing import Final

from caprpc.wire.messages import AnyMessage, Batch

UNBOUNDED: Final = sys.maxsize
"""Everything that has come."""


def cost_of(message: AnyMessage, size: int) -> int:
    """Return the cost of a message whose frame has so many bytes: 1 for a small one, about 10 µs."""
    cost = 1 + (size >> 10)
    if type(message) is Batch:
        # Each call of it is checked and recorded.
        cost += sum(run.count for run in message.runs) >> 1
    return cost
