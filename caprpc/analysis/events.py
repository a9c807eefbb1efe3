"""The decisions that a log holds, and whose policy each of them was made under.

A policy is for a SPIFFE ID under the key of a CA: two policies may name the same ID for different CAs. Records of calls
name the peer alone; the CA is in the record of the connection that they came on.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from caprpc.audit import Entry
from caprpc.audit.reader import Record
from caprpc.ids import OPERATION_NAMES
from caprpc.policy import Key, Policy, PolicySet

_CODES: Final = {name: code for code, name in OPERATION_NAMES.items()}


@dataclass(frozen=True, slots=True)
class Event:
    """One decision that a log holds."""

    peer: str
    facet: str
    key: Key
    permitted: bool
    reason: str
    at: float
    """Seconds since 1970."""
    policy: str
    args: Mapping[str, str]
    """Arguments that the policy had recorded, as texts."""
    reference: str
    anchor: str = ""
    """The key of the CA that vouched for the peer; empty if the log does not hold the opening of the connection."""


def event_of(record: Record, anchor: str = "") -> Event | None:
    """Return the decision that a record holds, or None if it is about something else."""
    code = _CODES.get(record.text("operation"))
    if record.text("kind") != "decision" or code is None:
        return None
    args = record.fields.get("args")
    return Event(
        peer=record.text("peer"),
        facet=record.text("facet"),
        key=(code, record.text("member")),
        permitted=record.text("decision") == "permit",
        reason=record.text("reason"),
        at=datetime.fromisoformat(record.text("time")).timestamp(),
        policy=record.text("policy"),
        args={str(name): str(value) for name, value in args.items()} if isinstance(args, dict) else {},
        reference=record.text("reference"),
        anchor=anchor,
    )


def events_in(entries: Iterable[Entry]) -> Iterator[tuple[Entry, Event]]:
    """Yield the decisions among the entries of a whole log, each with the CA of its connection."""
    anchors: dict[str, str] = {}
    for entry in entries:
        record = entry.record
        if record is None:
            continue
        kind, connection = record.text("kind"), record.text("connection")
        if kind == "open" and connection:
            anchors[connection] = record.text("anchor")
        elif kind == "close":
            anchors.pop(connection, None)
        elif (event := event_of(record, anchors.get(connection, ""))) is not None:
            yield entry, event


class Owners:
    """Finds the policy of a peer by what a log says of it."""

    def __init__(self, policies: PolicySet) -> None:
        self._named: dict[str, list[Policy]] = {}
        for policy in policies.policies:
            for principal in policy.principals:
                self._named.setdefault(principal, []).append(policy)

    def of(self, event: Event) -> tuple[Policy, ...]:
        """Return the policy under which the peer of an event falls, or none.

        Several, if they name the same SPIFFE ID and the log says neither the CA nor the digest of one of them.
        """
        named = self.named(event.peer)
        if event.anchor:
            return tuple(policy for policy in named if event.anchor in policy.anchors)
        return tuple(policy for policy in named if policy.digest == event.policy) or named

    def named(self, principal: str) -> tuple[Policy, ...]:
        """Return the policies that name a SPIFFE ID, whatever the CA."""
        return tuple(self._named.get(principal, ()))
