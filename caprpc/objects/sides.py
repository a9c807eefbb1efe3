"""The two sides that a program may take: what both drivers read before they listen or dial."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from caprpc.bundles import SignedPolicies
from caprpc.errors import ConfigurationError
from caprpc.limits import DEFAULT_SERVER_LIMITS, ServerLimits
from caprpc.objects.admission import Admission
from caprpc.objects.grants import Grants
from caprpc.objects.hooks import Hooks
from caprpc.objects.roots import check_roots, contracts_of_roots

Directory = str | Path
Policies = str | Path | SignedPolicies
"""A policy directory; as ``SignedPolicies`` it is used only if enough people have signed it."""


_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


class Wish:
    """What is asked of a connection: who must answer, how long it may take, and who wants to be told."""

    __slots__ = ("expected", "hooks", "policy", "timeout_s")

    def __init__(self, expected: str | None, timeout_s: float, hooks: Hooks | None, policy: str | None = None) -> None:
        """Take the wishes; ``policy`` is the digest of the policy that the peer must hold us to.

        Raises:
            ConfigurationError: That is no digest.
        """
        if policy is not None and _DIGEST.fullmatch(policy) is None:
            raise ConfigurationError(
                f"pin_policy is {policy[:100]!r}, not 'sha256:' and 64 lower-case hexadecimal digits",
                hint="the other side finds it with: caprpc policy check DIR --format json",
            )
        self.policy = policy
        self.expected = expected
        self.timeout_s = timeout_s
        self.hooks = hooks


def serving(
    roots: Mapping[str, object],
    identity: Directory,
    policies: Policies,
    audit: Directory | None,
    limits: ServerLimits,
    grants: Grants | None = None,
) -> Admission:
    """Return the admission of a server.

    Raises:
        ConfigurationError: Identity, policies or roots are wrong.
        AuditError: The audit log cannot be opened.
    """
    checked = check_roots(roots)
    return Admission.load(
        Path(identity),
        policies,
        audit=Path(audit) if audit is not None else None,
        name="server",
        roots=checked,
        contracts={**contracts_of_roots(checked), **(grants.contracts if grants is not None else {})},
        server_limits=limits,
        grants=grants,
    )


def dialing(identity: Directory, policies: Policies, audit: Directory | None) -> Admission:
    """Return the admission of a client, which serves no roots.

    Raises:
        ConfigurationError: Identity or policies are wrong.
        AuditError: The audit log cannot be opened.
    """
    return Admission.load(
        Path(identity),
        policies,
        audit=Path(audit) if audit is not None else None,
        name="client",
        roots={},
        contracts={},
        server_limits=DEFAULT_SERVER_LIMITS,
    )
