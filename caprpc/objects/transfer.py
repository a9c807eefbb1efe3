"""How references cross: our objects going out under a facet, theirs coming in as stubs, ours coming home.

Every occurrence is counted; a message that is not sent, or not taken, is undone as a whole.
"""

from collections.abc import Callable
from math import inf
from typing import Any
from weakref import ref

from caprpc.errors import CallRefused, RemoteProtocolError, printable
from caprpc.ids import OP_NEXT
from caprpc.interface import Mismatch, Shape, Undeclared
from caprpc.objects.allowance import bound_iterator
from caprpc.objects.forwarding import Forwarder
from caprpc.objects.handles import Narrowed
from caprpc.objects.iteration import AsyncRemoteIterator, RemoteIterator
from caprpc.objects.promises import Promised
from caprpc.objects.stubs import Caller, Flavor, Stub, dead_reference, make_stub_class
from caprpc.policy import DerivedFacet, Facet, Lend, Permit, Right, base_of, grant_word, may_pass_on, sources
from caprpc.session import Export, Home, Import, Scope, Session
from caprpc.wire.messages import LIFETIME_CALL, LIFETIME_CONNECTION
from caprpc.wire.scan import TooManyReferences
from caprpc.wire.values import OwnReference, RemoteReference


class StubMaker:
    """Makes the stubs of one connection and keeps identity: the same import is the same stub."""

    __slots__ = ("_calls",)

    def __init__(self, caller: Caller) -> None:
        self._calls: dict[Flavor, Callable[..., Any]] = {
            Flavor.BLOCKING: caller.call,
            Flavor.ASYNC: caller.call_async,
        }

    def stub(self, imported: Import, shape: Shape, flavor: Flavor) -> Stub:
        """Return the stub of an import, the same one while somebody holds it."""
        call = self._calls[flavor]
        stubs = imported.origin.stubs
        for held in stubs:
            known = held()
            if known is None:
                stubs = imported.origin.stubs = [live for live in stubs if live() is not None]
            elif known._caprpc_import is imported and known._caprpc_call == call and known._caprpc_shape is shape:
                return known  # type: ignore[no-any-return]  # only stubs are in the list
        stub_class = shape.faces.get(flavor)
        if stub_class is None:
            base: type[Stub] = Stub
            if (OP_NEXT, "") in shape.members:
                base = RemoteIterator if flavor is Flavor.BLOCKING else AsyncRemoteIterator
            stub_class = shape.faces[flavor] = make_stub_class(shape, flavor, base)
        stub: Stub = stub_class(imported, shape, call)
        stubs.append(ref(stub))
        return stub

    def stubs(self, imports: list[Import], shape: Shape, flavor: Flavor) -> list[Stub]:
        """Return the stub of each import."""
        make, call = shape.faces.get(flavor), self._calls[flavor]
        made = []
        for imported in imports:
            if imported.stubs or make is None:
                stub = self.stub(imported, shape, flavor)
                make = shape.faces[flavor]
            else:
                stub = make(imported, shape, call)
                imported.stubs.append(ref(stub))
            made.append(stub)
        return made


