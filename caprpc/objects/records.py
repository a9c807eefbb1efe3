"""What the audit log gets to know of calls: decisions, refusals, failures, outcomes.

Decisions are added as calls are checked and written with one ``commit`` before any of them runs.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from traceback import extract_tb
from types import NoneType
from typing import Any, Final, Literal
from uuid import UUID

from caprpc.audit import NO_EXTRA, DurableRelation, Extra, Redactor, Relation, Template, extra
from caprpc.errors import AuditError, CapRPCError, printable
from caprpc.ids import OPERATION_NAMES
from caprpc.interface import Member, Mismatch
from caprpc.objects.failures import FailureLog
from caprpc.objects.forwarding import Forwarder
from caprpc.policy import Permit, Refused
from caprpc.session import Answer, BatchAnswer, Export
from caprpc.wire.codec import pack

_LARGE: Final = 1 << 512
"""Larger integers are not spelled out: ``str`` of more than 4,300 digits raises."""

_MOST_DENIALS: Final = 256
"""Refusals that differ in more than their number, for one connection: a flood of one hides none of the others."""


class Recorder:
    """Writes the records of one connection; templates are made once for each permit."""

    __slots__ = (
        "_decided",
        "_denials",
        "_outcomes",
        "_principal",
        "_records",
        "_redactor",
        "_relation",
        "connection_id",
        "failures",
        "wants_decisions",
        "wants_outcomes",
    )

    def __init__(
        self,
        relation: Relation | DurableRelation,
        principal: str,
        level: Literal["deny", "decision", "outcome"],
        redactor: Redactor | None = None,
    ) -> None:
        self._relation = relation
        self._redactor = redactor
        self._principal = principal
        self._records: list[tuple[Template, int, Extra]] = []
        self.wants_decisions = level != "deny"
        self.wants_outcomes = level == "outcome"
        self._decided: dict[Permit, Template] = {}
        self._denials: dict[tuple[object, ...], Template] = {}
        self._outcomes: dict[tuple[Permit, str, str], Template] = {}
        self.connection_id = ""
        self.failures = FailureLog(principal)
        """Failures of our own methods, with their traceback, for the operator; nothing of the peer but its name."""

    def permitted(
        self,
        answer: Answer | BatchAnswer,
        permit: Permit,
        member: Member | None,
        args: list[Any],
        kwargs: dict[str, Any],
        route: str = "",
    ) -> None:
        """Add the decision for a call that will run; only if ``wants_decisions``.

        ``route`` says on whose behalf the peer calls, or to whom we pass the call on.
        """
        template = self._decided.get(permit)
        if template is None and permit.origin is not None:
            # A derived reference comes and goes; what is kept is that of the policy's own permit.
            self.permitted(answer, permit.origin, member, args, kwargs, route)
            return
        template = template or self._decision(permit)
        more = NO_EXTRA
        if member is not None and (permit.record or (self._redactor is not None and (args or kwargs))):
            more = self._arguments(answer.answer_id, permit, member.signature.named(args, kwargs), route)
        elif route:
            more = extra(detail=route)
        self._records.append((template, answer.answer_id, more))

    def permitted_alike(self, answer: BatchAnswer, permit: Permit, calls: int, route: str) -> None:
        """Add one decision for each of some calls whose arguments are not recorded; only if ``wants_decisions``."""
        permit = permit.origin or permit
        template = self._decided.get(permit) or self._decision(permit)
        self._records += [(template, answer.answer_id, extra(detail=route) if route else NO_EXTRA)] * calls

    def _decision(self, permit: Permit) -> Template:
        template = self._decided[permit] = self._relation.template(
            kind="decision",
            peer=self._principal,
            connection=self.connection_id,
            facet=permit.facet,
            operation=OPERATION_NAMES[permit.operation],
            member=permit.member,
            decision="permit",
            rule=permit.rule,
            policy=permit.policy,
        )
        return template

    def _arguments(self, question: int, permit: Permit, named: Mapping[str, Any], route: str) -> Extra:
        """Encode what a record says of arguments: in clear what the policy records, else at most a digest."""
        shown = {name: _clear(named[name]) for name in sorted(permit.record) if name in named}
        if self._redactor is not None:
            for name in sorted(named.keys() - permit.record):
                try:
                    shown[name] = self._redactor.digest(pack(named[name]), self.connection_id, question, name)
                except (TypeError, ValueError):
                    # A reference has no value; what was lent is in the connection's tables.
                    shown[name] = f"<{type(named[name]).__name__}>"
        fields: dict[str, Any] = {"args": shown} if shown else {}
        return extra(**fields, detail=route) if route else extra(**fields)

    def denied(self, question: int, refused: Refused, reference: str) -> None:
        """Add the record of a refusal; a flood of equal ones is counted by the log."""
        key: tuple[object, ...] = (refused.facet, refused.operation, refused.member, refused.reason, refused.rule)
        template = self._denials.get(key)
        if template is None:
            if len(self._denials) >= _MOST_DENIALS:
                # So many different refusals are made up: those behind them are counted together. Each record still
                # has its own member, as long as they are written one by one.
                key = (refused.facet, refused.reason, refused.rule)
            template = self._denials.get(key)
        if template is None:
            template = self._denials[key] = self._relation.template(
                kind="decision",
                peer=self._principal,
                connection=self.connection_id,
                facet=refused.facet,
                decision="deny",
                reason=refused.reason,
                rule=refused.rule,
                policy=refused.policy,
            )
        # The member is the peer's text: outside the template, so that a flood of made-up names is counted as one.
        more = {
            "operation": OPERATION_NAMES[refused.operation],
            "member": printable(refused.member, 128),
            "reference": reference,
        }
        if refused.detail:
            more["detail"] = refused.detail
        self._records.append((template, question, extra(**more)))

    def commit(self) -> None:
        """Write what was added.

        Raises:
            AuditError: It could not be written; nothing of it may run.
        """
        records = self._records
        if records:
            self._records = []
            self._relation.write(records)

    def failed(self, answer: Answer | BatchAnswer, permit: Permit, reference: str, exc: BaseException) -> None:
        """Record why a permitted call ended in an error that the peer sees as a code and a number only.

        If a call of ours has caused it, our own caller is told, too: it is our object that failed.
        """
        called = f"{permit.facet}.{permit.member}" if permit.member else permit.facet
        if answer.cause is not None:
            answer.cause.local_failure = (
                f"while serving {called} ({OPERATION_NAMES[permit.operation]}) on your lent object: "
                f"{type(exc).__name__}: {printable(str(exc), 512)} (reference number {reference})"
            )
        operation = OPERATION_NAMES[permit.operation]
        self.failures.add(f"{called} ({operation})", exc, reference)
        self._try_fact(
            "outcome",
            facet=permit.facet,
            operation=operation,
            member=permit.member,
            question=answer.answer_id,
            outcome="error",
            error=type(exc).__name__,
            detail=_reason(exc),
            reference=reference,
        )

    def limited(self, answer: Answer | BatchAnswer, permit: Permit, reason: str, rule: str, reference: str) -> None:
        """Record that a limit of the policy has stopped a permitted call, or kept its result back."""
        self._try_fact(
            "limit",
            facet=permit.facet,
            operation=OPERATION_NAMES[permit.operation],
            member=permit.member,
            reason=reason,
            rule=rule,
            policy=permit.policy,
            question=answer.answer_id,
            reference=reference,
        )

    def passed_on(self, permit: Permit, chain: tuple[str, ...], answer: Answer) -> None:
        """Record that the peer passes a reference on, and to whom, before it may be used."""
        detail = printable(f"passed on to {' and on to '.join(chain)}", 512)
        self.fact("grant", facet=permit.facet, rule=permit.rule, question=answer.answer_id, detail=detail)

    def revoked(self, ended: list[Export]) -> None:
        """Record that references of ours have ended before their time, for each facet how many."""
        for facet, count in Counter(export.facet.name for export in ended).items():
            self._try_fact("revoke", facet=facet, count=count)

    def outcome(self, answer: Answer | BatchAnswer, permit: Permit, outcome: str, error: str) -> None:
        """Record how a call ended, at level ``outcome``."""
        key = (permit.origin or permit, outcome, error)
        template = self._outcomes.get(key)
        if template is None:
            template = self._outcomes[key] = self._relation.template(
                kind="outcome",
                peer=self._principal,
                connection=self.connection_id,
                facet=permit.facet,
                operation=OPERATION_NAMES[permit.operation],
                member=permit.member,
                outcome=outcome,
                error=error,
                policy=permit.policy,
            )
        self._relation.append(template, answer.answer_id)

    def _try_fact(self, kind: str, **fields: str | int) -> None:
        """Write a fact of a call whose reply tells the peer nothing but a code and a number."""
        try:
            self.fact(kind, **fields)
        except AuditError as exc:
            # The reply goes out all the same: it tells that something failed, and the next call is not permitted.
            self.unrecorded(f"what has happened ({kind})", exc, str(fields.get("reference", "no reference number")))

    def unrecorded(self, what: str, exc: AuditError, reference: str) -> None:
        """Tell the operator that the audit log took no record: a peer can have that happen as often as it calls."""
        self.failures.add(f"recording {what}", exc, reference)

    def fact(self, kind: str, **fields: str | int) -> None:
        """Write any other fact of this connection now."""
        self._relation.record(kind, peer=self._principal, connection=self.connection_id, **fields)


def route_of(export: Export, obj: object) -> str:
    """Return for whom a peer makes a call, as it has told us, and whose object it leads to if that is not ours."""
    right = export.right
    if right is None:
        return ""
    told = [f"for {' for '.join(right.chain)}"] if right.chain else []
    if isinstance(obj, Forwarder):
        told.append(f"on an object of {obj.holder}")
    return printable(", ".join(told), 512)


def _reason(exc: BaseException) -> str:
    """Return why a method failed, without what it was called with: texts of foreign exceptions may hold arguments."""
    if isinstance(exc, CapRPCError | Mismatch):
        return printable(str(exc), 512)
    frames = extract_tb(exc.__traceback__)
    if not frames:
        return "raised where no trace was left"
    last = frames[-1]
    return printable(f"raised in {last.name}, {Path(last.filename).name}:{last.lineno}", 512)


def _clear(value: object) -> str:
    """Return an argument as the text that the log keeps of it; containers are shown by their type alone."""
    if type(value) in (str, int, float, bool, NoneType) and (type(value) is not int or abs(value) < _LARGE):
        return printable(str(value), 128)
    if isinstance(value, Decimal | UUID | date | time | timedelta):
        return printable(str(value), 128)
    return f"<{type(value).__name__}>"
