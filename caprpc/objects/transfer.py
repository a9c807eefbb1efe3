"""How references cross: our objects going out under a facet, theirs coming in as stubs, ours coming home.

Every occurrence is counted; a message that is not sent, or not taken, is undone as a whole.
"""

from collections.abc import Callable
from typing import Any
from weakref import ref

from caprpc.errors import CallRefused, RemoteProtocolError
from caprpc.ids import OP_NEXT
from caprpc.interface import Mismatch, Shape
from caprpc.objects.allowance import bound_iterator
from caprpc.objects.iteration import AsyncRemoteIterator, RemoteIterator
from caprpc.objects.stubs import Caller, Flavor, Stub, make_stub_class
from caprpc.policy import Facet, Guard, Permit
from caprpc.session import Export, Home, Import, Scope, Session
from caprpc.wire.messages import LIFETIME_CALL, LIFETIME_CONNECTION
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
        held = imported.stub
        known = held() if held is not None else None
        if isinstance(known, Stub) and known._caprpc_call is call and known._caprpc_shape is shape:
            return known
        stub_class = shape.faces.get(flavor)
        if stub_class is None:
            base: type[Stub] = Stub
            if (OP_NEXT, "") in shape.members:
                base = RemoteIterator if flavor is Flavor.BLOCKING else AsyncRemoteIterator
            stub_class = shape.faces[flavor] = make_stub_class(shape, flavor, base)
        stub: Stub = stub_class(imported, shape, call)
        imported.stub = ref(stub)
        return stub


class ArgumentWriter:
    """Writes our arguments of one call: what may be passed where is what ``[[lend]]`` says."""

    __slots__ = ("_guard", "_interface", "_member", "_session", "handed_over", "scope")

    def __init__(self, session: Session, guard: Guard, interface: str, member: str) -> None:
        self._session = session
        self._guard = guard
        self._interface = interface
        self._member = member
        self.handed_over: list[Export] = []
        self.scope: Scope | None = None

    def write(self, obj: object, shape: Shape, parameter: str) -> RemoteReference | OwnReference:
        """Return the reference for an argument.

        Raises:
            CallRefused: No ``[[lend]]`` of our policy lets this object go there.
        """
        home = going_home(obj, self._session)
        if home is not None:
            return home
        lend = self._guard.lend(self._interface, self._member, parameter)
        if lend is None:
            to = f"{self._interface}.{self._member}"
            raise CallRefused(
                f"our policy {self._guard.policy.file} lends nothing to {to} ({parameter}); to allow it add: "
                f'[[lend]] to = "{to}" param = "{parameter}" as = "<facet>" lifetime = "call"'
            )
        facet = self._guard.facet(lend.facet)
        by_call = lend.lifetime == "call"
        if by_call and self.scope is None:
            self.scope = Scope()
        announced = self._session.announce(facet, LIFETIME_CALL if by_call else LIFETIME_CONNECTION)
        export = self._session.exports.hand_over(obj, shape, facet, announced, self.scope if by_call else None)
        self.handed_over.append(export)
        if isinstance(lend.lifetime, float | int):
            export.expires_at = self._session.now + lend.lifetime
        if lend.max_uses is not None and export.uses_left is None:
            export.uses_left = lend.max_uses
        return RemoteReference(export.export_id, announced.facet_id)


class ResultWriter:
    """Writes the result of one answer: what may be returned is what ``[offer.*.returns]`` says."""

    __slots__ = ("_guard", "_permit", "_session", "_target", "handed_over")

    def __init__(self, session: Session, guard: Guard, permit: Permit, target: Export) -> None:
        self._session = session
        self._guard = guard
        self._permit = permit
        self._target = target
        self.handed_over: list[Export] = []

    def write(self, obj: object, shape: Shape, _parameter: str) -> RemoteReference | OwnReference:
        """Return the reference for a result.

        Raises:
            CallRefused: The policy names no facet for what this member returns.
        """
        home = going_home(obj, self._session)
        if home is not None:
            return home
        facet = self._guard.facet_for_result(self._permit)
        if facet is None:
            raise CallRefused(
                f"{self._permit.rule}: the policy lets no reference out of {self._permit.member}; to allow it name a "
                f'facet under [offer.{self._permit.facet}.returns]: {self._permit.member} = "<facet>"'
            )
        return self.hand_over(obj, shape, facet)

    def hand_over(self, obj: object, shape: Shape, facet: Facet) -> RemoteReference:
        """Export an object under a facet; it lives as long as the object it was reached through."""
        scope = self._target.scope
        announced = self._session.announce(facet, LIFETIME_CONNECTION if scope is None else LIFETIME_CALL)
        export = self._session.exports.hand_over(obj, shape, facet, announced, scope)
        self.handed_over.append(export)
        if export.closer is not None:
            bound_iterator(export, self._permit)
        export.expires_at = min(export.expires_at, self._target.expires_at)
        return RemoteReference(export.export_id, announced.facet_id)


class Reader:
    """Reads the references of one message: theirs become stubs, ours come home; all or none."""

    __slots__ = ("_flavor", "_homes", "_maker", "_scope", "_session", "received")

    def __init__(
        self,
        session: Session,
        maker: StubMaker,
        flavor: Flavor,
        scope: Scope | None,
        homes: dict[int, Home] | None = None,
    ) -> None:
        self._session = session
        self._maker = maker
        self._flavor = flavor
        self._scope = scope
        self._homes = homes
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
            home = session.exports.home(reference.export) if homes is None else homes.get(reference.export)
            if home is None:
                raise RemoteProtocolError(f"our own export {reference.export} comes home, which was not handed over")
            source, declared = home
            if source is None or declared.name != shape.name:
                raise Mismatch(shape.name, f"our own {declared.name}")
            return source
        announced = session.announced_by_peer(reference.facet)
        imported = session.imports.receive(reference.export, announced, self._scope)
        self.received.append(imported)
        if announced.interface != shape.name:
            raise Mismatch(shape.name, "a reference of another interface")
        return self._maker.stub(imported, shape, self._flavor)


def going_home(obj: object, session: Session) -> OwnReference | None:
    """Return the reference by which a stub of this very connection goes back to its owner; None for local objects.

    Raises:
        CallRefused: It is a stub of another connection, and nothing lets it be passed on.
    """
    if not isinstance(obj, Stub):
        return None
    imported: Import = obj._caprpc_import
    if session.imports.get(imported.export_id) is not imported:
        raise CallRefused("a reference of another connection (or a dead one) cannot be passed on: no policy lets it")
    return OwnReference(imported.export_id)
