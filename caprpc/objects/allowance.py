"""How much a peer may get: ``max_items`` and ``max_bytes`` of results, and of what an iterator delivers in its life."""

from typing import Any, Final

from caprpc.ids import OP_NEXT
from caprpc.interface import ArgumentError
from caprpc.policy import Permit
from caprpc.session import Export

_CONTAINERS: Final = frozenset({list, tuple, set, frozenset, dict})

_WORST_SPREAD: Final = 8
"""An item takes at most this many times as much on the wire as what an iterator takes it to weigh (short texts)."""

Bound = tuple[int | None, int | None, str]
"""Most items, most bytes, and the rule that says so."""


class Exceeded(Exception):
    """A result is more than the policy lets out.

    Attributes:
        reason: ``max_items`` or ``max_bytes``.
        rule: The rule that bounds it.
    """

    def __init__(self, reason: str, rule: str) -> None:
        self.reason = reason
        self.rule = rule
        super().__init__(reason)


class Allowance:
    """What one exported iterator has delivered, and the bounds on it: of the member that returned it, and its own."""

    __slots__ = ("_bounds", "_bytes", "_items")

    def __init__(self, bound: Bound) -> None:
        self._items = 0
        self._bytes = 0
        self._bounds = [bound]

    def tighten(self, permit: Permit) -> None:
        """Take in the bounds of the permit under which it is pulled; a reload may have made them smaller."""
        bound = _bound_of(permit)
        if bound not in self._bounds:
            self._bounds.append(bound)

    def caps(self, max_items: int, max_bytes: int) -> list[int]:
        """Return how much to pull: what the peer asks for, at most what is left; one item shows whether it ends."""
        for items, size, _ in self._bounds:
            if items is not None:
                max_items = min(max_items, items - self._items)
            if size is not None:
                max_bytes = min(max_bytes, (size - self._bytes) // _WORST_SPREAD)
        return [max(max_items, 1), max(max_bytes, 1)]

    def count(self, items: int, size: int) -> None:
        """Count a chunk that is about to be delivered.

        Raises:
            Exceeded: It may not be.
        """
        self._items += items
        if items:
            self._bytes += size
        for most_items, most_bytes, rule in self._bounds:
            if most_items is not None and self._items > most_items:
                raise Exceeded("max_items", rule)
            if most_bytes is not None and self._bytes > most_bytes:
                raise Exceeded("max_bytes", rule)


def is_bounded(permit: Permit) -> bool:
    """Whether results under a permit must be checked; chunks of iterators always, for what returned them may say so."""
    return permit.max_items is not None or permit.max_bytes is not None or permit.operation == OP_NEXT


def bound_iterator(export: Export, permit: Permit) -> None:
    """Have an iterator that a member returns deliver no more than what the member may return."""
    if export.closer is export.obj and export.allowance is None and is_bounded(permit):
        export.allowance = Allowance(_bound_of(permit))


def pull_caps(export: Export, permit: Permit, args: list[Any]) -> list[Any]:
    """Return the arguments with which to pull the next chunk of an iterator.

    Raises:
        ArgumentError: The peer asks for less than one item or one byte.
    """
    for name, asked in zip(("max_items", "max_bytes"), args, strict=True):
        if asked < 1:
            raise ArgumentError(name, "an integer of at least 1")
    if export.allowance is None:
        if permit.max_items is None and permit.max_bytes is None:
            return args
        export.allowance = Allowance(_bound_of(permit))
    allowance: Allowance = export.allowance
    allowance.tighten(permit)
    return allowance.caps(*args)


def check_chunk(export: Export, value: Any, size: int) -> None:
    """Count the chunk ``(items, done)`` that is about to be delivered in ``size`` bytes.

    Raises:
        Exceeded: The iterator has delivered all that it may.
    """
    allowance: Allowance | None = export.allowance
    if allowance is not None:
        allowance.count(len(value[0]), size)


def check_result(permit: Permit, raw: Any, size: int) -> None:
    """Check an encoded result; a list, tuple, set or dict has as many items as entries, everything else one.

    Raises:
        Exceeded: It is more than the policy lets out.
    """
    if permit.max_items is not None and type(raw) in _CONTAINERS and len(raw) > permit.max_items:
        raise Exceeded("max_items", permit.rule)
    if permit.max_bytes is not None and size > permit.max_bytes:
        raise Exceeded("max_bytes", permit.rule)


def _bound_of(permit: Permit) -> Bound:
    return permit.max_items, permit.max_bytes, permit.rule
