"""Encoding what a pull gave: what does not fit into a message goes back to the front of the iterator."""

from collections.abc import Callable
from typing import Any

from caprpc.errors import IteratorBusy, LimitExceeded
from caprpc.interface import ServedIterator
from caprpc.objects.transfer import ResultWriter
from caprpc.session import Session

Chunk = tuple[list[Any], bool]
"""Items, and whether they are the last."""


def encode_chunk(
    encode: Callable[[Any], bytes], session: Session, served: Any, chunk: Chunk, writer: ResultWriter
) -> tuple[Chunk, bytes]:
    """Return as much of a chunk as fits into one message, and its payload; the rest is delivered next time.

    What items weigh is known only once they are encoded: a few that hold much, or many that hold references.

    Args:
        encode: Packs a chunk; what is wrong with its size it says by ``ValueError`` or ``LimitExceeded``.
        session: Knows how large a message may be.
        served: The iterator that gave the chunk.
        chunk: What it gave.
        writer: Writes its references, and takes back those of what was not sent.

    Raises:
        ValueError, LimitExceeded: Not even one item fits.
        IteratorBusy: Another call is pulling, so that nothing can be given back.
        TypeError: An item is not of the declared type.
    """
    items, done = chunk
    while True:
        try:
            payload = encode((items, done))
        except (ValueError, LimitExceeded):
            if len(items) < 2:
                raise
        else:
            if len(payload) <= session.largest_payload or len(items) < 2:
                break
        writer.begin_again()
        half = len(items) // 2
        try:
            served.put_back(items[half:])
        except IteratorBusy:
            served.spoil()
            raise
        items, done = items[:half], False
    served.learn(len(items), len(payload))
    return (items, done), payload


def keep_for_later(served: object, chunk: object) -> None:
    """Give a chunk back that was pulled for a call which is over: the iterator goes on where it was."""
    if isinstance(served, ServedIterator) and type(chunk) is tuple:
        try:
            served.put_back(chunk[0])
        except IteratorBusy:
            # The next call is pulling already: what it delivers would come before what came first.
            served.spoil()
