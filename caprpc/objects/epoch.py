"""Identity and policies as they are read from disk: all of it stands up, or none of it is used."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from caprpc.bundles import SignedPolicies, Signers
from caprpc.contract import InterfaceContract
from caprpc.errors import ConfigurationError, PolicyError
from caprpc.objects.grants import HOW_TO_KEEP, Grants
from caprpc.policy import PolicySet, RevokedFile
from caprpc.tls import Identity, TlsChannel, client_context, server_context


@dataclass(frozen=True, slots=True)
class Served:
    """What a side serves: its roots, and the grants that outlive connections, if it keeps any."""

    roots: Mapping[str, object]
    grants: Grants | None


@dataclass(frozen=True, slots=True)
class Epoch:
    """Identity and policies as they were read at one time; replaced as a whole, never changed."""

    identity: Identity
    policies: PolicySet
    context: ssl.SSLContext
    """For the role that this side has: a certificate may be good for one of them only."""
    revoked: RevokedFile
    """Who is out, as the file that the policies name says now: it alone is read apart, whenever it has changed."""

    def channel(self, *, acceptor: bool, hostname: str | None) -> TlsChannel:
        """Return the TLS side of a new connection."""
        return TlsChannel(self.context, server_side=acceptor, server_hostname=hostname)


def read_epoch(
    identity: Path,
    policies: str | Path | SignedPolicies,
    contracts: Mapping[str, InterfaceContract],
    *,
    previous: PolicySet | None,
    served: Served | None,
) -> Epoch:
    """Read an identity and policies, and check that they fit each other, the code and what is served.

    Args:
        identity: Directory of the identity.
        policies: Directory of the policies; signed ones are accepted last, when all else stands up.
        contracts: What the code declares now; empty if it is not known yet, as on a side that dials.
        previous: What is in force.
        served: What this side serves; None for a side that dials.

    Raises:
        ConfigurationError: Something in the directories is wrong; all of it for policies.
    """
    ours = Identity.load(identity)
    directory = policies.directory if isinstance(policies, SignedPolicies) else policies
    loaded = PolicySet.load(Path(directory), now=datetime.now(UTC), previous=previous)
    if served is not None:
        _check_restorable(loaded, served)
    loaded.verify_contracts(contracts, complete=bool(contracts))
    if served is not None:
        _check_granted_roots(loaded, served.roots)
    if isinstance(policies, SignedPolicies):
        Signers.load(Path(policies.signers)).accept(loaded)
    context = server_context(ours) if served is not None else client_context(ours)
    return Epoch(ours, loaded, context, RevokedFile(loaded.revoked_file))


def _check_granted_roots(policies: PolicySet, roots: Mapping[str, object]) -> None:
    """Refuse policies that grant a root which this service does not have: its first caller would find out."""
    problems = [
        ConfigurationError(
            f"root {name!r} is granted, and this service has none of that name",
            where=root.rule,
            hint=f"its roots are: {', '.join(sorted(roots))}",
            code="no-such-root",
        )
        for policy in policies.policies
        for name, root in policy.roots.items()
        if name not in roots
    ]
    if problems:
        raise PolicyError(problems)


def _check_restorable(policies: PolicySet, served: Served) -> None:
    """Refuse policies that let a peer restore what this service could not find again."""
    grants = served.grants
    known = {*served.roots, *grants.restorers} if grants is not None else set()
    problems = []
    for policy in policies.policies:
        for name, restorable in policy.restores.items():
            if grants is None:
                fault, hint = "this service keeps no grants", HOW_TO_KEEP
            else:
                fault, hint = "this service has no such root or kind", f"what there is: {', '.join(sorted(known))}"
            if name not in known:
                problems.append(
                    ConfigurationError(
                        f"{name!r} may be restored, and {fault}",
                        where=restorable.rule,
                        hint=hint,
                        code="no-such-root",
                    )
                )
    if problems:
        raise PolicyError(problems)
