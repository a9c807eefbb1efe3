"""Restoring sturdy references: the operation ``restore`` of export 0, for one connection.

Whatever is wrong with what a peer presents, it gets the same bytes after the same work; why, is in the audit log.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from caprpc.ids import OP_RESTORE
from caprpc.interface import ArgumentError
from caprpc.objects.admission import Admission
from caprpc.objects.granting import Wish, grant
from caprpc.objects.handles import Narrowed
from caprpc.objects.roots import RootNames, shape_for
from caprpc.objects.transfer import ResultWriter
from caprpc.policy import Facet, Guard, Permit, Restorable, Right
from caprpc.store import StoredGrant
from caprpc.sturdy import MAX_SECRET_CHARS, digest_of
from caprpc.wire.values import RemoteReference


class NotRestored(Exception):
    """What was presented gives nothing; ``reason`` and ``detail`` are for the audit log alone."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(reason)


class Restored(NamedTuple):
    """An object that a sturdy reference stands for."""

    handle: Narrowed
    facet: Facet


def fault_of(found: StoredGrant | None, name: str, principal: str, rule: Restorable, now: float) -> str:
    """Return why a principal does not get what it has presented, empty if it does. ``now`` is wall time."""
    if found is None:
        return "sturdy-unknown"
    most = rule.max_for_s
    over = most is not None and now >= found.granted_at + most
    faults = (
        ("sturdy-unknown", found.name != name),
        ("sturdy-holder", found.holder not in ("", principal)),
        ("sturdy-bearer", not found.holder and not rule.bearer),
        ("sturdy-revoked", found.revoked_at is not None),
        ("sturdy-expired", over or (found.expires_at is not None and now >= found.expires_at)),
    )
    return next((fault for fault, is_so in faults if is_so), "")


class RestoreMember:
    """The member behind the operation ``restore``: takes the secret, writes the object that it stands for."""

    __slots__ = ()

    name = ""
    operation = OP_RESTORE
    takes_references = False
    scalar_result = None
    result_trees: frozenset[type] = frozenset()
    blocking = True
    """It reads the store, and a restorer may take its time."""
    errors: tuple[type[Exception], ...] = ()
    parameters = ("secret",)

    @property
    def signature(self) -> "RestoreMember":
        """Return itself."""
        return self

    def decode_args(self, raw: Any, _refs: object, *, plain: bool = False) -> tuple[list[object], dict[str, object]]:
        """Return the secret as the one argument; whether it is any is not looked at here.

        Raises:
            ArgumentError: Anything but one text was sent.
        """
        fits = isinstance(raw, list) and len(raw) == 2 and raw[1] == {} and isinstance(raw[0], list)
        if not fits or len(raw[0]) != 1 or type(raw[0][0]) is not str or len(raw[0][0]) > MAX_SECRET_CHARS:
            raise ArgumentError("", f"one text of at most {MAX_SECRET_CHARS} characters: the secret")
        return raw[0], {}

    def encode_result(self, restored: Restored, writer: ResultWriter) -> RemoteReference:
        """Export the object.

        Raises:
            TypeError: Its class does not implement the interface of the facet.
        """
        obj = restored.handle._caprpc_source
        shape = shape_for(obj, restored.facet.interface)
        if shape is None:
            rule = restored.facet.permits.rule
            made = type(obj).__name__
            raise TypeError(f"{made} does not implement {restored.facet.interface}, which {rule} grants")
        return writer.hand_over(restored.handle, shape, restored.facet)


RESTORE_MEMBER: Final = RestoreMember()
"""One for all connections: drivers remember members."""


class Restoring:
    """Restores what one peer presents on one connection, and grants to it what a method asks for."""

    __slots__ = ("_admission", "_guard", "_principal", "_record", "_rights", "_roots")

    def __init__(
        self, admission: Admission, guard: Guard, principal: str, roots: RootNames, record: Callable[..., None]
    ) -> None:
        """Take what decides, the roots of the connection, and what writes a fact into its audit log."""
        self._admission = admission
        self._guard = guard
        self._principal = principal
        self._rights: dict[str, Right] = {}
        """By grant: restoring the same object twice gives the same reference."""
        self._roots = roots
        self._record = record

    def restore(self, permit: Permit, secret: str) -> Restored:
        """Return what a secret stands for; runs on a thread that may wait.

        Raises:
            NotRestored: It stands for nothing that this peer may have now.
            StoreError: The store cannot be read.
            AuditError: It could not be recorded.
        """
        grants, rule = self._admission.served.grants, self._guard.restores.get(permit.member)
        now = time.monotonic()
        if grants is None or rule is None or not grants.may_guess(self._principal, now):
            raise NotRestored("guesses" if grants is not None and rule is not None else "sturdy-unknown")
        wall = self._admission.wall()
        found = grants.find(digest_of(secret))
        fault = fault_of(found, permit.member, self._principal, rule, wall)
        right = None if found is None or fault else grants.right_of(found, wall, now)
        if found is None or right is None:
            grants.guessed(self._principal, now)
            # Without a fault it was revoked while it was looked at.
            raise NotRestored(fault or "sturdy-revoked", "" if found is None else f"grant {found.grant_id}")
        self._record("grant", event="restored", member=found.name, rule=permit.rule, reference=found.grant_id)
        restorer = grants.restorers.get(found.name)
        obj = self._roots.get(found.name) if restorer is None else restorer(found.key)
        return Restored(Narrowed(obj, self._within(right, found, rule, wall, now)), self._guard.facet(permit.facet))

    def _within(self, right: Right, found: StoredGrant, rule: Restorable, wall: float, now: float) -> Right:
        """Return the right of a grant, for as long as the policy of this peer lets it last; the same one each time."""
        known = self._rights.get(found.grant_id)
        if known is not None and right in known.lineage and not known.refusal(now):
            return known
        if rule.max_for_s is not None:
            right = Right((right,), expires_at=now + found.granted_at + rule.max_for_s - wall)
        self._rights[found.grant_id] = right
        return right

    def grant(self, target: object, *, key: str, only: Iterable[str] | None, for_s: float | None) -> str:
        """Grant to this peer, and return the sturdy reference."""
        wish = Wish(target, key, self._principal, only=only, for_s=for_s)
        return grant(self._admission, wish, by=f"a method for {self._principal}")
