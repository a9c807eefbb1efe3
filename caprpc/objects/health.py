"""How a server is: what is in force, what failed, what ends soon. For its operator; no peer can ask."""

import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from caprpc.policy import PolicySet
from caprpc.tls import Identity

if TYPE_CHECKING:
    from caprpc.objects.admission import Admission

State = Literal["ok", "attention", "failing"]

_MOST_TEXT: Final = 1_000
"""Characters of a problem that are kept."""


@dataclass(frozen=True, slots=True)
class FailedReload:
    """A reload that was refused; what had been in force stayed so."""

    at: datetime
    problem: str


@dataclass(frozen=True, slots=True)
class PolicyHealth:
    """The policies in force."""

    directory: str
    version: int
    digest: str
    policies: int
    since: datetime
    """When they were loaded, or found unchanged by a reload."""
    failed_reload: FailedReload | None
    """The last one that was refused since then; None: nothing newer was refused."""


@dataclass(frozen=True, slots=True)
class AuditHealth:
    """The audit log."""

    directory: str
    faults: tuple[str, ...]
    """Why records are not taken, or not signed; calls whose record cannot be written do not happen."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """Something that peers or we stop accepting at a moment."""

    what: str
    at: datetime | None
    """None: it is missing, such as a revocation list."""


@dataclass(frozen=True, slots=True)
class Health:
    """How a server is, at one moment.

    Attributes:
        state: ``ok``; ``attention``: it serves, and someone should look; ``failing``: peers or calls are refused.
        problems: One sentence each, the reasons for the state; empty if it is ``ok``.
        connections: Connections, those among them whose peer is not known yet.
        peers: Connections whose peer has proved who it is.
    """

    state: State
    problems: tuple[str, ...]
    at: datetime
    addresses: tuple[str, ...]
    connections: int
    peers: int
    policy: PolicyHealth
    audit: AuditHealth
    expiries: tuple[Expiry, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as values that JSON has; moments as ISO 8601 in UTC."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


class Vitals:
    """What happened to one side that its epoch and its log do not say. Thread-safe."""

    def __init__(self, now: float) -> None:
        self._lock = threading.Lock()
        self._since = now
        self._failed: tuple[float, str] | None = None
        self._sync_fault = ""
        self.note_at = 0.0
        """Seconds of the monotonic clock when the operator is told of problems again."""

    def loaded(self, now: float) -> None:
        """Policies have come into force."""
        with self._lock:
            self._since, self._failed = now, None

    def refused(self, now: float, problem: str) -> None:
        """A reload was refused."""
        with self._lock:
            self._failed = (now, problem[:_MOST_TEXT])

    def synced(self, fault: str) -> None:
        """The log was made to last and signed, or could not be."""
        self._sync_fault = fault

    def policy(self, policies: PolicySet) -> PolicyHealth:
        """Return the state of the policies."""
        with self._lock:
            since, failed = self._since, self._failed
        return PolicyHealth(
            directory=str(policies.directory),
            version=policies.version,
            digest=policies.digest,
            policies=len(policies.policies),
            since=_moment(since),
            failed_reload=None if failed is None else FailedReload(_moment(failed[0]), failed[1]),
        )

    def audit(self, directory: str, faults: tuple[str, ...]) -> AuditHealth:
        """Return the state of the log."""
        fault = self._sync_fault
        return AuditHealth(directory, faults if not fault or fault in faults else (*faults, fault))


def health_of(admission: "Admission", addresses: list[str], connections: int) -> Health:
    """Return how the server of an admission is."""
    epoch, now = admission.epoch, admission.wall()
    policy = admission.vitals.policy(epoch.policies)
    audit = admission.vitals.audit(str(admission.log.directory), admission.log.faults())
    expiries = tuple(_expiries(epoch.identity))
    failing = [*audit.faults, *filter(None, [epoch.revoked.current.fault])]
    failing += [_ended(one) for one in expiries if one.at is None or now >= one.at.timestamp()]
    attention = [problem for problem in epoch.identity.problems(now) if " expires on " in problem]
    if policy.failed_reload is not None:
        when = policy.failed_reload.at.strftime("%Y-%m-%d %H:%M:%SZ")
        attention.append(
            f"the reload of {when} was refused, version {policy.version} stays in force: {policy.failed_reload.problem}"
        )
    return Health(
        state="failing" if failing else "attention" if attention else "ok",
        problems=(*failing, *attention),
        at=_moment(now),
        addresses=tuple(addresses),
        connections=connections,
        peers=admission.peers,
        policy=policy,
        audit=audit,
        expiries=expiries,
    )


def _expiries(identity: Identity) -> list[Expiry]:
    found = [Expiry("our certificate", _moment(identity.leaf.not_after))]
    for authority in identity.authorities.values():
        found.append(Expiry(f"the CA certificate of {authority.name}", _moment(authority.not_after)))
        current = identity.revocation.of(authority.name)
        ends = None if current is None else _moment(current.next_update)
        found.append(Expiry(f"the revocation list of {authority.name}", ends))
    return found


def _ended(expiry: Expiry) -> str:
    if expiry.at is None:
        return f"{expiry.what} is missing: its peers are refused"
    return f"{expiry.what} expired on {expiry.at.strftime('%Y-%m-%d %H:%M:%SZ')}: its peers are refused"


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, datetime) else value
