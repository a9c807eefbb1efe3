"""The server of the demonstration: ``caprpc serve caprpc.demo.service:roots``.

It counts lines as it should. It also keeps what it was lent, and ``misbehave`` tries what it was not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from caprpc.demo.forge import forge
from caprpc.demo.interfaces import LineCounter
from caprpc.errors import CapRPCError, RemoteError
from caprpc.ids import OP_CALL, OP_GET, OP_INVOKE
from caprpc.peer import PeerIdentity


@dataclass(frozen=True, slots=True)
class Attempt:
    """Something that the client has not granted: what it would be in Python, on what, and as an operation."""

    tried: str
    target: str
    operation: int
    member: str
    args: tuple[object, ...] = ()

    def report(self, error: CapRPCError | None) -> dict[str, str]:
        """Return what came of it; no error means that it worked."""
        if error is None:
            return {"tried": self.tried, "error": "", "code": "", "reference": ""}
        code, reference = (error.code, error.reference) if isinstance(error, RemoteError) else ("", "")
        return {"tried": self.tried, "error": type(error).__name__, "code": code, "reference": reference}


ATTEMPTS: Final = (
    Attempt("fileobj.write('overwritten')", "file", OP_CALL, "write", ("overwritten",)),
    Attempt("fileobj.close()", "file", OP_CALL, "close"),
    Attempt("fileobj.buffer", "file", OP_GET, "buffer"),
    Attempt("function.__globals__", "function", OP_GET, "__globals__"),
    Attempt("fileobj.readlines() of the call that has ended", "kept file", OP_CALL, "readlines"),
    Attempt("function('x') of the call that has ended", "kept function", OP_INVOKE, "", ("x",)),
)


class _Kept:
    """What a connection was lent in the call before; an honest server would let go of it."""

    def __init__(self, _peer: PeerIdentity) -> None:
        self._kept: dict[str, Any] = {}

    def _keep(self, fileobj: object, function: object) -> None:
        self._kept = {"kept file": fileobj, "kept function": function}

    def _forge(self, attempt: Attempt, fileobj: object, function: object) -> Any:
        targets = {"file": fileobj, "function": function, **self._kept}
        return forge(targets[attempt.target], attempt.operation, attempt.member, attempt.args)


class Counter(_Kept, LineCounter):
    """The line counter with ordinary methods."""

    def line_counter(self, fileobj: Any, function: Any) -> int:
        """Call the function for each line; the file and the function stay in the client."""
        self._keep(fileobj, function)
        count = 0
        for line in fileobj.readlines():
            count += 1
            function(line)
        return count

    def misbehave(self, fileobj: Any, function: Any) -> list[dict[str, str]]:
        """Try everything that was not granted."""
        reports = []
        for attempt in ATTEMPTS:
            try:
                self._forge(attempt, fileobj, function)
            except CapRPCError as error:
                reports.append(attempt.report(error))
            else:
                reports.append(attempt.report(None))
        return reports


class AsyncCounter(_Kept, LineCounter):
    """The same with coroutine methods."""

    async def line_counter(self, fileobj: Any, function: Any) -> int:  # type: ignore[override]
        """Call the function for each line; the file and the function stay in the client."""
        self._keep(fileobj, function)
        count = 0
        async for line in await fileobj.readlines():
            count += 1
            await function(line)
        return count

    async def misbehave(self, fileobj: Any, function: Any) -> list[dict[str, str]]:  # type: ignore[override]
        """Try everything that was not granted."""
        reports = []
        for attempt in ATTEMPTS:
            try:
                await self._forge(attempt, fileobj, function)
            except CapRPCError as error:
                reports.append(attempt.report(error))
            else:
                reports.append(attempt.report(None))
        return reports


def roots() -> Mapping[str, object]:
    """Return the root, one object for each connection."""
    return {"counter": Counter}


def async_roots() -> Mapping[str, object]:
    """Return the root with coroutine methods."""
    return {"counter": AsyncCounter}
