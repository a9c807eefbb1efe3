"""How the guard says no: one exception, with everything the audit log must know about it."""

from typing import Final

REASONS: Final = frozenset(
    {
        "not-granted",
        "closed",
        "argument",
        "rule-error",
        "per_second",
        "per_hour",
        "per_day",
        "in_flight",
    }
)
"""Every reason of a refusal, for the audit log; a peer is told only ``denied``, ``invalid-arguments`` or ``limit``."""


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
        if self.reason in {"not-granted", "closed", "rule-error"}:
            return "denied"
        return "invalid-arguments" if self.reason == "argument" else "limit"
