"""Batches: many calls in one frame; each is guarded, checked and recorded on its own. They carry values only."""

from collections.abc import Callable
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any, Final

from caprpc.errors import AuditError, LimitExceeded, cut_text, declared_text
from caprpc.ids import new_reference
from caprpc.interface import Member, NoReferences
from caprpc.limits import Limits
from caprpc.objects.allowance import Exceeded, check_result, is_bounded
from caprpc.objects.budget import REASON, Budget, Spent
from caprpc.objects.context import CURRENT
from caprpc.objects.dispatch import NotStarted, ended
from caprpc.policy import Permit, Refused
from caprpc.session import BatchAnswer, Export, refusal_of
from caprpc.wire import codec
from caprpc.wire.messages import Failure

if TYPE_CHECKING:
    from caprpc.objects.endpoint import Endpoint

_VALUES_ONLY: Final = NoReferences()

_FAILURE_BYTES: Final = 80
"""Most bytes of a failure in a batch's answer; the few with a text of their own have room in the envelope."""

Planned = tuple[int, Permit, Member, Callable[..., Any], list[Any], dict[str, Any], Export]
"""Position in the batch, permit, member, bound method, arguments, what it is on."""


class BatchJob:
    """The permitted calls of one batch, run in order; a failed call does not stop the others."""

    __slots__ = (
        "_budget",
        "answer",
        "asked",
        "endpoint",
        "failures",
        "is_async",
        "members",
        "planned",
        "results",
        "route",
        "running",
        "todo",
        "unrecorded",
        "waits",
    )

    def __init__(self, answer: BatchAnswer, endpoint: "Endpoint") -> None:
        self.answer = answer
        self.asked = False
        """Whether some method in it has made a call that its thread waits for."""
        self.endpoint = endpoint
        self.failures: list[Failure] = []
        self.results: list[Any] = []
        self.todo: list[Planned] = []
        self.is_async = False
        """Some method in it is a coroutine function: it is run with ``run_async``."""
        self.members: set[Member] = set()
        """What it runs."""
        self.unrecorded: AuditError | None = None
        """Why the audit log did not take an outcome: no result may leave."""
        self.running: Planned | None = None
        """The call whose method runs, or ran last."""
        self._budget: tuple[Planned, Budget] | None = None
        self.planned = 0
        """How many of its calls, from the first, are in ``todo`` or have been answered."""
        self.route = ""
        """For whom the run is that is being planned, for the audit log."""
        self.waits = False
        """Some method in it is known to block."""

    def run(self) -> None:
        """Run every call that was permitted."""
        token = CURRENT.set(self)
        results, answer = self.results, self.answer
        outcomes = self.endpoint.recorder.wants_outcomes
        todo = iter(self.todo)
        try:
            for self.running in todo:
                position, permit, member, function, args, kwargs, export = self.running
                if answer.cancelled or export.was_revoked:
                    self._overtaken(position, permit)
                    continue
                try:
                    value = function(*args, **kwargs)
                except Exception as exc:  # application code: everything it raises becomes the answer of its call
                    self._raised(position, permit, member, exc)
                except BaseException:  # the thread is asked to end; the driver answers what has not run
                    self._failed(position, permit, "internal")
                    raise
                else:
                    plain = type(value) is member.signature.scalar_result and permit.max_bytes is None
                    if plain and permit.limiter is None and not outcomes:
                        # What most calls return; ``_returned`` would come to the same by a longer way.
                        results[position] = value
                    else:
                        self._returned(position, permit, member, value)
        finally:
            self.todo = list(todo)
            CURRENT.reset(token)

    async def run_async(self) -> None:
        """Run every call that was permitted in this task, and await those that are coroutines, one after the other."""
        token = CURRENT.set(self)
        todo = iter(self.todo)
        try:
            for self.running in todo:
                position, permit, member, function, args, kwargs, export = self.running
                if self.answer.cancelled or export.was_revoked:
                    self._overtaken(position, permit)
                    continue
                try:
                    value = function(*args, **kwargs)
                    if iscoroutine(value):
                        value = await value
                except Exception as exc:  # application code: everything it raises becomes the answer of its call
                    self._raised(position, permit, member, exc)
                except BaseException:  # the task is cancelled; the driver answers what has not run
                    self._failed(position, permit, "cancelled" if self.answer.cancelled else "internal")
                    raise
                else:
                    self._returned(position, permit, member, value)
        finally:
            self.todo = list(todo)
            CURRENT.reset(token)

    def budget(self) -> Budget | None:
        """Return how many calls the method that runs may still make: each call of the batch has its own."""
        running = self.running
        if running is None:
            return None
        if self._budget is None or self._budget[0] is not running:
            self._budget = running, Budget(self, running[1])
        return self._budget[1]

    def forget(self) -> None:
        """Do nothing: arguments of a batch are values, and those of calls that did not run are still to be answered."""

    def drop(self) -> None:
        """Take note that what has not run never will, and that nobody is left to be told."""
        for _, permit, *_ in self.todo:
            ended(permit)
        self.todo = []
        self.endpoint.session.answers.arguments.let_go(self.answer.answer_id)

    def fail_all(self, exc: BaseException) -> None:
        """Answer every call that did not run: as the exception says if it is a refusal, else with ``internal``."""
        if not isinstance(exc, NotStarted):
            self.fail_rest("internal")
            return
        text = exc.text
        for position, permit, *_ in self.todo:
            self._refused(position, permit, exc.code, refusal_of(permit, exc.reason, exc.rule or permit.rule), text)
            # Once is enough: there may be more calls than texts have room.
            text = ""
        self.todo = []
        self._commit()

    def fail_rest(self, code: str) -> None:
        """Answer every call that did not run with an error."""
        for position, permit, *_ in self.todo:
            self._failed(position, permit, code)
        self.todo = []

    def outcome(self, limits: Limits, most: int) -> tuple[list[Failure], bytes]:
        """Return the failures and the packed results.

        If those cannot be packed, or are more than the ``most`` bytes that the peer takes, every call has failed.
        """
        if self.unrecorded is not None:
            self.failures = []
            return self._withhold("internal", self.unrecorded, limits)
        try:
            payload = codec.pack(self.results, limits)
        except (TypeError, ValueError) as exc:
            return self._withhold("invalid-result", exc, limits)
        size = len(payload) + len(self.failures) * _FAILURE_BYTES
        if size <= most:
            return self.failures, payload
        text = f"the results of {len(self.results)} calls take {size} bytes, the peer takes {most} (max_frame_bytes)"
        return self._withhold("limit", LimitExceeded(text), limits)

    def _withhold(self, code: str, exc: Exception, limits: Limits) -> tuple[list[Failure], bytes]:
        """Fail every call that has not failed already, under one number, by which the operator finds the reason."""
        count, reference = len(self.results), new_reference()
        known = {failure.position for failure in self.failures}
        for position in range(count):
            if position not in known:
                self.failures.append(Failure(position, True, code, "", "", reference))
        self.endpoint.recorder.failures.add("replying to a batch", exc, reference)
        return self.failures, codec.pack([None] * count, limits)

    def refuse(self, position: int, code: str, reference: str, text: str = "") -> None:
        """Answer a call that may not run."""
        self.failures.append(Failure(position, False, code, "", self._cut(text), reference))

    def _cut(self, text: str) -> str:
        return cut_text(text, self.endpoint.session.limits.max_error_text_bytes)

    def _overtaken(self, position: int, permit: Permit) -> None:
        """Answer a call that does not run: the batch was cancelled, or its reference revoked since it was permitted."""
        if self.answer.cancelled:
            self._failed(position, permit, "cancelled")
            return
        self._refused(position, permit, "revoked", refusal_of(permit, "revoked", permit.rule))
        self._commit()

    def _refused(self, position: int, permit: Permit, code: str, refused: Refused, text: str = "") -> None:
        """Answer a call that was permitted and does not run, and have ``_commit`` record that."""
        reference = self._failed(position, permit, code, text=text)
        self.endpoint.recorder.denied(self.answer.answer_id, refused, reference)

    def _commit(self) -> None:
        try:
            self.endpoint.recorder.commit()
        except AuditError as exc:
            self.unrecorded = exc

    def _raised(self, position: int, permit: Permit, member: Member, exc: Exception) -> None:
        name = type(exc).__name__
        if type(exc) in member.errors:
            self._ended(permit, "declared", name)
            text = self._cut(declared_text(exc))
            self.failures.append(Failure(position, True, "declared", name, text, new_reference()))
            return
        if isinstance(exc, Spent):
            self._failed(position, permit, "limit", REASON, exc.reference)
            return
        reference = self._failed(position, permit, "internal", name)
        self.endpoint.recorder.failed(self.answer, permit, reference, exc)

    def _returned(self, position: int, permit: Permit, member: Member, value: object) -> None:
        try:
            raw = member.signature.encode_result(value, _VALUES_ONLY)
            if is_bounded(permit):
                check_result(permit, raw, len(codec.pack(raw, self.endpoint.session.opening.sends)))
            self.results[position] = raw
        except Exceeded as exc:
            reference = self._failed(position, permit, "limit", exc.reason)
            self.endpoint.recorder.limited(self.answer, permit, exc.reason, exc.rule, reference)
        except (TypeError, ValueError) as exc:
            reference = self._failed(position, permit, "invalid-result", type(exc).__name__)
            self.endpoint.recorder.failed(self.answer, permit, reference, exc)
        else:
            self._ended(permit, "ok", "")

    def _failed(
        self, position: int, permit: Permit, code: str, error: str = "", reference: str = "", text: str = ""
    ) -> str:
        self._ended(permit, code, error)
        reference = reference or new_reference()
        self.failures.append(Failure(position, True, code, "", self._cut(text), reference))
        return reference

    def _ended(self, permit: Permit, outcome: str, error: str) -> None:
        ended(permit)
        if self.endpoint.recorder.wants_outcomes:
            try:
                self.endpoint.recorder.outcome(self.answer, permit, outcome, error)
            except AuditError as exc:
                self.unrecorded = exc
