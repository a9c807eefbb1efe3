"""Forwarders: what a third party gets for a reference that we hold of somebody else.

Every call comes to us, is decided by our policy for the third party, and is made by us on the reference: there is no
shorter way. The owner of the object is told to whom it was passed on before the first call, and may refuse that.
"""

import copy
from collections.abc import Callable
from typing import Any, Final

from caprpc.errors import CallRefused, ConnectionLost, DeadlineExceeded, LimitExceeded, ReferenceDead, RemoteError
from caprpc.interface import Member
from caprpc.objects.passing import PassOnMember
from caprpc.objects.stubs import Stub
from caprpc.session import Export

MOST_CHAINS: Final = 64
"""Ways to third parties that one forwarder remembers; more are asked for anew."""

_PASSED: Final = frozenset({"denied", "invalid-arguments", "limit", "unavailable", "cancelled", "deadline"})
"""What the owner said that says enough: the third party gets the same code, and no text."""

REFUSALS: Final = frozenset({"denied", "invalid-arguments", "limit"})
"""What costs us a part of the owner's patience: it costs whoever has asked for it as much of ours."""


class NotForwarded(Exception):
    """A forwarded call has failed on its way, or at the owner.

    Attributes:
        code: What the third party is told, a code of ``ERROR_CODES``.
    """

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class Forwarder:
    """Stands for a reference of another connection in the exports of this one."""

    __slots__ = ("_known", "_principal", "_stub")

    def __init__(self, stub: Stub, principal: str) -> None:
        """Take the reference, and who gets it."""
        self._stub = stub
        self._principal = principal
        self._known: dict[tuple[str, ...], Stub] = {}
        """For each way to a third party the reference that the owner has given for it."""

    @property
    def holder(self) -> str:
        """Who owns the object."""
        holder: str = self._stub._caprpc_import.holder
        return holder

    def bind(self, member: Member, export: Export) -> tuple[Callable[..., Any], bool]:
        """Return what makes a call on the reference, and whether it is a coroutine function."""
        passed_on = () if export.right is None else export.right.chain
        chain = (self._principal, *passed_on)
        call: Any = self._stub._caprpc_call
        caller = call.__self__
        if call == caller.call_async:

            async def forward_async(*args: object, **kwargs: object) -> Any:
                try:
                    stub = self._of(chain)
                    if stub is None:
                        asking = PassOnMember(self._stub, chain)
                        stub = self._learn(chain, await caller.call_here(self._stub._caprpc_import, asking, (), {}))
                    return await caller.call_here(stub._caprpc_import, member, args, kwargs)
                except _FAILURES as exc:
                    raise NotForwarded(_code_of(exc)) from exc

            return forward_async, True

        def forward(*args: object, **kwargs: object) -> Any:
            try:
                stub = self._of(chain)
                if stub is None:
                    asking = PassOnMember(self._stub, chain)
                    stub = self._learn(chain, caller.call(self._stub._caprpc_import, asking, (), {}))
                return caller.call(stub._caprpc_import, member, args, kwargs)
            except _FAILURES as exc:
                raise NotForwarded(_code_of(exc)) from exc

        return forward, False

    def _of(self, chain: tuple[str, ...]) -> Stub | None:
        if self._stub._caprpc_import.chain == chain:
            # It was obtained through one whose owner knows.
            return self._stub
        return self._known.get(chain)

    def _learn(self, chain: tuple[str, ...], stub: Stub) -> Stub:
        while len(self._known) >= MOST_CHAINS:
            self._known.pop(next(iter(self._known)), None)
        self._known[chain] = stub
        return stub


_FAILURES: Final = (RemoteError, ReferenceDead, ConnectionLost, LimitExceeded, CallRefused)


def waiting(member: Member, export: Export) -> Member:
    """Return a member as one that waits: making its call takes as long as the owner takes."""
    faces = export.shape.faces
    key = ("forwarded", member.operation, member.name)
    made: Member | None = faces.get(key)
    if made is None:
        made = copy.copy(member)
        made.blocking = True
        faces[key] = made
    return made


def _code_of(exc: Exception) -> str:
    if isinstance(exc, RemoteError):
        return exc.code if exc.code in _PASSED else "internal"
    if isinstance(exc, ReferenceDead | ConnectionLost):
        return "revoked"
    if isinstance(exc, DeadlineExceeded):
        return "deadline"
    return "limit" if isinstance(exc, LimitExceeded) else "internal"
