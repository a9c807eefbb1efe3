"""Exports, imports and scopes: who may name what, how often it was handed over, and for how long.

Wire protocol, section 7.
"""

import weakref
from collections.abc import Awaitable, Iterable
from typing import Any, Final, Protocol

from caprpc.errors import CallRefused, LimitExceeded, RemoteProtocolError
from caprpc.ids import ExportId
from caprpc.interface import ServedContext, ServedIterator, ServedSource, Shape
from caprpc.policy import Facet, Permit
from caprpc.wire.messages import LIFETIME_CALL

FOREVER: Final = float("inf")


class Scope:
    """The length of one call: references handed over under it die when it ends, on both sides.

    What is handed over *through* such a reference belongs to the same scope.
    """

    __slots__ = ("alive", "members")

    def __init__(self) -> None:
        self.alive = True
        self.members: set[Export | Import] = set()

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
        "expires_at",
        "export_id",
        "facet",
        "key",
        "obj",
        "plans",
        "scope",
        "shape",
        "source",
        "uses_left",
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
        self.plans: dict[Permit, Any] = {}
        """How each permitted member runs; filled by the object floor."""
        self.scope: Scope | None = None
        self.expires_at = FOREVER
        self.uses_left: int | None = None
        self.key: object = None
        self.closer: Closer | None = None
        """What is to be closed when the peer has let go of it."""
        self.allowance: Any = None
        """How much more an iterator may deliver; kept by the object floor."""

    def die(self) -> None:
        """Let go of the object; calls on the number are refused from now on."""
        self.obj = self.source = None
        self.plans = {}
        self.expires_at = 0.0


Home = tuple[object, Shape]
"""An object of ours that comes home, and the shape under which it was handed over."""


class Exports:
    """Our objects that the peer may name. A number is never used twice.

    Keyed by the live object (the table holds it, so that its identity cannot be taken by another), its facet
    and its scope: handing over the same object twice gives the same export.
    """

    __slots__ = ("_by_id", "_by_key", "_next", "closing", "gone", "limit")

    def __init__(self, root: Export, limit: int) -> None:
        self._by_id: dict[int, Export] = {root.export_id: root}
        self._by_key: dict[object, Export] = {}
        self.gone: dict[int, Home] = {}
        """What has just ended: an own reference that was sent before its end is read after it; cleared by sending."""
        self.closing: list[Closer] = []
        """What the peer has let go of; closing it runs code of the application, so that the driver does it."""
        self.limit = limit
        """How many the peer may hold: as few as our policy and the peer's own limits say."""
        self._next = 1

    def __len__(self) -> int:
        return max(0, len(self._by_id) - 1)

    def get(self, export_id: int) -> Export | None:
        """Return what the peer names, or None."""
        return self._by_id.get(export_id)

    def home(self, export_id: int) -> "Home | None":
        """Return what an own reference of the peer stands for; None if it was not handed over, or ended long ago."""
        export = self._by_id.get(export_id)
        if export is None:
            return self.gone.get(export_id)
        return (export.source, export.shape) if export_id else None

    def hand_over(
        self, source: object, shape: Shape, facet: Facet, announced: Announced, scope: Scope | None
    ) -> Export:
        """Count one occurrence of ``source`` in a message that is being written, exporting it if need be.

        Raises:
            LimitExceeded: The peer holds ``limits.exports`` of our objects.
            CallRefused: The call to which the reference would belong has ended.
            Mismatch: (a ``TypeError``) Nothing declares that such an object stands for the shape.
        """
        key = (id(source), shape, announced, id(scope))
        export = self._by_key.get(key)
        if export is None or export.source is not source:
            # A dead export holds its object no more, so that another may have come to stand at the same address.
            if len(self._by_id) > self.limit:
                raise LimitExceeded(f"the peer holds {self.limit} of our objects already (limits.exports)")
            if scope is not None and not scope.alive:
                raise CallRefused("the call that this reference would belong to has ended")
            export = Export(ExportId(self._next), source, shape.adapt(source), shape, facet, announced)
            self._next += 1
            export.key = key
            if isinstance(export.obj, ServedContext | ServedIterator | ServedSource):
                export.closer = export.obj  # type: ignore[assignment]  # its subclasses, which are all there is
            self._by_id[export.export_id] = export
            self._by_key[key] = export
            if scope is not None:
                export.scope = scope
                scope.members.add(export)
        export.count += 1
        return export

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
        if export is None or export_id == 0 or count < 1 or count > export.count:
            held = 0 if export is None or export_id == 0 else export.count
            raise RemoteProtocolError(f"RELEASE of {count} counts of export {export_id}, {held} held")
        self._drop(export, count)

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
                self._close(export)
            if self._by_key.get(export.key) is export:
                del self._by_key[export.key]
            if export.scope is not None:
                export.scope.members.discard(export)

    def _close(self, export: Export) -> None:
        if export.closer is not None:
            self.closing.append(export.closer)
            export.closer = None


