"""Calls we make: our policy is asked, arguments are checked and written, answers are read as declared."""

from typing import Any, Final

from caprpc.errors import (
    CallRefused,
    Denied,
    LimitExceeded,
    RemoteProtocolError,
    printable,
)
from caprpc.ids import IMPLICIT_OPERATIONS, OP_RESTORE, OP_ROOT, OPERATION_NAMES
from caprpc.interface import Member, Mismatch, NoReferences, ResultError, Shape
from caprpc.limits import Limits, lower_limits
from caprpc.objects.answered import error_of_answer
from caprpc.objects.batch_results import results_of
from caprpc.objects.promises import Promised, failed_step, steps_before
from caprpc.objects.stubs import Flavor, dead_reference
from caprpc.objects.transfer import ArgumentWriter, Reader, StubMaker
from caprpc.policy import grant_line
from caprpc.session import FEATURE_PIPELINE, Announced, Export, Import, Origin, Question, Session
from caprpc.wire import codec
from caprpc.wire.messages import LIFETIME_CONNECTION, BatchReturn, Raise, Return, Run
from caprpc.wire.pieces import check_pieces
from caprpc.wire.values import RemoteReference

AnyArguments = tuple[tuple[object, ...], dict[str, object]]
"""Arguments of one call, by position and by name."""

_ENDED: Final = frozenset({"denied", "revoked"})
"""What a peer answers to a call on a reference that it has ended; which of them depends on how far the call was."""

_VALUES_ONLY: Final = NoReferences()

AnyCall = tuple[Import, Member, tuple[object, ...], dict[str, object]]
"""Target, member, arguments by position and by name."""

_NOTHING: Final[list[Export]] = []
"""Handed over by calls that pass no reference; shared and never changed."""

_NO_OPERATIONS: Final = Announced(0, "Roots", frozenset(), LIFETIME_CONNECTION)


