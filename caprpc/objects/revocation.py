"""Revocation: ending a right or an object's references, and telling every connection that has handed something out."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol
from weakref import ref

from caprpc.objects.interrupted import amid_ours
from caprpc.policy import Right
from caprpc.session import Export, Exports

Chosen = Callable[[Exports], Iterable[Export]]
"""Says which references of ours end, of all that a peer holds."""


class Revoker(Protocol):
    """A connection, as far as revoking goes; the drivers implement it."""

    @property
    def principal(self) -> str:
        """Who the peer is."""

    def revoke(self, chosen: Chosen, *, cut: bool, aside: bool) -> None:
        """End the references of ours that are chosen; ``cut`` answers running calls on them, too.

        Any thread may call it, without a connection's lock; one that may hold it all the same says ``aside``: then it
        is done soon, and not here.
        """


class Open:
    """The connections of this process that are open, held weakly: what an object of ours went out over.

    Without a lock: a finalizer that revokes may run in the midst of either method.
    """

    __slots__ = ("_revokers",)

    def __init__(self) -> None:
        self._revokers: set[ref[Revoker]] = set()

    def add(self, revoker: Revoker) -> None:
        """Note a connection that has opened."""
        self._revokers.add(ref(revoker, self._revokers.discard))

    def all(self) -> list[Revoker]:
        """Return those that still exist."""
        return [revoker for known in list(self._revokers) if (revoker := known()) is not None]


OPEN = Open()
"""Like the counter of forks (ADR 0014) a fact about the process: an object does not know over which connections it
was handed out, and asking every place that makes connections would miss one."""


def end(right: Right, *, cut: bool) -> None:
    """End a right and everything derived from it, wherever it was handed out.

    Nothing is permitted under it from now on. Its holders are told now, or, if a finalizer or a signal handler has
    interrupted code of ours, once that has gone on.
    """
    ended: dict[Revoker, list[Right]] = {}
    for one in right.revoke():
        for watcher in one.watchers():
            ended.setdefault(watcher, []).append(one)
    if ended:
        aside = amid_ours()
        for watcher, rights in ended.items():
            watcher.revoke(partial(_standing_under, rights), cut=cut, aside=aside)


def end_object(obj: object, *, to: str | None, cut: bool) -> None:
    """End every reference to an object of ours, of all peers or of one principal; what was derived of it ends too.

    Now, or, if a finalizer or a signal handler has interrupted code of ours, once that has gone on.
    """
    aside = amid_ours()
    for revoker in OPEN.all():
        if to is None or revoker.principal == to:
            revoker.revoke(partial(_of_object, obj), cut=cut, aside=aside)


def _standing_under(rights: list[Right], exports: Exports) -> list[Export]:
    return exports.standing.under(rights)


def _of_object(obj: object, exports: Exports) -> list[Export]:
    return [export for export in exports.live() if export.source is obj]
