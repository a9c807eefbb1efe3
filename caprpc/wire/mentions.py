"""Which references a payload holds, for counting them: the values around them are not looked at."""

from collections.abc import Iterator
from typing import Any, Final

from caprpc.limits import Limits
from caprpc.wire.codec import unpack
from caprpc.wire.values import OwnReference, RemoteReference

_CONTAINERS: Final = frozenset({list, tuple, set, frozenset})


def references_in(payload: bytes, limits: Limits) -> Iterator[RemoteReference | OwnReference]:
    """Yield every occurrence of a reference in a payload.

    Raises:
        RemoteProtocolError: The payload is malformed, not canonical, or over a limit.
    """
    return _references(unpack(payload, limits))


def _references(raw: Any) -> Iterator[RemoteReference | OwnReference]:
    """Walk a decoded value; its depth is bounded by the decoder."""
    kind = type(raw)
    if kind is RemoteReference or kind is OwnReference:
        yield raw
    elif kind is dict:
        for key, value in raw.items():
            yield from _references(key)
            yield from _references(value)
    elif kind in _CONTAINERS:
        for item in raw:
            yield from _references(item)
