"""Every error a user of CapRPC can meet.

Messages say what was expected, what came, where, and what to do. What travels to a peer is only a code of
``ERROR_CODES``, declared public text, and a reference number.
"""

from typing import Any, Final

ERROR_CODES: Final = frozenset(
    {
        "denied",
        "invalid-arguments",
        "invalid-result",
        "declared",
        "internal",
        "cancelled",
        "deadline",
        "limit",
        "revoked",
        "unavailable",
        "broken",
    }
)
"""Codes of RAISE. ``denied`` covers absent and forbidden members alike."""

CLOSE_CODES: Final = frozenset(
    {
        "closed",
        "drain",
        "protocol-error",
        "version",
        "refused",
        "limit",
        "idle",
        "expired",
        "revoked",
        "internal",
    }
)
"""Codes of GOAWAY."""


class CapRPCError(Exception):
    """Base of every error that CapRPC raises."""


class ConfigurationError(CapRPCError):
    """An identity, a policy or an option is wrong on this side; nothing was started.

    Attributes:
        where: ``file:line`` or the name of the option, empty if neither applies.
        hint: What to do about it, empty if the message says it all.
        code: For a problem of a policy, one of a closed list; else empty.
        column: Where in the line, counted from 1; None if nothing says so.
    """

    def __init__(
        self, message: str, *, where: str = "", hint: str = "", code: str = "", column: int | None = None
    ) -> None:
        self.code = code
        self.column = column
        self.message = message
        self.where = where
        self.hint = hint
        text = f"{where}: {message}" if where else message
        super().__init__(f"{text}\n  hint: {hint}" if hint else text)


class PolicyError(ConfigurationError):
    """A policy directory does not load; ``problems`` holds every error found in it.

    Attributes:
        problems: One ``ConfigurationError`` for each mistake, in file and line order.
    """

    def __init__(self, problems: list[ConfigurationError]) -> None:
        self.problems = problems
        count = len(problems)
        lines = "\n".join(str(problem) for problem in problems)
        super().__init__(f"{count} {'problem' if count == 1 else 'problems'} in the policy\n{lines}")


class AuditError(CapRPCError):
    """The audit log cannot be opened, written or verified."""


class StoreError(CapRPCError):
    """The store of grants cannot be read or written; nothing is handed out meanwhile."""


class ProtocolError(CapRPCError):
    """Someone broke the wire protocol; the connection is dead."""


class LocalProtocolError(ProtocolError):
    """This side tried something the protocol does not allow now; nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something the protocol does not allow; the session was aborted."""


class ConnectionLost(CapRPCError):
    """The connection ended before the answer came; whether the call ran is not known.

    Attributes:
        code: A code of ``CLOSE_CODES`` if the peer gave one, else ``lost``.
        reference: The reference number to give to the peer's operator, or empty.
        may_have_run: Whether the call may have run at the peer; False if nothing of it was sent, or if the peer has
            refused us altogether.
    """

    def __init__(self, message: str, *, code: str = "lost", reference: str = "", may_have_run: bool = True) -> None:
        self.code = code
        self.reference = reference
        self.may_have_run = may_have_run
        super().__init__(message)


class ConnectRefused(ConnectionLost):
    """The connection was not established: address, certificate, identity, policy or version."""


class IdentityRefused(CapRPCError):
    """A peer's certificate proves no identity that we accept.

    Attributes:
        code: A short closed-list reason for the audit log, such as ``eku`` or ``no-policy``.
        detail: The whole reason, for the operator only; it never travels.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code}: {detail}")


class LimitExceeded(CapRPCError):
    """A limit of this side stopped the operation; the message names the knob."""


class ReferenceDead(CapRPCError):
    """The reference was released or revoked, or its connection has ended."""


class IteratorBusy(CapRPCError):
    """Somebody else waits for the next items of this iterator; an iterator has one consumer at a time."""


class CallRefused(CapRPCError):
    """Our own policy does not let us make this call or lend this object; nothing was sent."""


class RemoteError(CapRPCError):
    """The peer answered with an error.

    Attributes:
        code: A code of ``ERROR_CODES``.
        reference: The number under which the peer's operator finds the whole reason.
        text: Text the peer declared public, at most ``limits.max_error_text_bytes``; control characters escaped.
        peer: The peer's principal.
    """

    def __init__(self, message: str, *, code: str, reference: str = "", text: str = "", peer: str = "") -> None:
        self.code = code
        self.reference = reference
        self.text = text
        self.peer = peer
        super().__init__(message)


class Denied(RemoteError):
    """The peer's policy or interface does not let us do this, or there is no such member."""


class CallCancelled(RemoteError):
    """The call was cancelled before it ended."""


class DeadlineExceeded(RemoteError):
    """The deadline passed before the answer came."""


_HEAP_TYPE: Final = 1 << 9
"""``Py_TPFLAGS_HEAPTYPE``: set for every class that is written in Python."""


def printable(text: str, limit: int = 256) -> str:
    """Return text of a peer with everything escaped that could steer a terminal or a log, and cut to ``limit``."""
    cut = text[:limit]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


def cut_text(text: str, most_bytes: int) -> str:
    """Return the beginning of a text that is at most so many bytes in UTF-8."""
    return text.encode("utf-8", "replace")[:most_bytes].decode("utf-8", "ignore")


def declared_text(error: BaseException) -> str:
    """Return the text of a declared error that may cross: its first argument if that is a text, else nothing.

    ``str()`` of an exception runs its own code and may show all its arguments; the first text is what its author wrote.
    """
    args = error.args
    return args[0] if args and type(args[0]) is str else ""


def rebuilt(kind: type[Exception], text: str) -> Exception:
    """Return an exception of a declared class that carries a text, without running any code of the class.

    Its constructor is passed over: it may take other arguments, and must not run because a peer says so. What it would
    have set is missing.
    """
    builtin: Any = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
    error: Exception = builtin.__new__(kind)
    BaseException.args.__set__(error, (text,))  # type: ignore[attr-defined]  # the descriptor behind ``error.args``
    return error
