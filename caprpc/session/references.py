"""Exports and scopes: what of ours the peer may name, how often it was handed over, and for how long.

Wire protocol, section 7.
"""

from collections.abc import Awaitable, Iterable
from math import inf
from typing import Any, Final, Protocol

from caprpc.errors import CallRefused, LimitExceeded, RemoteProtocolError
from caprpc.ids import ExportId
from caprpc.interface import ServedContext, ServedIterator, ServedSource, Shape
from caprpc.policy import OVER, REVOKED, Facet, Permit, Pool, Right
from caprpc.session.standing import Standing

FOREVER: Final = inf

SWEEP_S: Final = 1.0
"""How often we look for exports whose right has ended without anything being asked of them."""

ENDED: Final = frozenset({"revoked", "expired"})
"""Reasons of a right that will never be good again."""


class Member(Protocol):
    """What can belong to the length of a call: an export or an import."""

    def die(self) -> None:
        """Let go of it; what is asked of it is refused from now on."""


class Scope:
    """The length of one call: references handed over under it die when it ends, on both sides.

    What is handed over *through* such a reference belongs to the same scope.
    """

    __slots__ = ("alive", "members", "uses")

    def __init__(self) -> None:
        self.alive = True
        self.uses = 0
        """Operations of the peer on what is in it, all together; bounded by ``limits.callbacks``."""
        self.members: set[Member] = set()

    def end(self) -> None:
        """Let go of everything in the scope; the numbers stay in the tables until ``clear``."""
        self.alive = False
        for member in self.members:
            member.die()


class Announced:
    """A facet as one side has announced it to the other: number, interface, operations, lifetime."""

    __slots__ = ("facet_id", "interface", "lifetime", "operations", "rights")

    def __init__(self, facet_id: int, interface: str, operations: frozenset[tuple[int, str]], lifetime: int) -> None:
        self.facet_id = facet_id
        self.interface = interface
        self.operations = operations
        self.lifetime = lifetime
        self.rights: dict[tuple[int, str], object] = {}
        """What our own policy accepted when it let us do these; filled by the object floor as they are asked for."""


class Closer(Protocol):
    """What must be closed once the peer can name it no more: an iterator, or a context that the peer is in."""

    def abandon(self, error: BaseException, /) -> Awaitable[object] | None:
        """Close it with ``error``; it runs code of the application. What it returns is to be awaited."""


class Export:
    """An object of ours that the peer may name, through one facet."""

    __slots__ = (
        "allowance",
        "announced",
        "closer",
        "count",
        "export_id",
        "facet",
        "kept",
        "key",
        "obj",
        "plans",
        "right",
        "scope",
        "shape",
        "source",
    )

    def __init__(
        self,
        export_id: ExportId,
        source: object,
        obj: object,
        shape: Shape,
        facet: Facet,
        announced: Announced | None,
    ) -> None:
        self.export_id = export_id
        self.source = source
        """What was handed over; ``obj`` is that, or an adapter around it."""
        self.obj = obj
        self.shape = shape
        self.facet: Facet = facet
        self.announced = announced
        self.count = 0
        self.kept = 0
        """How many of ``count`` are not the peer's, but those of answers that are kept for it."""
        self.plans: dict[Permit, Any] = {}
        """How each permitted member runs; filled by the object floor."""
        self.scope: Scope | None = None
        self.right: Right | None = None
        """What it was derived under; None for an ordinary reference. Asked before each operation."""
        self.key: object = None
        self.closer: Closer | None = None
        """What is to be closed when the peer has let go of it."""
        self.allowance: Any = None
        """How much more an iterator may deliver; kept by the object floor."""

    @property
    def was_revoked(self) -> bool:
        """Whether its right was revoked: asked again before a method begins, for others may have run since the call."""
        right = self.right
        return right is not None and not right.alive

    def die(self) -> None:
        """Let go of the object; calls on the number are refused from now on."""
        self.obj = self.source = None
        self.plans = {}
        self.right = OVER

    def revoke(self) -> None:
        """Let go of the object, whose reference was revoked."""
        self.die()
        self.right = REVOKED


