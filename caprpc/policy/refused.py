"""How the guard says no: one exception, with everything the audit log must know about it."""

from typing import Final

_LIMITS: Final = frozenset(
    {
        *("per_second", "per_hour", "per_day", "in_flight"),
        *("facet_per_second", "facet_per_hour", "facet_per_day", "facet_in_flight"),
        *("principal_in_flight", "principal_callbacks", "principal_pipelined"),
        *("principal_argument_bytes", "argument_bytes"),
        *("depth", "callbacks", "imports", "message_references", "batch", "rate", "workers"),
    }
)

_CODES: Final = {"argument": "invalid-arguments", "cancelled": "cancelled", "draining": "unavailable"}

REASONS: Final = _LIMITS | {
    "not-granted",
    "closed",
    "argument",
    "rule-error",
    "no-reference",
    "expired",
    "revoked",
    "uses",
    "cancelled",
    "draining",
    "sturdy-unknown",
    "sturdy-holder",
    "sturdy-bearer",
    "sturdy-revoked",
    "sturdy-expired",
    "guesses",
}
"""Every reason of a refusal, for the audit log.

Of the guard: ``not-granted`` (forbidden and absent alike), ``closed`` (a reload took the policy away), ``argument``,
``rule-error`` (a rule could not be evaluated), and the limits of a member or, with ``facet_``, of all members of a
facet together. Of the floors above: a reference that the
peer does not hold (``no-reference``), whose right has ended or is used up (``revoked``, ``expired``, ``uses``,
``rate``), limits of the connection, no thread for a method that blocks (``workers``), calls that come when nothing may
begin any more, and what is wrong with a sturdy reference that was presented (``sturdy-...``), or that too many were
presented in vain (``guesses``).
"""


class Refused(Exception):
    """The guard does not let an operation happen.

    Attributes:
        reason: One of ``REASONS``.
        rule: ``file:line`` of the rule that decided; for ``not-granted`` the table that does not list it.
        facet: Name of the facet.
        operation: A code of ``caprpc.ids``.
        member: The name that the peer sent; it is the peer's text, so quote and cut it.
        policy: Digest of the policy that decided.
        detail: What the operator should know beyond that, such as ``amount: max``; never a value, never sent.
    """

    def __init__(
        self, reason: str, *, rule: str, facet: str, operation: int, member: str, policy: str, detail: str = ""
    ) -> None:
        self.reason = reason
        self.rule = rule
        self.facet = facet
        self.operation = operation
        self.member = member
        self.policy = policy
        self.detail = detail
        super().__init__(reason)

    @property
    def code(self) -> str:
        """The code of ``errors.ERROR_CODES`` that the peer may see; a forbidden member looks like an absent one."""
        return "limit" if self.reason in _LIMITS else _CODES.get(self.reason, "denied")
