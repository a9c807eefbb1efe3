"""Revocation: ending a right or an object's references, and telling every connection that has handed something out."""

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol
from weakref import WeakSet

from caprpc.policy import Right
from caprpc.session import Export, Exports


class Revoker(Protocol):
    """A connection, as far as revoking goes; the drivers implement it."""

    @property
    def principal(self) -> str:
        """Who the peer is."""

    def revoke(self, chosen: Callable[[Exports], Iterable[Export]], *, cut: bool) -> None:
        """End the references of ours that are chosen; ``cut`` answers running calls on them, too.

        Any thread may call it, without a connection's lock.
        """


class Open:
    """The connections of this process that are open, held weakly: what an object of ours went out over."""

    __slots__ = ("_lock", "_revokers")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._revokers: WeakSet[Revoker] = WeakSet()

    def add(self, revoker: Revoker) -> None:
        """Note a connection that has opened."""
        with self._lock:
            self._revokers.add(revoker)

    def all(self) -> list[Revoker]:
        """Return those that still exist."""
        with self._lock:
            return list(self._revokers)


OPEN = Open()
"""Like the counter of forks (ADR 0014) a fact about the process: an object does not know over which connections it
was handed out, and asking every place that makes connections would miss one."""


def end(right: Right, *, cut: bool) -> None:
    """End a right and everything derived from it, wherever it was handed out."""
    ended: dict[Revoker, list[Right]] = {}
    for one in right.revoke():
        for watcher in one.watchers():
            ended.setdefault(watcher, []).append(one)
    for watcher, rights in ended.items():
        watcher.revoke(partial(_standing_under, rights), cut=cut)


def end_object(obj: object, *, to: str | None, cut: bool) -> None:
    """End every reference to an object of ours, of all peers or of one principal; what was derived of it ends too."""
    for revoker in OPEN.all():
        if to is None or revoker.principal == to:
            revoker.revoke(partial(_of_object, obj), cut=cut)


def _standing_under(rights: list[Right], exports: Exports) -> list[Export]:
    return exports.standing.under(rights)


def _of_object(obj: object, exports: Exports) -> list[Export]:
    return [export for export in exports.live() if export.source is obj]