Home = tuple[object, Shape]
"""An object of ours that comes home, and the shape under which it was handed over."""


class Exports:
    """Our objects that the peer may name. A number is never used twice.

    Keyed by the live object (the table holds it, so that its identity cannot be taken by another), its facet
    and its scope: handing over the same object twice gives the same export.
    """

    __slots__ = ("_by_id", "_by_key", "_next", "_sweep_at", "closing", "gone", "limit", "pool", "standing")

    def __init__(self, root: Export, limit: int) -> None:
        self._by_id: dict[int, Export] = {root.export_id: root}
        self._by_key: dict[object, Export] = {}
        self.gone: dict[int, Home] = {}
        """What has just ended: an own reference that was sent before its end is read after it; cleared by sending."""
        self.closing: list[Closer] = []
        """What the peer has let go of; closing it runs code of the application, so that the driver does it."""
        self.limit = limit
        """How many the peer may hold: as few as our policy and the peer's own limits say."""
        self.pool: Pool | None = None
        self.standing = Standing()
        """Those that are derived."""
        self._next = 1
        self._sweep_at = inf

    def __len__(self) -> int:
        return max(0, len(self._by_id) - 1)

    def get(self, export_id: int) -> Export | None:
        """Return what the peer names, or None."""
        return self._by_id.get(export_id)

    def home(self, export_id: int, now: float) -> "Home | None":
        """Return what an own reference of the peer stands for; None if it was not handed over, or ended long ago.

        The object is None if the reference has been revoked or has expired.
        """
        export = self._by_id.get(export_id)
        if export is None:
            return self.gone.get(export_id)
        if export.right is not None and export.right.refusal(now) in ENDED:
            # Its holder has lost it, although nothing has been asked of it since, and no sweep has come by.
            return None, export.shape
        return (export.source, export.shape) if export_id else None

    def hand_over(
        self,
        source: object,
        shape: Shape,
        facet: Facet,
        announced: Announced,
        scope: Scope | None,
    ) -> Export:
        """Count one occurrence of ``source`` in a message that is being written, exporting it if need be.

        Raises:
            LimitExceeded: The peer holds ``limits.exports`` of our objects.
            CallRefused: The call to which the reference would belong has ended.
            Mismatch: (a ``TypeError``) Nothing declares that such an object stands for the shape.
        """
        key = (id(source), shape, announced, id(scope))
        export = self.again(key, source)
        if export is None:
            self.check_room(scope)
            export = self.add(key, source, shape.adapt(source), shape, facet, announced)
            if scope is not None:
                export.scope = scope
                scope.members.add(export)
        export.count += 1
        return export

    def belong(self, pool: Pool | None) -> None:
        """Be counted among the exports of a principal."""
        self.pool = pool

    def again(self, key: object, source: object) -> Export | None:
        """Return the export that was made for ``source`` under ``key``, if it lives."""
        export = self._by_key.get(key)
        # A dead export holds its object no more, so that another may have come to stand at the same address.
        return export if export is not None and export.source is source else None

    def check_room(self, scope: Scope | None) -> None:
        """Make sure that one more may be exported.

        Raises:
            LimitExceeded: The peer holds ``limits.exports`` of our objects.
            CallRefused: The call to which the reference would belong has ended.
        """
        if len(self._by_id) > self.limit:
            raise LimitExceeded(f"the peer holds {self.limit} of our objects already (limits.exports)")
        if self.pool is not None and not self.pool.has_room(self):
            raise LimitExceeded(f"no more of our objects: {self.pool.text()}")
        if scope is not None and not scope.alive:
            raise CallRefused("the call that this reference would belong to has ended")

    def add(self, key: object, source: object, obj: object, shape: Shape, facet: Facet, announced: Announced) -> Export:
        """Export an object under the next number; nothing is counted yet."""
        export = Export(ExportId(self._next), source, obj, shape, facet, announced)
        self._next += 1
        export.key = key
        if isinstance(export.obj, ServedContext | ServedIterator | ServedSource):
            export.closer = export.obj  # type: ignore[assignment]  # its subclasses, which are all there is
        self._by_id[export.export_id] = export
        self._by_key[key] = export
        return export

    def stand_under(self, export: Export, right: Right, scope: Scope | None, now: float) -> None:
        """Have a new export live no longer than a right and a call."""
        export.right = right
        self.standing.add(export, right)
        if scope is not None:
            export.scope = scope
            scope.members.add(export)
        self._sweep_at = min(self._sweep_at, now + SWEEP_S)

    def revoke(self, export: Export) -> None:
        """Refuse what is asked of an export from now on; its number stays until its holder has let go of it."""
        if export.right is not None:
            self.standing.discard(export)
        export.revoke()
        self._close(export)

    def next_sweep(self) -> float:
        """Return when to look for ended rights; infinity if no export has any."""
        return self._sweep_at

    def sweep(self, now: float) -> list[Export]:
        """Return exports whose right has ended, once each: their holder has not been told."""
        derived = self.standing.all()
        self._sweep_at = now + SWEEP_S if derived else inf
        return [export for export in derived if export.right is not None and export.right.refusal(now) in ENDED]

    def take_back(self, exports: Iterable[Export]) -> None:
        """Undo ``hand_over`` once for each item: the message was not sent, or its arguments were not taken."""
        for export in exports:
            self._drop(export, 1)

    def release(self, export_id: int, count: int) -> None:
        """Apply one pair of a RELEASE.

        Raises:
            RemoteProtocolError: More was released than is held, or nothing, or the root.
        """
        export = self._by_id.get(export_id)
        if export is None or export_id == 0 or count < 1 or count > export.count - export.kept:
            held = 0 if export is None or export_id == 0 else export.count - export.kept
            raise RemoteProtocolError(f"RELEASE of {count} counts of export {export_id}, {held} held")
        self._drop(export, count)

    def pin(self, export: Export) -> None:
        """Hold an export although the peer may have released it: an answer that is kept names it."""
        export.kept += 1
        export.count += 1

    def unpin(self, export: Export) -> None:
        """Undo ``pin`` once."""
        export.kept -= 1
        self._drop(export, 1)

    def end_scope(self, scope: Scope) -> None:
        """Forget everything that was handed over under ``scope``: the holder has forgotten it too."""
        homes = [
            (member.export_id, member.source, member.shape)
            for member in scope.members
            if isinstance(member, Export) and member.source is not None
        ]
        scope.end()
        for member in list(scope.members):
            if isinstance(member, Export):
                self._drop(member, member.count)
        for export_id, source, shape in homes:
            self.gone[export_id] = (source, shape)

    def clear(self) -> list[Export]:
        """Let go of everything; return what was exported, for close handlers."""
        exports = self.live()
        for export in exports:
            self._close(export)
        self._by_id.clear()
        self._by_key.clear()
        self.standing.clear()
        self.gone.clear()
        return exports

    def live(self) -> list[Export]:
        """Return every export but the root."""
        return [export for export in self._by_id.values() if export.export_id != 0]

    def _drop(self, export: Export, count: int) -> None:
        export.count -= count
        if export.count <= 0:
            if self._by_id.pop(export.export_id, None) is not None:
                self.gone[export.export_id] = (export.source, export.shape)
                if export.closer is not None:
                    self._close(export)
                if export.right is not None:
                    self.standing.discard(export)
            if self._by_key.get(export.key) is export:
                del self._by_key[export.key]
            if export.scope is not None:
                export.scope.members.discard(export)

    def _close(self, export: Export) -> None:
        if export.closer is not None:
            self.closing.append(export.closer)
            export.closer = None
