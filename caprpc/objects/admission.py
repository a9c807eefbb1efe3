"""Who may connect: identity, policies and audit log of one side, reloadable without restart.

Sans I/O but for reading its own files in ``load`` and ``reload``.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Final, NamedTuple

from caprpc.audit import AuditLog, Relation, Witness
from caprpc.bundles import SignedPolicies
from caprpc.contract import InterfaceContract
from caprpc.errors import AuditError, ConfigurationError, IdentityRefused
from caprpc.interface import interface_closure
from caprpc.limits import ServerLimits
from caprpc.objects.epoch import Epoch, Served, read_epoch
from caprpc.objects.grants import Grants
from caprpc.objects.health import Vitals
from caprpc.objects.principals import Principals
from caprpc.objects.rejections import Rejections
from caprpc.peer import PeerIdentity
from caprpc.policy import Guard, Policy, Pools, PrincipalQuotas
from caprpc.tls import TlsChannel, TlsRefused, still_valid, verify_peer

_LOG: Final = logging.getLogger("caprpc")

NOTE_PROBLEMS_S: Final = 3600.0
"""How often the operator is told of a certificate or a revocation list that expires soon."""

MOST_RELATIONS: Final = 64
"""Audit relations opened before their peers come: opening one waits for the disk, and a descriptor is held for each."""

VALIDITY_CHECK_S: Final = 30.0
"""An established connection is checked this often: it ends within 60 s after its certificate has expired."""

_LONG_AGO: Final = float("-inf")


@dataclass(slots=True, eq=False)
class Admitted:
    """A peer that may talk to us, and what decides about it."""

    peer: PeerIdentity
    policy: Policy
    guard: Guard
    relation: Relation
    witness: Witness
    quotas: PrincipalQuotas
    pools: Pools
    connections: int
    """How many connections the principal may have."""
    checked_at: float
    witnessing: bool = False
    """Both sides have agreed to show each other their audit logs."""


class _Reads(NamedTuple):
    """Where identity and policies are read, and whether they are those of a side that accepts connections."""

    identity: Path
    policies: str | Path | SignedPolicies
    accepts: bool


@dataclass(frozen=True, slots=True)
class EndOf:
    """Why an established connection must end: a code of ``CLOSE_CODES`` and the reason for the operator."""

    code: str
    detail: str


class Admission:
    """Admits peers; owns the current epoch and what each principal uses over all its connections. Thread-safe."""

    def __init__(
        self,
        directories: tuple[Path, str | Path | SignedPolicies],
        epoch: Epoch,
        log: AuditLog,
        *,
        accepts: bool,
        served: Served,
        contracts: Mapping[str, InterfaceContract],
        server_limits: ServerLimits,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._reads = _Reads(*directories, accepts)
        self.epoch = epoch
        self.log = log
        self.served = served
        """Nothing on the side that dials."""
        self._contracts = contracts
        self.server_limits = server_limits
        self.wall = wall
        self._rejections = Rejections(log.general)
        self._quotas = Principals(server_limits.argument_bytes)
        self._live: set[Admitted] = set()
        self._lock = threading.Lock()
        self._checked: set[object] = set()
        self._reloading = threading.Lock()
        self.vitals = Vitals(wall())
        self.vitals.note_at = time.monotonic() + NOTE_PROBLEMS_S

    @classmethod
    def load(
        cls,
        identity: Path,
        policies: str | Path | SignedPolicies,
        *,
        audit: Path | None,
        name: str,
        roots: Mapping[str, object],
        contracts: Mapping[str, InterfaceContract],
        server_limits: ServerLimits,
        grants: Grants | None = None,
    ) -> "Admission":
        """Read everything from disk and open the audit log.

        Raises:
            ConfigurationError: Something in the directories is wrong; all of it for policies.
            AuditError: The audit log cannot be opened.
        """
        accepts = name == "server"
        served = Served(roots, grants)
        epoch = read_epoch(identity, policies, contracts, previous=None, served=served if accepts else None)
        log = AuditLog.open(audit or epoch.policies.audit_directory, name=name)
        admission = cls(
            (identity, policies),
            epoch,
            log,
            accepts=accepts,
            served=served,
            contracts=contracts,
            server_limits=server_limits,
        )
        try:
            admission._in_force("loaded")
        except AuditError:
            log.close()
            raise
        return admission

    def admit(self, channel: TlsChannel, hostname: str | None, address: str, expected: str | None) -> Admitted:
        """Return what decides about the peer of a finished handshake.

        Raises:
            IdentityRefused: No policy is for it, or it has too many connections.
        """
        epoch = self.epoch
        now = self.wall()
        peer = verify_peer(
            channel,
            identity=epoch.identity,
            anchors=epoch.policies.anchors,
            hostname=hostname,
            now=now,
            address=address,
        )
        if expected is not None and peer.principal != expected:
            raise IdentityRefused("other-peer", f"{peer.principal} answered, {expected} expected")
        policy = epoch.policies.match(peer, datetime.fromtimestamp(now, UTC))
        out = self.epoch.revoked.current.refuses(peer.principal, peer.leaf_key, policy.name)
        if out:
            raise IdentityRefused("revoked-list", out)
        quotas, pools = self._quotas.of(peer.principal)
        most = policy.connections or self.server_limits.connections_per_principal
        if not quotas.open_connection(most):
            raise IdentityRefused(
                "connections",
                f"{peer.principal} has {most} connections already ([limits] connections, {policy.file})",
            )
        try:
            relation = self.log.relation(peer.principal)
        except AuditError as exc:
            quotas.close_connection()
            raise IdentityRefused("audit", str(exc)) from exc
        witness = self.log.witness(peer.principal)
        guard = Guard(policy, quotas)
        admitted = Admitted(peer, policy, guard, relation, witness, quotas, pools, most, time.monotonic())
        with self._lock:
            self._live.add(admitted)
        newest = self.epoch
        if newest is not epoch:
            # A reload came between: either it has seen us in ``_live``, or we see its epoch here.
            self._narrow(admitted, newest)
            if admitted.guard.closed:
                self.release(admitted)
                raise IdentityRefused("no-policy", f"a reload took away the policy of {peer.principal}")
        return admitted

    def release(self, admitted: Admitted) -> None:
        """Take note that the connection of an admitted peer has ended."""
        with self._lock:
            if admitted in self._live:
                self._live.remove(admitted)
                admitted.quotas.close_connection()

    def rejected(self, address: str, channel: TlsChannel, exc: Exception, reference: str) -> None:
        """Record a peer that was not admitted; the peer itself learns a code and the number."""
        detail = getattr(exc, "detail", str(exc))
        more: dict[str, str] = {"detail": detail}
        if isinstance(exc, TlsRefused) and exc.verify_code:
            more["error"] = f"X509_V_ERR {exc.verify_code}: {exc.verify_message}"
        self._rejections.add(address, getattr(exc, "code", "tls"), reference, time.monotonic(), **more)

    def check_still_valid(self, admitted: Admitted) -> EndOf | None:
        """Return why an established connection must end now, None if it may go on."""
        admitted.checked_at = time.monotonic()
        epoch = self.epoch
        now = self.wall()
        reason = still_valid(admitted.peer, epoch.identity, now)
        if reason is not None:
            code = "expired" if reason == "expired" else "revoked"
            return EndOf(code, f"certificate of {admitted.peer.principal}: {reason}")
        out = self._is_out(admitted)
        if out:
            return EndOf("revoked", out)
        for policy in (admitted.policy, admitted.guard.policy):
            not_after = policy.not_after
            if not_after is not None and now >= not_after.timestamp():
                return EndOf("expired", f"{policy.file}: not_after {not_after.isoformat()} has passed")
        if admitted.guard.closed:
            return EndOf("revoked", f"no policy is for {admitted.peer.principal} any more")
        return None

    def reload(self) -> str:
        """Read identity and policies again; narrow what is live at once. Returns a line that says what is in force.

        Raises:
            ConfigurationError: The new files are wrong; the last good ones stay in force.
        """
        identity, policies, accepts = self._reads
        with self._reloading:
            try:
                epoch = read_epoch(
                    identity,
                    policies,
                    self._contracts,
                    previous=self.epoch.policies,
                    served=self.served if accepts else None,
                )
            except ConfigurationError as exc:
                self.vitals.refused(self.wall(), str(exc))
                self.log.general.record("policy", event="refused", detail=str(exc)[:1000])
                raise
            self.epoch = epoch
            self._checked = set()
            self._end_revoked()
            with self._lock:
                live = list(self._live)
            for admitted in live:
                self._narrow(admitted, epoch)
            self.vitals.loaded(self.wall())
            self._in_force("reloaded")
        return f"policies version {epoch.policies.version}, {len(epoch.policies.policies)} in force"

    def check_contract(self, interface: Callable[..., object]) -> None:
        """Make sure that what is granted and accepted of an interface is what was reviewed.

        Raises:
            PolicyError: A member that our policies name has changed or vanished since.
        """
        if interface in self._checked:
            return
        self.epoch.policies.verify_contracts(interface_closure([interface]), complete=False)
        self._checked.add(interface)

    def listening(self, address: str) -> None:
        """Record where we listen; sturdy references name it."""
        if self.served.grants is not None:
            self.served.grants.listening(address)
        self.log.general.record("open", event="listening", address=address)

    def tick(self, now: float) -> None:
        """Make the audit log last, and say about hourly what expires soon; call it once a second, off the loop.

        Raises:
            AuditError: The log takes no more records.
        """
        if self.epoch.revoked.refresh():
            self._end_revoked()
        self._rejections.tick(now)
        if now >= self.vitals.note_at:
            self.vitals.note_at = now + NOTE_PROBLEMS_S
            self._note_problems()
        try:
            self.log.tick(now)
        except AuditError as exc:
            self.vitals.synced(str(exc))
            raise
        self.vitals.synced("")

    @property
    def peers(self) -> int:
        """How many connections there are whose peer was admitted."""
        return len(self._live)

    def _is_out(self, admitted: Admitted) -> str:
        return self.epoch.revoked.current.refuses(admitted.peer.principal, admitted.peer.leaf_key, admitted.policy.name)

    def _end_revoked(self) -> None:
        """Permit nothing more to whom the list of the revoked names, at once; their connections end at the next tick.

        Raises:
            AuditError: It could not be recorded.
        """
        revoked = self.epoch.revoked.current
        if revoked.fault:
            _LOG.error("everybody is refused, and connections end: %s", revoked.fault)
        event = {"event": "revoked-unreadable", "detail": revoked.fault} if revoked.fault else {"event": "revoked-read"}
        self.log.general.record("revoke", **event, count=len(revoked.entries))
        with self._lock:
            live = list(self._live)
        for admitted in live:
            if self._is_out(admitted):
                admitted.guard.narrow(None)
                admitted.checked_at = _LONG_AGO

    def _narrow(self, admitted: Admitted, epoch: Epoch) -> None:
        """Have a live connection do no more than what the policies of an epoch let it."""
        guard = admitted.guard
        try:
            policy = epoch.policies.match(admitted.peer, datetime.fromtimestamp(self.wall(), UTC))
        except IdentityRefused:
            guard.narrow(None)
        else:
            if policy.digest != guard.policy.digest:
                guard.narrow(policy)

    def _in_force(self, event: str) -> None:
        """Record which policies are in force and what expires soon, and open the relations of the peers they name."""
        policies = self.epoch.policies
        self.log.general.record("policy", event=event, policy=policies.digest, count=len(policies.policies))
        self._note_problems()
        if self._reads.accepts:
            for principal in sorted({name for policy in policies.policies for name in policy.principals})[
                :MOST_RELATIONS
            ]:
                try:
                    self.log.relation(principal)
                except AuditError as exc:
                    # It keeps out the one peer whose records it would hold; the others are not concerned.
                    _LOG.error("%s cannot be admitted: %s", principal, exc)

    def _note_problems(self) -> None:
        for problem in self.epoch.identity.problems(self.wall()):
            _LOG.warning("%s", problem)
            self.log.general.record("policy", event="identity", detail=problem)

    def close(self) -> None:
        """Close the audit log and the store of grants."""
        self._rejections.tick(inf)
        if self.served.grants is not None:
            self.served.grants.close()
        self.log.close()
