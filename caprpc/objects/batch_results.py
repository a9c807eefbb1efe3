"""Reading the answer to a batch: as many results as calls, and failures that are of them."""

from typing import Any

from caprpc.errors import RemoteProtocolError
from caprpc.limits import Limits
from caprpc.wire import codec
from caprpc.wire.messages import BatchReturn


def results_of(outcome: BatchReturn, count: int, limits: Limits) -> list[Any]:
    """Return the raw results of a batch.

    Raises:
        RemoteProtocolError: There are not as many as calls, or the failures are not of calls, each once.
    """
    values = codec.unpack(outcome.payload, limits)
    if type(values) is not list or len(values) != count:
        raise RemoteProtocolError(f"a batch of {count} calls was answered with another number of results")
    positions = [failure.position for failure in outcome.failures]
    if len(set(positions)) != len(positions) or max(positions, default=0) >= count:
        raise RemoteProtocolError(f"failures of a batch of {count} calls that are not of its calls, each at most once")
    if any(values[position] is not None for position in positions):
        raise RemoteProtocolError("a call of a batch that has failed and has a result")
    return values
