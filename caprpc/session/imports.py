"""Imports: what of theirs we may name, with the counts that we owe.

Wire protocol, section 7.
"""

from collections.abc import Iterable
from typing import Any
from weakref import WeakSet, ref

from caprpc.errors import LimitExceeded, RemoteProtocolError
from caprpc.policy import Pool, Right
from caprpc.session.references import Announced, Scope
from caprpc.wire.messages import LIFETIME_CALL


class Import:
    """An object of theirs that we may name; or how one came in through a reference that we had narrowed."""

    __slots__ = (
        "__weakref__",
        "_below",
        "_origin",
        "alive",
        "announced",
        "chain",
        "count",
        "derived",
        "dropped",
        "export_id",
        "holder",
        "revoked",
        "right",
        "scope",
        "stubs",
    )

    def __init__(self, export_id: int, announced: Announced, holder: str, dropped: "list[Import]") -> None:
        self.export_id = export_id
        self.announced = announced
        self.holder = holder
        """The principal that owns the object."""
        self.dropped = dropped
        """Where the stub's finalizer queues this import."""
        self.count = 0
        self.alive = True
        self.revoked = False
        """Whether the owner has ended it, and not a call, a release or the connection."""
        self.chain: tuple[str, ...] = ()
        """To whom its owner knows that we pass it on; what is obtained through it is known likewise."""
        self.derived = False
        """Whether we have derived it, so that it is ours to end."""
        self.scope: Scope | None = None
        self.stubs: list[ref[Any]] = []
        """The local faces that somebody holds: one for each flavor, and for each right that it came in under."""
        self.right: Right | None = None
        """Under which right of ours the peer passed it in; None for what came in through an ordinary reference."""
        self._origin: Import | None = None
        self._below: WeakSet[Import | Right] | None = None
        """Its views, and the rights under which we have handed it to third parties: they end with it."""

    @property
    def origin(self) -> "Import":
        """What it is a view of; itself if it is none. It does not hold itself, so that it dies with its last holder."""
        return self._origin or self

    def under(self, right: Right | None) -> "Import":
        """Return it as it came in under a right of ours: the same view each time, as long as somebody holds it."""
        if right is None:
            return self
        if self._below is None:
            self._below = WeakSet()
        for view in self._below:
            if isinstance(view, Import) and view.right is right:
                return view
        view = Import(self.export_id, self.announced, self.holder, self.dropped)
        view.alive, view.revoked, view.scope = self.alive, self.revoked, self.scope
        view._origin, view.right, view.chain = self, right, self.chain
        self._below.add(view)
        return view

    def pass_on(self, right: Right) -> None:
        """Note the right under which a third party gets it: it ends with this import."""
        if self._below is None:
            self._below = WeakSet()
        self._below.add(right)

    def die(self, *, revoked: bool = False) -> None:
        """Refuse every later use on our side, and by those that we passed it on to."""
        self.alive = False
        self.revoked = self.revoked or revoked
        if self._below is None:
            return
        for below in list(self._below):
            if isinstance(below, Import):
                below.die(revoked=revoked)
            else:
                below.revoke()


