"""What a facet permits, as the table in which the guard looks it up."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from caprpc.policy.model import NO_LIMIT, NO_PASSING, Key, MemberLimit, Passing

if TYPE_CHECKING:
    from caprpc.policy.guard import Permit

_NOTHING: Final[Mapping[Key, "Permit"]] = {}


class PermitTable(dict[Key, Any]):
    """What a facet permits under one version of the policy, with what a denial must name; never changed."""

    __slots__ = ("ending", "implicit", "limit", "passing", "policy", "rule")

    def __init__(
        self,
        permits: Mapping[Key, "Permit"],
        rule: str,
        policy: str,
        *,
        implicit: Mapping[Key, "Permit"] = _NOTHING,
        ending: "Permit | None" = None,
        passing: Passing = NO_PASSING,
        limit: MemberLimit = NO_LIMIT,
    ) -> None:
        super().__init__(permits)
        self.rule = rule
        self.policy = policy
        self.implicit = implicit
        """What every holder of such a reference may do: make a lesser one of it."""
        self.ending = ending
        """Lets the holder of a reference that it has derived end that."""
        self.passing = passing
        self.limit = limit
        """Of all members together; the limiters of the permits count against it."""
