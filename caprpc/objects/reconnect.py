"""Connecting again after a loss: when, what is acquired again, and which calls may be made again.

Sans I/O: the drivers dial, wait and call.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol
from weakref import ref

from caprpc.errors import CapRPCError, ConfigurationError, ConnectionLost, ReferenceDead, RemoteError, printable
from caprpc.interface import Member, Shape
from caprpc.objects.outgoing import Outgoing
from caprpc.objects.stubs import Flavor, Stub
from caprpc.session import Import, Question

FINAL_CODES: Final = frozenset({"refused", "version", "protocol-error", "expired", "revoked"})
"""Ends that no other connection would mend: what one side has decided about the other, not a loss."""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How a client connects again after a loss, and how often it makes a call again.

    The delays are ``first_s``, twice that, and so on up to ``most_s``, each between half of it and all of it at random,
    so that a thousand clients of a server that was restarted do not come at once. A connection that has lived for
    ``most_s`` begins again with ``first_s``.
    """

    first_s: float = 0.1
    """Seconds before the first attempt."""
    most_s: float = 30.0
    """Longest delay between two attempts, in seconds."""
    attempts: int | None = None
    """Attempts after one loss; None: until ``close``."""
    retries: int = 1
    """How often a call of a member that is declared idempotent is made again; all others are never."""
    random: Callable[[], float] = secrets.SystemRandom().random
    """Gives numbers from 0 to 1; for tests."""

    def __post_init__(self) -> None:
        if not 0.0 < self.first_s <= self.most_s < float("inf"):
            raise ConfigurationError(f"reconnect: 0 < first_s <= most_s expected, got {self.first_s}, {self.most_s}")
        if self.retries < 0 or (self.attempts is not None and self.attempts < 1):
            raise ConfigurationError("reconnect: retries of 0 or more and attempts of 1 or more expected")

    @classmethod
    def given(cls, reconnect: "bool | Reconnect") -> "Reconnect | None":
        """Return what an argument ``reconnect`` stands for."""
        if isinstance(reconnect, Reconnect):
            return reconnect
        return cls() if reconnect else None


class Backoff:
    """How long to wait before the next attempt; owns how many there were since the last good connection."""

    __slots__ = ("_plan", "_since")

    def __init__(self, plan: Reconnect) -> None:
        self._plan = plan
        self._since = 0

    def lived(self, seconds: float) -> None:
        """Take note of how long the connection that was lost had lived: a short life counts as one more attempt."""
        if seconds >= self._plan.most_s:
            self._since = 0

    def next_s(self) -> float | None:
        """Return the delay before the next attempt in seconds; None: there is to be none."""
        plan = self._plan
        if plan.attempts is not None and self._since >= plan.attempts:
            return None
        # The exponent is bounded: a float has no room for 2 to the power of 2000.
        delay = min(plan.most_s, plan.first_s * 2.0 ** min(self._since, 60))
        self._since += 1
        return delay * (0.5 + plan.random() / 2)


class Held(Protocol):
    """Something that is acquired again over a new connection: a root, or what a sturdy reference stands for."""

    @property
    def stub(self) -> Stub | None:
        """The local face, while somebody holds it."""

    def ask(self, outgoing: Outgoing) -> Question:
        """Ask the peer for it."""

    def conclude(self, outgoing: Outgoing, question: Question) -> Stub:
        """Return a fresh stub of it, or raise what the question ended with."""

    @property
    def text(self) -> str:
        """What it is, for messages: ``root 'ledger'``."""


class HeldRoot:
    """A root that is acquired again by its name."""

    __slots__ = ("_flavor", "_name", "_shape", "_stub")

    def __init__(self, name: str, shape: Shape, flavor: Flavor, stub: Stub) -> None:
        self._name = name
        self._shape = shape
        self._flavor = flavor
        self._stub = ref(stub)

    @property
    def stub(self) -> Stub | None:
        """The local face, while somebody holds it."""
        return self._stub()

    @property
    def text(self) -> str:
        """What it is."""
        return f"root {self._name!r}"

    def ask(self, outgoing: Outgoing) -> Question:
        """Ask the peer for the root."""
        return outgoing.ask_root(self._name)

    def conclude(self, outgoing: Outgoing, question: Question) -> Stub:
        """Return a fresh stub of the root."""
        stub: Stub = outgoing.conclude_root(question, self._name, self._shape, self._flavor)
        return stub