class Outgoing:
    """Makes the questions of one connection and reads their answers. The driver holds the connection's lock."""

    __slots__ = ("_connection", "_root", "_session", "_stubs")

    def __init__(self, session: Session, stubs: StubMaker, connection: object) -> None:
        self._session = session
        self._connection = connection
        self._stubs = stubs
        imports = session.imports
        self._root = Import(0, _NO_OPERATIONS, session.peer.principal, imports.dropped)

    def ask(
        self,
        target: Import,
        member: Member,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        origin: Origin | None,
    ) -> Question:
        """Ask the peer for one operation.

        Raises:
            CallRefused: Our policy does not let us make this call, or pass one of the objects.
            DeadlineExceeded: The time for it is over; nothing was sent.
            Denied: The peer has not offered this operation; nothing was sent.
            ReferenceDead: The reference is dead.
            TypeError: The arguments do not fit the declaration.
        """
        session = self._session
        rights = target.announced.rights
        accepts = session.guard.accepts
        if not target.alive or target.right or rights.get((member.operation, member.name)) is not accepts:
            self._check(target, member)
        signature = member.signature
        if not kwargs:
            payload = None
            if tuple(map(type, args)) == signature.scalars:
                try:
                    payload = codec.pack_scalars((args, kwargs), session.opening.sends)
                except ValueError as exc:
                    self._name_limits_of_peer(exc)
                    raise
            elif signature.arg_trees is not None and signature.passes(args):
                payload = codec.pack_plain_call(args, session.opening.sends)
            if payload is not None:
                question = session.ask(target, member.operation, member.name, payload, _NOTHING, None, origin)
                if signature.returns_references:
                    question.homes = {}
                return question
        writer = ArgumentWriter(session, target, member.name, self._connection)
        try:
            payload = codec.pack_payload(signature.encode_args(args, kwargs, writer), session.opening.sends)
            question = session.ask(
                target, member.operation, member.name, payload, writer.handed_over, writer.scope, origin
            )
            if signature.returns_references:
                question.homes = {}
            return question
        except BaseException as exc:
            session.exports.take_back(writer.handed_over)
            if isinstance(exc, ValueError):
                self._name_limits_of_peer(exc)
            raise

    def _name_limits_of_peer(self, exc: ValueError) -> None:
        """Say which limits are the peer's: a value that is refused here may be within our own."""
        session = self._session
        lower = lower_limits(session.limits, session.opening.peer_limits.values)
        if lower:
            named = ", ".join(f"its limits.{knob} is {most}" for knob, most in lower.items())
            exc.add_note(f"the peer {printable(session.peer.principal)} takes less: {named}")

    def ask_kept(
        self,
        target: Import,
        member: Member,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        origin: Origin | None,
    ) -> Question:
        """Ask for one operation whose result, a reference, is to be called before it is here.

        Raises:
            As ``ask``, and LimitExceeded: More answers must come one after the other than may (pipeline_depth).
        """
        session = self._session
        self._check(target, member)
        if FEATURE_PIPELINE not in session.opening.features:
            raise CallRefused(
                f"{printable(session.peer.principal)} takes no calls on promises: await each step (caprpc.pipe)"
            )
        writer = ArgumentWriter(session, target, member.name, self._connection)
        try:
            payload = codec.pack(member.signature.encode_args(args, kwargs, writer), session.opening.sends)
            lent = (writer.handed_over, writer.scope)
            question = session.ask_kept(target, member.operation, member.name, payload, lent, origin)
        except BaseException:
            session.exports.take_back(writer.handed_over)
            raise
        question.homes = {}
        return question

    def ask_root(self, name: str, origin: Origin | None = None) -> Question:
        """Ask the peer for a root."""
        payload = codec.pack([[], {}], self._session.limits)
        return self._session.ask(self._root, OP_ROOT, name, payload, [], None, origin)

    def ask_restore(self, name: str, secret: str, origin: Origin | None = None) -> Question:
        """Ask the peer for what a sturdy reference stands for."""
        payload = codec.pack([[secret], {}], self._session.limits)
        return self._session.ask(self._root, OP_RESTORE, name, payload, [], None, origin)

    def ask_batch(self, calls: list[AnyCall], origin: Origin | None = None) -> Question:
        """Ask for many operations in one frame; arguments and results are values, no references.

        Raises:
            CallRefused, Denied, ReferenceDead, TypeError: As for ``ask``; nothing of the batch was sent.
        """
        limits = self._session.opening.sends
        runs: list[tuple[Import, Member, list[AnyArguments]]] = []
        last: tuple[Import | None, Member | None] = None, None
        for target, member, args, kwargs in calls:
            if target is not last[0] or member is not last[1]:
                self._check(target, member)
                runs.append((target, member, []))
                last = target, member
            runs[-1][2].append((args, kwargs))
        packed = [
            Run(target.export_id, member.operation, member.name, len(those), _pack_calls(member, those, limits))
            for target, member, those in runs
        ]
        check_pieces([run.payload for run in packed], limits)
        return self._session.ask_batch(packed, origin)

    def conclude(self, question: Question, member: Member, flavor: Flavor) -> Any:
        """Return the result of an ended question, or raise what it ended with.

        Raises:
            RemoteError: The peer answered with an error; a declared one is raised as the interface's own class.
            ConnectionLost: The connection ended first.
            RemoteProtocolError: The answer cannot be read; the connection ends.
        """
        outcome = question.outcome
        if type(outcome) is Return:
            session = self._session
            try:
                try:
                    raw, plain = codec.unpack_tree(outcome.payload, session.limits, session.limits.message_references)
                except LimitExceeded:
                    session.discard(question)
                    raise
                if not member.signature.returns_references:
                    return member.signature.decode_result(raw, _VALUES_ONLY, plain=plain)
                target = question.target
                through = (None, ()) if target is None else (target.right, target.chain)
                scope = None if target is None else target.scope
                reader = Reader(session, self._stubs, flavor, scope, question.homes, *through)
                try:
                    return member.signature.decode_result(raw, reader)
                except (ResultError, LimitExceeded):
                    session.imports.give_back(reader.received)
                    session.discard(question)
                    raise
            except RemoteProtocolError as exc:
                session.broken(str(exc))
                raise
        raise self.error_of(question, member)

    def conclude_root(self, question: Question, name: str, shape: Shape, flavor: Flavor, what: str = "root") -> Any:
        """Return the stub of a root, or of something restored, or raise what the question ended with."""
        outcome = question.outcome
        if not isinstance(outcome, Return):
            raise self._refused_while(question, f"for its {what} {name!r}")
        session = self._session
        reader = Reader(session, self._stubs, flavor, None)
        try:
            raw = codec.unpack(outcome.payload, session.limits)
            if not isinstance(raw, RemoteReference):
                raise RemoteProtocolError(f"{what} {name!r} is not a reference")
            try:
                return reader.read(raw, shape)
            except (Mismatch, LimitExceeded) as exc:
                session.imports.give_back(reader.received)
                session.discard(question)
                if isinstance(exc, LimitExceeded):
                    raise
                raise ResultError(f"{what} {name}", shape.name, exc) from exc
        except RemoteProtocolError as exc:
            session.broken(str(exc))
            raise

    def conclude_roots(self, question: Question) -> dict[str, str]:
        """Return the names of the roots that the peer lets us ask for, each with its interface; printable all."""
        outcome = question.outcome
        if not isinstance(outcome, Return):
            raise self._refused_while(question, "which roots there are for us")
        session = self._session
        try:
            listed = codec.unpack(outcome.payload, session.limits)
            if type(listed) is not dict or not all(_is_name(name) for pair in listed.items() for name in pair):
                raise RemoteProtocolError("a list of roots that is not names of roots and of their interfaces")
        except RemoteProtocolError as exc:
            session.broken(str(exc))
            raise
        return dict(sorted(listed.items()))

    def conclude_batch(self, question: Question, members: list[Member]) -> list[Any]:
        """Return the results of a batch in order; a failed call has its exception in its place."""
        outcome = question.outcome
        if not isinstance(outcome, BatchReturn):
            raise self.error_of(question, None)
        try:
            values = results_of(outcome, len(members), self._session.limits)
        except RemoteProtocolError as exc:
            self._session.broken(str(exc))
            raise
        alike = not outcome.failures and len(set(members)) == 1
        if alike and set(map(type, values)) == {members[0].signature.scalar_result}:
            # Every result is the scalar that the one member returns: there is nothing to decode.
            return values
        failed = {failure.position: failure for failure in outcome.failures}
        results: list[Any] = []
        for position, (raw, member) in enumerate(zip(values, members, strict=True)):
            failure = failed.get(position)
            if failure is not None:
                results.append(error_of_answer(failure, member, self._session.peer.principal))
                continue
            try:
                results.append(member.signature.decode_result(raw, _VALUES_ONLY))
            except ResultError as exc:
                results.append(exc)
        return results

    def _refused_while(self, question: Question, asking: str) -> Exception:
        error = self.error_of(question, None)
        error.add_note(f"while asking {printable(self._session.peer.principal)} {asking}")
        return error

    def error_of(self, question: Question, member: Member | None) -> Exception:
        """Return the exception that an ended question is to be raised as."""
        outcome = question.outcome
        if isinstance(outcome, Raise):
            target = question.target
            if target is not None and target.revoked and outcome.code in _ENDED:
                return dead_reference(target)
            if outcome.code == "broken":
                error = self._broken(question, outcome, member)
            else:
                error = error_of_answer(outcome, member, self._session.peer.principal)
            if question.local_failure:
                error.add_note(question.local_failure)
            return error
        if isinstance(outcome, Exception):
            return outcome
        return RemoteProtocolError("the peer answered with a message of another kind")

    def _broken(self, question: Question, outcome: Raise, member: Member | None) -> Exception:
        """Return the error of the step that has failed, on whose answer this call was made."""
        failed = failed_step(question)
        if failed is None or failed.question is None or not isinstance(failed.question.outcome, Raise | Exception):
            return error_of_answer(outcome, member, self._session.peer.principal)
        error = self.error_of(failed.question, failed.member)
        here = member.name or OPERATION_NAMES[member.operation] if member is not None else "a call"
        name = failed.member.name or OPERATION_NAMES[failed.member.operation]
        error.add_note(f"the step {name} of a pipeline has failed; {here}, which stands on its result, did not run")
        return error

    def _check(self, target: Import, member: Member) -> None:
        if isinstance(target, Promised):
            self._check_promise(target)
        announced = target.announced
        key = (member.operation, member.name)
        if announced.rights.get(key) is not self._session.guard.accepts:
            self._check_right(announced, key)
        if not target.alive or (target.right is not None and target.right.refusal(self._session.now)):
            raise dead_reference(target)

    def _check_promise(self, target: Promised) -> None:
        question = target.question
        if question is None:
            raise CallRefused(f"{target.member.name}: this step could not be sent, and so no call on its result can")
        if question.has_ended and not isinstance(question.outcome, Return):
            raise self.error_of(question, target.member)
        most = self._session.limits.pipeline_depth
        if steps_before(target) > most:
            raise LimitExceeded(f"a call that waits for more than {most} answers in a row (limits.pipeline_depth)")

    def _check_right(self, announced: Announced, key: tuple[int, str]) -> None:
        operation, name = OPERATION_NAMES[key[0]], key[1]
        called = f"{announced.interface}.{name}" if name else f"{announced.interface} ({operation})"
        if key[0] in IMPLICIT_OPERATIONS:
            return
        if key not in announced.operations:
            raise Denied(
                f"{called}: the peer {printable(self._session.peer.principal)} does not offer this; nothing was sent",
                code="denied",
                peer=self._session.peer.principal,
            )
        accepts = self._session.guard.accepts
        if (announced.interface, *key) not in accepts:
            raise CallRefused(
                f"{called}: our policy {self._session.guard.policy.file} does not let us make this call; to allow it "
                f"add under [accept.{announced.interface}]: {grant_line(*key)}"
            )
        # Under what was in force when it was looked up: a reload in between leaves behind what is known to be old.
        if announced.facet_id:
            # Not of a promise, which is to be checked for each call on it.
            announced.rights[key] = accepts


def _is_name(text: object) -> bool:
    """Whether a text of the peer is a name that a policy could hold: nothing in it can steer a terminal."""
    return type(text) is str and text.isascii() and text.isidentifier() and not text.startswith("_")


def _pack_calls(member: Member, calls: list[AnyArguments], limits: Limits) -> bytes:
    """Return the arguments of a run of calls.

    Raises:
        TypeError: Some do not fit the declaration.
    """
    signature = member.signature
    scalars = signature.scalars
    if scalars is not None and all(not kwargs and tuple(map(type, args)) == scalars for args, kwargs in calls):
        return codec.pack_scalar_calls(calls, limits)
    return codec.pack([signature.encode_args(args, kwargs, _VALUES_ONLY) for args, kwargs in calls], limits)