class Writer:
    """Writes the references of one message; counts each, so that all can be taken back."""

    __slots__ = ("_guard", "_left", "_session", "_watcher", "handed_over")

    def __init__(self, session: Session, watcher: object) -> None:
        """Take the session, and what is to be told when a right of ours ends: the caller of the connection."""
        self._session = session
        self._guard = session.guard
        self._watcher = watcher
        self._left = session.limits.message_references
        self.handed_over: list[Export] = []

    def begin_again(self) -> None:
        """Take back everything: less of it is written now."""
        self._session.exports.take_back(self.handed_over)
        self.handed_over.clear()
        self._left = self._session.limits.message_references

    def _count(self) -> None:
        """Take note of one reference more; raise ``TooManyReferences`` if the message holds all that it may."""
        self._left -= 1
        if self._left < 0:
            raise TooManyReferences(self._session.limits.message_references)

    def _export(self, obj: object, shape: Shape, facet: Facet, scope: Scope | None, *rights: Right | None) -> Export:
        """Count one occurrence of an object under a facet, a call, and every right that it was reached through."""
        session = self._session
        if isinstance(obj, Stub):
            return self._forward(obj, shape, facet, scope, tuple(right for right in rights if right is not None))
        if type(obj) is Narrowed:
            if obj._caprpc_interface not in ("", shape.name):
                raise CallRefused(f"{obj!r} was lent as {obj._caprpc_interface}, and {shape.name} is declared here")
            rights += (obj._caprpc_right,)
            for right in obj._caprpc_right.lineage:
                # What else of this interface is obtained through it is narrowed likewise.
                right.applies_to.add(facet.interface)
            obj = obj._caprpc_source
        above = tuple(right for right in rights if right is not None)
        if not above:
            lifetime = LIFETIME_CONNECTION if scope is None else LIFETIME_CALL
            export = session.exports.hand_over(obj, shape, facet, session.announce(facet, lifetime), scope)
        else:
            _check_alive(above, session.now)
            key = (id(obj), shape, facet, id(scope), *map(id, above))
            known = session.exports.again(key, obj)
            export = self._derive(key, obj, shape.adapt, shape, facet, scope, above) if known is None else known
            export.count += 1
        self.handed_over.append(export)
        return export

    def _forward(self, stub: Stub, shape: Shape, facet: Facet, scope: Scope | None, above: tuple[Right, ...]) -> Export:
        """Count one occurrence of a forwarder: of a reference that we hold over another connection.

        Raises:
            CallRefused: No policy of ours lets it be passed on to this peer.
            ReferenceDead: It is dead.
        """
        session, imported = self._session, stub._caprpc_import
        if not imported.alive or (imported.right is not None and imported.right.refusal(session.now)):
            raise dead_reference(imported)
        if imported.holder not in sources(base_of(facet)):
            raise CallRefused(
                f"{self._guard.policy.file}: no policy lets a reference of {imported.holder} be passed on as "
                f'{facet.name}; to allow it add under [offer.{facet.name}]: forward_from = ["{imported.holder}"]'
            )
        if shape.name != stub._caprpc_shape.name:
            raise Mismatch(shape.name, f"a reference to a {stub._caprpc_shape.name}")
        if imported.right is not None:
            above += (imported.right,)
        _check_alive(above, session.now)
        key = (id(stub), shape, facet, id(scope), *map(id, above))
        export = session.exports.again(key, stub)
        if export is None:
            right = Right(above)
            forwarder = Forwarder(stub, session.peer.principal)
            export = self._derive(key, stub, lambda _: forwarder, shape, facet, scope, (right,))
            imported.origin.pass_on(right)
        export.count += 1
        self.handed_over.append(export)
        return export

    def _derive(
        self,
        key: object,
        source: object,
        adapt: Callable[[object], object],
        shape: Shape,
        facet: Facet,
        scope: Scope | None,
        above: tuple[Right, ...],
        *,
        revocable: bool = False,
    ) -> Export:
        """Export an object anew, under rights."""
        session = self._session
        right = above[0] if len(above) == 1 else Right(above)
        base = base_of(facet)
        narrowings = right.narrowings(base.interface)
        facet = DerivedFacet(base, narrowings, revocable=revocable) if narrowings or revocable else base
        session.exports.check_room(scope)
        announced = session.announce(facet, LIFETIME_CONNECTION if scope is None else LIFETIME_CALL)
        export = session.exports.add(key, source, adapt(source), shape, facet, announced)
        session.exports.stand_under(export, right, scope, session.now)
        right.watch(self._watcher)
        return export