class HeldSturdy(HeldRoot):
    """Something that is restored again by its sturdy reference."""

    __slots__ = ("_secret",)

    def __init__(self, name: str, secret: str, shape: Shape, flavor: Flavor, stub: Stub) -> None:
        super().__init__(name, shape, flavor, stub)
        self._secret = secret

    @property
    def text(self) -> str:
        """What it is."""
        return f"sturdy reference {self._name!r}"

    def ask(self, outgoing: Outgoing) -> Question:
        """Ask the peer for what the sturdy reference stands for."""
        return outgoing.ask_restore(self._name, self._secret)

    def conclude(self, outgoing: Outgoing, question: Question) -> Stub:
        """Return a fresh stub of it."""
        stub: Stub = outgoing.conclude_root(question, self._name, self._shape, self._flavor, "sturdy reference")
        return stub


class Holdings:
    """What is acquired again after each loss, and why some of it could not be.

    Invariant: a stub that is held stands for the same thing for as long as the peer is not closed; only the import
    behind it changes, under the connection's lock or on its loop.
    """

    __slots__ = ("_held", "_refused")

    def __init__(self) -> None:
        self._held: list[Held] = []
        self._refused: dict[Held, CapRPCError] = {}

    def hold(self, held: Held) -> None:
        """Acquire this again from now on, while somebody holds its stub."""
        alive = [one for one in self._held if one.stub is not None]
        stub = held.stub
        if not any(one.stub is stub for one in alive):
            alive.append(held)
        self._held = alive

    def forget(self, stub: Stub) -> None:
        """Acquire this no more: it was released by hand."""
        self._held = [held for held in self._held if held.stub is not stub]

    def due(self) -> list[Held]:
        """Return what is to be acquired now."""
        self._refused = {}
        return [held for held in self._held if held.stub is not None]

    def renew(self, held: Held, fresh: Stub) -> None:
        """Let the stub that the application holds stand on the import of a fresh one."""
        stub = held.stub
        if stub is not None:
            stub._caprpc_renew(fresh)

    def refused(self, held: Held, error: CapRPCError) -> None:
        """Take note that the peer, or our own policy, does not let us have it again."""
        self._refused[held] = error

    def held(self, target: Import) -> tuple[Held, Stub]:
        """Return what is held, and its stub, for an import that has died with its connection.

        Raises:
            ReferenceDead: It is none that is acquired again, or was refused.
        """
        stubs = [face() for face in target.stubs]
        for held in self._held:
            stub = held.stub
            if stub is not None and any(stub is face for face in stubs):
                error = self._refused.get(held)
                if error is not None:
                    raise ReferenceDead(f"{held.text} was not given again after reconnecting: {error}") from error
                return held, stub
        raise ReferenceDead(
            f"this reference to {printable(target.announced.interface)} has died with its connection; only roots "
            "and sturdy references are acquired again: get it anew from the root it came from"
        )

    def check(self, targets: list[Import], error: Exception) -> None:
        """Make sure that a call which has failed can be made again on another connection.

        Raises:
            ReferenceDead: Something it is made on will not be there.
            Exception: The error itself, if the call may have run: that is what its caller must know first.
        """
        try:
            for target in targets:
                if not target.alive:
                    self.held(target)
        except ReferenceDead as dead:
            if isinstance(error, ConnectionLost) and error.may_have_run:
                raise error from None
            raise dead from error


class Attempts:
    """One call over connections that come and go; owns how often it may still be made."""

    __slots__ = ("_left", "_retries")

    def __init__(self, plan: Reconnect, member: Member | None) -> None:
        """Take the member; None for what has no effect at all, such as asking for a root."""
        # What was lent is not as it was before: a file that was half read would be counted by halves.
        idempotent = member is None or (member.idempotent and not member.takes_references)
        self._retries = self._left = plan.retries if idempotent else 0

    @property
    def ended(self) -> bool:
        """Whether the call is not made again once it was sent."""
        return not self._left

    def failed(self, error: Exception, *, over: bool) -> None:
        """Take note of how the call failed; ``over`` if its connection takes no more calls.

        Raises:
            Exception: The error itself, if the call may not be made again.
        """
        if not over or (isinstance(error, RemoteError) and error.code != "unavailable"):
            raise error
        if isinstance(error, ReferenceDead) or (isinstance(error, ConnectionLost) and not error.may_have_run):
            # Nothing of it was sent.
            return
        if not self._left:
            if self._retries:
                error.add_note(f"made again {self._retries} times after a loss (Reconnect.retries)")
            raise error
        self._left -= 1


NO_ATTEMPTS: Final = Attempts(Reconnect(retries=0), None)
"""For what is never made again once it was sent; shared, because it never changes."""


def ended_for_good(code: str) -> bool:
    """Whether an end with this code is no loss: the other side, or we, have decided it."""
    return code in FINAL_CODES
