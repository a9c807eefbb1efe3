"""What a peer answered with an error, as an exception of ours."""

from typing import Final

from caprpc.errors import (
    ERROR_CODES,
    CallCancelled,
    DeadlineExceeded,
    Denied,
    RemoteError,
    printable,
    rebuilt,
)
from caprpc.ids import OPERATION_NAMES
from caprpc.interface import Member
from caprpc.wire.messages import Failure, Raise

_ERROR_CLASSES: Final[dict[str, type[RemoteError]]] = {
    "denied": Denied,
    "cancelled": CallCancelled,
    "deadline": DeadlineExceeded,
}
"""Codes that have a class of their own."""

_ADVICE: Final[dict[str, str]] = {
    "denied": "the peer's policy does not grant this, or there is no such member",
    "invalid-arguments": "the peer did not take the arguments",
    "invalid-result": "the peer's method returned something that its declaration or policy does not let out",
    "internal": "the peer's method failed; its operator finds the reason under the reference number",
    "cancelled": "the call was cancelled",
    "deadline": "the call ran out of time",
    "limit": "a limit of the peer was reached",
    "revoked": "the reference was revoked",
    "broken": "the call whose result this one is on has returned no reference of the peer",
    "unavailable": "the peer is stopping and takes no new calls",
}


def error_of_answer(answer: Raise | Failure, member: Member | None, principal: str) -> Exception:
    """Return the exception for an answer: a declared one of our own class, anything else as a ``RemoteError``.

    Notes say which side, member and peer it comes from.
    """
    peer = printable(principal)
    reference = printable(answer.reference, 32)
    text = printable(answer.text)
    if answer.code == "declared" and member is not None:
        for declared in member.errors:
            if declared.__name__ == answer.type:
                error = rebuilt(declared, text)
                BaseException.add_note(error, f"{_side(member, peer)}, reference number {reference}")
                return error
    advice = _ADVICE.get(answer.code, "the peer answered with an error")
    where = f"{member.name or OPERATION_NAMES[member.operation]}: " if member is not None else ""
    message = f"{where}{advice}" + (f": {text}" if text else "") + f" (peer {peer}, reference number {reference})"
    error_class = _ERROR_CLASSES.get(answer.code, RemoteError)
    code = answer.code if answer.code in ERROR_CODES else "internal"
    remote = error_class(message, code=code, reference=reference, text=text, peer=peer)
    if member is not None:
        remote.add_note(_side(member, peer))
    return remote


def _side(member: Member, peer: str) -> str:
    operation = OPERATION_NAMES[member.operation]
    # What every reference has without a declaration (attenuate) has no signature of an interface either.
    where = getattr(member.signature, "member", "a reference")
    return f"answered at the peer's side, not here: {operation} of {where}, peer {peer}"