class ArgumentWriter(Writer):
    """Writes our arguments of one call: what may be passed where is what ``[[lend]]`` says."""

    __slots__ = ("_interface", "_member", "_right", "_terms", "scope")

    def __init__(self, session: Session, target: Import, member: str, watcher: object) -> None:
        super().__init__(session, watcher)
        self._interface = target.announced.interface
        self._right = target.right
        self._member = member
        self._terms: dict[Lend, Right] = {}
        self.scope: Scope | None = None

    def write(self, obj: object, shape: Shape, parameter: str) -> RemoteReference | OwnReference:
        """Return the reference for an argument.

        Raises:
            CallRefused: No ``[[lend]]`` of our policy lets this object go there.
            Mismatch: Nothing says that it stands for what is declared there.
            TooManyReferences: As ``_count`` says.
        """
        self._count()
        home = going_home(obj, self._session, self._watcher)
        if home is not None:
            return home
        lend = self._guard.lend(self._interface, self._member, parameter)
        if lend is None:
            if not isinstance(obj, Stub) and type(obj) is not Narrowed:
                # What can be no such reference at all is a wrong argument, and no policy would mend it.
                shape.adapt(obj)
            to = f"{self._interface}.{self._member}"
            raise CallRefused(
                f"our policy {self._guard.policy.file} lends nothing to {to} ({parameter}); to allow it add: "
                f'[[lend]] to = "{to}" param = "{parameter}" as = "<facet>" lifetime = "call"'
            )
        scope = None
        if lend.lifetime == "call":
            scope = self.scope = self.scope or Scope()
        export = self._export(obj, shape, self._guard.facet(lend.facet), scope, self._right, self._terms_of(lend))
        return reference_to(export)

    def _terms_of(self, lend: Lend) -> Right | None:
        """Return the right by which this message lends something for a time or a number of uses."""
        if isinstance(lend.lifetime, str) and lend.max_uses is None:
            return None
        right = self._terms.get(lend)
        if right is None:
            expires_at = inf if isinstance(lend.lifetime, str) else self._session.now + lend.lifetime
            right = self._terms[lend] = Right(expires_at=expires_at, uses=lend.max_uses)
        return right


class ResultWriter(Writer):
    """Writes the result of one answer: what may be returned is what ``[offer.*.returns]`` says."""

    __slots__ = ("_permit", "_target")

    def __init__(self, session: Session, permit: Permit, target: Export, watcher: object) -> None:
        super().__init__(session, watcher)
        self._permit = permit
        self._target = target

    def write(self, obj: object, shape: Shape, _parameter: str) -> RemoteReference | OwnReference:
        """Return the reference for a result.

        Raises:
            CallRefused: The policy names no facet for what this member returns.
            TooManyReferences: As ``_count`` says.
        """
        self._count()
        home = going_home(obj, self._session, self._watcher)
        if home is not None:
            return home
        facet = self._guard.facet_for_result(self._permit, shape.name)
        if facet is None:
            word = grant_word(self._permit.operation, self._permit.member)
            raise CallRefused(
                f"{self._permit.rule}: the policy lets no reference out of {word}; to allow it name a facet under "
                f'[offer.{self._permit.facet}.returns]: {word} = "<facet>"'
            )
        return self.hand_over(obj, shape, facet)

    def hand_over(self, obj: object, shape: Shape, facet: Facet) -> RemoteReference:
        """Export an object under a facet; it lives as long as the reference it was reached through, and no longer.

        Raises:
            CallRefused: The peer asks for somebody else, to whom the policy does not let it pass such references on.
        """
        right = self._target.right
        if right is not None and right.chain and not may_pass_on(facet):
            name, peer = base_of(facet).name, self._session.peer.principal
            raise CallRefused(
                f"{self._guard.policy.file}: {peer} asks for {right.chain[0]}, and may not pass on what it gets as "
                f"{name}; to allow it add under [offer.{name}]: forward = true"
            )
        export = self._export(obj, shape, facet, self._target.scope, right)
        if export.closer is not None:
            bound_iterator(export, self._permit)
        return reference_to(export)

    def hand_over_derived(self, right: Right) -> RemoteReference:
        """Export the target once more, under a right derived from its own."""
        target = self._target
        _check_alive((right,), self._session.now)
        right.applies_to.add(target.facet.interface)
        obj = target.obj
        export = self._derive(
            right, target.source, lambda _: obj, target.shape, target.facet, target.scope, (right,), revocable=True
        )
        export.count += 1
        self.handed_over.append(export)
        return reference_to(export)