class Imports:
    """Their objects that we may name, with the counts we owe them.

    Finalizers append to ``dropped`` and do nothing else; ``collect`` turns that into RELEASE pairs, after
    checking that nobody has taken the reference again meanwhile.
    """

    __slots__ = ("_by_id", "_due", "_holder", "_over", "_revoked", "dropped", "limit", "pool", "promised")

    def __init__(self, limit: int, holder: str) -> None:
        self._by_id: dict[int, Import] = {}
        self.limit = limit
        self.pool: Pool | None = None
        self._holder = holder
        self._over = False
        self._due: list[tuple[int, int]] = []
        """Counts of imports that were let go of by hand; the table has forgotten them."""
        self._revoked: dict[int, None] = {}
        """The newest numbers that the peer has revoked, ``limit`` at least and twice as many at most: an answer that
        names one may not have been read yet."""
        self.dropped: list[Import] = []
        self.promised: list[int] = []
        """Questions whose kept answers nobody names any more; FINISH is due."""

    def __len__(self) -> int:
        return len(self._by_id)

    def belong(self, pool: Pool | None) -> None:
        """Be counted among the imports of a principal."""
        self.pool = pool

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
            if self.pool is not None and not self.pool.has_room(self):
                raise LimitExceeded(f"no more of the peer's objects: {self.pool.text()}")
            imported = Import(export_id, announced, self._holder, self.dropped)
            if self._over:
                # It came before the end of the connection, and is read after it: nobody is owed anything for it.
                imported.alive = False
                return imported
            if announced.lifetime == LIFETIME_CALL:
                if scope is None:
                    raise RemoteProtocolError(f"call-lifetime reference {export_id} outside any call")
                if not scope.alive:
                    # Read after the end of its call: dead on arrival, and the peer has forgotten it too.
                    imported.alive = False
                    return imported
                imported.scope = scope
                scope.members.add(imported)
            if export_id in self._revoked:
                imported.die(revoked=True)
            self._by_id[export_id] = imported
        elif imported.announced is not announced:
            raise RemoteProtocolError(f"reference {export_id} changed its facet")
        imported.count += 1
        return imported

    def receive_all(
        self, export_ids: list[int], announced: Announced, scope: Scope | None, received: list[Import]
    ) -> None:
        """Do what ``receive`` does for each of them, and note each import; what ordinary ones need is done for all.

        Raises:
            RemoteProtocolError, LimitExceeded: As for ``receive``; what was counted before is in ``received``.
        """
        by_id, holder, dropped = self._by_id, self._holder, self.dropped
        room = 0
        if not self._over and not self._revoked and announced.lifetime != LIFETIME_CALL:
            room = self.limit - len(by_id)
            if self.pool is not None and not self.pool.has_room(self, len(export_ids)):
                # Some of them may be held already: each is asked for.
                room = 0
        for export_id in export_ids:
            imported = by_id.get(export_id)
            if imported is None and room > 0 and export_id >= 1:
                room -= 1
                imported = by_id[export_id] = Import(export_id, announced, holder, dropped)
                imported.count = 1
            elif imported is not None and imported.announced is announced:
                imported.count += 1
            else:
                imported = self.receive(export_id, announced, scope)
            received.append(imported)

    def give_back(self, imports: Iterable[Import]) -> None:
        """Undo ``receive`` once for each item: the message was refused and its sender takes the counts back."""
        for imported in imports:
            imported.count -= 1
            if imported.count <= 0:
                self._forget(imported)

    def collect(self) -> list[tuple[int, int]]:
        """Return the RELEASE pairs that are due."""
        pairs, self._due = self._due, []
        dropped, by_id = self.dropped, self._by_id
        while dropped:
            imported = dropped.pop()
            number = imported.export_id
            if number < 0:
                self.promised.append(~number)
                continue
            for stub in imported.stubs:
                if stub() is not None:
                    break
            else:
                if imported.count and by_id.get(number) is imported:
                    pairs.append((number, imported.count))
                    self._forget(imported)
        return pairs

    def live(self) -> list[Import]:
        """Return every import."""
        return list(self._by_id.values())

    def release_now(self, imported: Import) -> None:
        """Let go of an import although a stub of it is held; the stub is dead from now on."""
        imported = imported.origin
        if self._by_id.get(imported.export_id) is imported:
            if imported.scope is None:
                # What ends with its call is not released: the call may end before the RELEASE is sent.
                self._due.append((imported.export_id, imported.count))
            self._forget(imported)
            self.dropped.append(imported)

    def end_scope(self, scope: Scope) -> None:
        """Forget everything that was lent to us under ``scope``; no RELEASE is sent for it."""
        scope.end()
        for member in list(scope.members):
            if isinstance(member, Import):
                self._forget(member)

    def revoke(self, export_ids: Iterable[int]) -> bool:
        """Take note of what the peer has revoked, and give back its counts, so that both sides can forget it.

        Returns whether any of it was new: nothing is revoked twice.
        """
        revoked, news = self._revoked, False
        for export_id in export_ids:
            if export_id not in revoked:
                revoked[export_id], news = None, True
            imported = self._by_id.get(export_id)
            if imported is not None:
                imported.die(revoked=True)
                self.release_now(imported)
        if len(revoked) > 2 * self.limit:
            # As many at once as stay: a peer that revokes one number after the other must not have all of them copied
            # each time, and deleting from the front of a dict passes over what was deleted before.
            self._revoked = dict.fromkeys(list(revoked)[len(revoked) - self.limit :])
        return news

    def clear(self) -> None:
        """The connection has ended: every import is dead, and so is what is read from now on."""
        self._over = True
        for imported in self._by_id.values():
            imported.count = 0
            imported.die()
        self._by_id.clear()
        self._revoked.clear()
        self.dropped.clear()

    def _forget(self, imported: Import) -> None:
        imported.count = 0
        imported.die()
        self._by_id.pop(imported.export_id, None)
        if imported.scope is not None:
            imported.scope.members.discard(imported)
