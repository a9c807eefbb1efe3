"""Promises: references to what a call will return, used before it has returned.

A step on a promise is sent at once; the peer runs it when the answer is there, with the gate that it would pass then.
"""

import asyncio
from collections.abc import Callable, Generator
from typing import Any, Final
from weakref import ref

from caprpc.errors import printable
from caprpc.ids import OP_CALL, OP_GET, OP_INDEX_GET, OP_INVOKE
from caprpc.interface import Member, Shape
from caprpc.objects.stubs import NOT_BY_INDEX, Stub, getter, named_method
from caprpc.session import Announced, Import, Question
from caprpc.wire.messages import LIFETIME_CONNECTION

_DUNDERS: Final[dict[int, str]] = {OP_INVOKE: "__call__", OP_INDEX_GET: "__getitem__"}
"""Operations without a name that may be a step."""


class Promised(Import):
    """The answer to a question of ours, as a target of calls. It is named by the question and counted by nobody.

    Invariant: the peer keeps the answer from the moment it is asked until no promise of it is held.
    """

    __slots__ = ("future", "member", "question", "steps")

    def __init__(self, shape: Shape, target: Import, member: Member) -> None:
        rights = Announced(0, shape.name, frozenset(shape.members), LIFETIME_CONNECTION)
        super().__init__(0, rights, target.holder, target.dropped)
        self.scope, self.right = target.scope, target.right
        self.member = member
        """Whose result it is."""
        self.question: Question | None = None
        self.future: Any = None
        """The driver's future of the result."""
        self.steps = steps_before(target)
        """How many answers must come before this one, as far as is known when it is made."""

    def asked(self, question: Question) -> None:
        """Take the question whose answer it is."""
        self.question = question
        self.export_id = ~question.question_id
        if self.stubs and self.stubs[0]() is None:
            # Nobody has waited for its turn: it is to be finished as soon as it is asked.
            self.dropped.append(self)


class PromiseStub(Stub):
    """Base of promises: the members of an interface that may be steps, each of which gives a promise or a future."""

    __slots__ = ("_caprpc_base",)

    def __repr__(self) -> str:
        imported = self._caprpc_import
        return f"<promise of {self._caprpc_shape.name} of {printable(imported.holder)}>"

    def __del__(self) -> None:
        imported = getattr(self, "_caprpc_import", None)
        if not isinstance(imported, Promised):
            super().__del__()
            return
        # A step that stands on it must not keep what it has become.
        imported.future = None
        if imported.export_id < 0:
            imported.dropped.append(imported)

    def __await__(self) -> Generator[Any, None, Any]:
        awaited: Generator[Any, None, Any] = future_of(self).__await__()
        return awaited


def steps_before(target: Import) -> int:
    """Return how many answers must come before a call on ``target`` can run."""
    if not isinstance(target, Promised) or (target.question is not None and target.question.has_ended):
        return 0
    return target.steps + 1


def result_shape(member: Member) -> Shape | None:
    """Return the shape of a result that is one reference; None for every other kind of result."""
    result = member.signature.result
    if len(result.shapes) == 1 and result.text == result.shapes[0].text:
        return result.shapes[0]
    return None


def promise_of(imported: Import, shape: Shape, step: Callable[..., Any], base: object = None) -> PromiseStub:
    """Return the face of a reference, or of a promise of one, whose members are steps; it holds ``base``."""
    made = shape.faces.get(PromiseStub)
    if made is None:
        made = shape.faces[PromiseStub] = _make_class(shape)
    promise: PromiseStub = made(imported, shape, step)
    object.__setattr__(promise, "_caprpc_base", base)
    if isinstance(imported, Promised):
        imported.stubs.append(ref(promise))
    return promise


def future_of(promise: object) -> Any:
    """Return the future of what a pipeline ends with: a promise, or the future of a value.

    Raises:
        TypeError: It is a reference and no step on it.
    """
    if not isinstance(promise, PromiseStub):
        return promise
    imported = promise._caprpc_import
    if not isinstance(imported, Promised):
        raise TypeError("a pipeline needs a step: write pipe(ref).method(...) or pipe(ref, lambda r: r.method(...))")
    return imported.future


def look_at(done: "asyncio.Future[Any]") -> None:
    """Have asyncio not complain of a step that failed and that nobody awaits: what stands on it tells of it."""
    if not done.cancelled():
        done.exception()


def held_by(target: Import) -> object:
    """Return what must not be dropped before a call on ``target`` has been asked."""
    return target.stubs[0]() if isinstance(target, Promised) and target.stubs else None


def failed_step(question: Question) -> Promised | None:
    """Return the step whose failure has broken a call on what it promised."""
    target = question.target
    while isinstance(target, Promised) and target.question is not None:
        before = target.question.target
        if not (isinstance(before, Promised) and _is_broken(target.question)):
            return target
        target = before
    return None


def _is_broken(question: Question) -> bool:
    return getattr(question.outcome, "code", "") == "broken"


def _make_class(shape: Shape) -> type[PromiseStub]:
    body: dict[str, Any] = {"__slots__": (), "__doc__": f"A promise of a {shape.text}."}
    for (operation, name), member in shape.members.items():
        if operation == OP_CALL:
            body[name] = named_method(member, name, shape.name)
        elif operation == OP_GET:
            body[name] = property(getter(member))
        elif operation in _DUNDERS:
            body[_DUNDERS[operation]] = named_method(member, _DUNDERS[operation], shape.name)
    if "__getitem__" in body:
        body |= NOT_BY_INDEX
    return type(f"{shape.name}Promise", (PromiseStub,), body)