class Import:
    """An object of theirs that we may name."""

    __slots__ = ("alive", "announced", "count", "dropped", "export_id", "holder", "scope", "stub")

    def __init__(self, export_id: int, announced: Announced, holder: str, dropped: "list[Import]") -> None:
        self.export_id = export_id
        self.announced = announced
        self.holder = holder
        """The principal that owns the object."""
        self.dropped = dropped
        """Where the stub's finalizer queues this import."""
        self.count = 0
        self.alive = True
        self.scope: Scope | None = None
        self.stub: weakref.ref[object] | None = None
        """The local face, while somebody holds it."""

    def die(self) -> None:
        """Refuse every later use on our side."""
        self.alive = False


class Imports:
    """Their objects that we may name, with the counts we owe them.

    Finalizers append to ``dropped`` and do nothing else; ``collect`` turns that into RELEASE pairs, after
    checking that nobody has taken the reference again meanwhile.
    """

    __slots__ = ("_by_id", "_due", "_holder", "dropped", "limit")

    def __init__(self, limit: int, holder: str) -> None:
        self._by_id: dict[int, Import] = {}
        self.limit = limit
        self._holder = holder
        self._due: list[tuple[int, int]] = []
        """Counts of imports that were let go of by hand; the table has forgotten them."""
        self.dropped: list[Import] = []

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, export_id: int) -> Import | None:
        """Return the import of that number, or None."""
        return self._by_id.get(export_id)

    def receive(self, export_id: int, announced: Announced, scope: Scope | None) -> Import:
        """Count one occurrence of a reference in a message that is being decoded.

        Raises:
            RemoteProtocolError: The number was announced under another facet, or a call-lifetime reference came
                where there is no call it could belong to.
            LimitExceeded: We hold ``limits.imports`` of their objects.
        """
        imported = self._by_id.get(export_id)
        if imported is None:
            if export_id < 1:
                raise RemoteProtocolError(f"reference to export {export_id}; handed-over exports start at 1")
            if len(self._by_id) >= self.limit:
                raise LimitExceeded(f"we hold {self.limit} of the peer's objects already (limits.imports)")
            imported = Import(export_id, announced, self._holder, self.dropped)
            if announced.lifetime == LIFETIME_CALL:
                if scope is None:
                    raise RemoteProtocolError(f"call-lifetime reference {export_id} outside any call")
                if not scope.alive:
                    # Read after the end of its call: dead on arrival, and the peer has forgotten it too.
                    imported.alive = False
                    return imported
                imported.scope = scope
                scope.members.add(imported)
            self._by_id[export_id] = imported
        elif imported.announced is not announced:
            raise RemoteProtocolError(f"reference {export_id} changed its facet")
        imported.count += 1
        return imported

    def give_back(self, imports: Iterable[Import]) -> None:
        """Undo ``receive`` once for each item: the message was refused and its sender takes the counts back."""
        for imported in imports:
            imported.count -= 1
            if imported.count <= 0:
                self._forget(imported)

    def collect(self) -> list[tuple[int, int]]:
        """Return the RELEASE pairs that are due."""
        pairs, self._due = self._due, []
        while self.dropped:
            imported = self.dropped.pop()
            in_use = imported.stub is not None and imported.stub() is not None
            if in_use or not imported.count or self._by_id.get(imported.export_id) is not imported:
                continue
            pairs.append((imported.export_id, imported.count))
            self._forget(imported)
        return pairs

    def live(self) -> list[Import]:
        """Return every import."""
        return list(self._by_id.values())

    def release_now(self, imported: Import) -> None:
        """Let go of an import although a stub of it is held; the stub is dead from now on."""
        if self._by_id.get(imported.export_id) is imported:
            self._due.append((imported.export_id, imported.count))
            self._forget(imported)
            self.dropped.append(imported)

    def end_scope(self, scope: Scope) -> None:
        """Forget everything that was lent to us under ``scope``; no RELEASE is sent for it."""
        scope.end()
        for member in list(scope.members):
            if isinstance(member, Import):
                self._forget(member)

    def revoke(self, export_ids: Iterable[int]) -> None:
        """Mark what the peer has revoked; the counts are still owed."""
        for export_id in export_ids:
            imported = self._by_id.get(export_id)
            if imported is not None:
                imported.alive = False

    def clear(self) -> None:
        """The connection has ended: every import is dead."""
        for imported in self._by_id.values():
            imported.alive = False
        self._by_id.clear()
        self.dropped.clear()

    def _forget(self, imported: Import) -> None:
        imported.count = 0
        imported.alive = False
        self._by_id.pop(imported.export_id, None)
        if imported.scope is not None:
            imported.scope.members.discard(imported)