def _check_alive(rights: tuple[Right, ...], now: float) -> None:
    for right in rights:
        reason = right.refusal(now)
        if reason:
            raise CallRefused(f"nothing can be handed over through a reference that has ended ({reason})")


def reference_to(export: Export) -> RemoteReference:
    """Return what stands for an export in a message."""
    announced = export.announced
    return RemoteReference(export.export_id, 0 if announced is None else announced.facet_id)


class Reader:
    """Reads the references of one message: theirs become stubs, ours come home; all or none."""

    __slots__ = ("_chain", "_flavor", "_homes", "_maker", "_right", "_scope", "_session", "received")

    def __init__(
        self,
        session: Session,
        maker: StubMaker,
        flavor: Flavor,
        scope: Scope | None,
        homes: dict[int, Home] | None = None,
        right: Right | None = None,
        chain: tuple[str, ...] = (),
    ) -> None:
        self._session = session
        self._chain = chain
        self._maker = maker
        self._flavor = flavor
        self._scope = scope
        self._homes = homes
        self._right = right
        """What it comes in through, if that was narrowed: it is good for us as long as that."""
        self.received: list[Import] = []

    def read(self, reference: RemoteReference | OwnReference, shape: Shape) -> object:
        """Return the stub, or our own object.

        Raises:
            RemoteProtocolError: The reference breaks the rules of the tables.
            Mismatch: It is a reference, but not of the declared interface.
        """
        session = self._session
        if isinstance(reference, OwnReference):
            homes = self._homes
            exports, number = session.exports, reference.export
            home = exports.home(number, session.now) if homes is None else homes.get(number)
            if home is None:
                raise RemoteProtocolError(f"our own export {reference.export} comes home, which was not handed over")
            source, declared = home
            if source is None or declared.name != shape.name:
                raise Mismatch(shape.name, f"our own {declared.name}")
            return source
        announced = session.announced_by_peer(reference.facet)
        imported = session.imports.receive(reference.export, announced, self._scope)
        self.received.append(imported)
        if self._chain:
            imported.chain = self._chain
        if announced.interface != shape.name:
            if not isinstance(shape, Undeclared):
                raise Mismatch(shape.name, f"a reference to {printable(announced.interface)}")
            shape = shape.of(announced.interface, announced.operations)
        return self._maker.stub(imported if self._right is None else imported.under(self._right), shape, self._flavor)

    def read_all(self, references: list[RemoteReference], shape: Shape) -> list[Any]:
        """Return the stub of each reference of theirs; most are of one facet.

        Raises:
            RemoteProtocolError, Mismatch: As for ``read``.
        """
        facets = {facet for _, facet in references}
        if len(facets) != 1 or self._chain or self._right is not None:
            return [self.read(reference, shape) for reference in references]
        session = self._session
        announced = session.announced_by_peer(facets.pop())
        if announced.interface != shape.name:
            return [self.read(reference, shape) for reference in references]
        received: list[Import] = []
        try:
            session.imports.receive_all([number for number, _ in references], announced, self._scope, received)
        finally:
            self.received += received
        return self._maker.stubs(received, shape, self._flavor)


def going_home(obj: object, session: Session, watcher: object) -> OwnReference | None:
    """Return the reference by which a stub of this very connection goes back to its owner; None for everything else.

    Raises:
        CallRefused: It was of this connection and is dead.
    """
    if not isinstance(obj, Stub):
        return None
    if isinstance(obj._caprpc_import, Promised):
        raise CallRefused("a promise cannot be passed on: take its result first, and pass that")
    imported: Import = obj._caprpc_import.origin
    if session.imports.get(imported.export_id) is imported:
        return OwnReference(imported.export_id)
    if obj._caprpc_call.__self__ is watcher:
        raise CallRefused(f"{obj!r} cannot be passed any more")
    return None
