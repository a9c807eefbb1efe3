"""Granting and revoking, as the service asks for it. The policy of the holder decides, now and at each restore."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from caprpc.errors import CallRefused, ConfigurationError
from caprpc.ids import new_grant_id
from caprpc.objects.admission import Admission
from caprpc.objects.grants import HOW_TO_KEEP, Grants
from caprpc.policy import Offer, Policy, Restorable, word_of
from caprpc.store import StoredGrant
from caprpc.sturdy import digest_of, new_secret

MOST_KEY_CHARS: Final = 512


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be granted, as it was asked for."""

    target: object
    """Name of a root or of a kind, or a root itself."""
    key: str = ""
    to: str = ""
    bearer: bool = False
    only: Iterable[str] | None = None
    for_s: float | None = None


def grants_of(admission: Admission) -> Grants:
    """Return the grants of a server.

    Raises:
        ConfigurationError: It was made without.
    """
    grants = admission.served.grants
    if grants is None:
        raise ConfigurationError("this server keeps no grants", hint=HOW_TO_KEEP)
    return grants


def grant(admission: Admission, wish: Wish, *, by: str = "server") -> str:
    """Grant, and return the sturdy reference: a secret, shown this once.

    Raises:
        CallRefused: No policy lets the holder restore this, or not for so long.
        ConfigurationError: There is no such root or kind, or it was asked for in a wrong way.
        AuditError: It could not be recorded; nothing was granted.
        StoreError: It could not be kept.
    """
    grants = grants_of(admission)
    name = _name_of(wish.target, admission.served.roots, grants)
    _check_wish(wish, name, is_root=name in admission.served.roots)
    now = admission.wall()
    policy, rule = _restorable(admission, wish, name)
    ends = _end_of(wish, rule, now)
    only = _kept(wish.only, policy.offers[rule.facet])
    secret, grant_id = new_secret(), new_grant_id()
    uri = grants.uri(name, secret)
    log = admission.log
    relation = log.relation(wish.to) if wish.to else log.general
    relation.record(
        "grant",
        event="granted",
        peer=wish.to,
        member=name,
        reference=grant_id,
        detail=_terms(wish, only, ends, now, by),
    )
    given = StoredGrant(grant_id, name, wish.key, wish.to, only, by, now, ends)
    grants.store.add(given, digest_of(secret))
    return uri


def revoke_grant(admission: Admission, grant_id: str, *, by: str = "server") -> bool:
    """End a grant and every reference that was restored from it; False if there is none, or it has been revoked.

    Raises:
        StoreError: It could not be kept: try again.
        AuditError: It is revoked, and could not be recorded.
    """
    grants = grants_of(admission)
    found = grants.store.get(grant_id)
    if found is None or grants.store.revoke(grant_id, admission.wall()) is None:
        return False
    grants.end([grant_id])
    relation = admission.log.relation(found.holder) if found.holder else admission.log.general
    relation.record(
        "revoke", event="revoked", peer=found.holder, member=found.name, reference=grant_id, detail=f"by {by}"
    )
    return True


def _name_of(target: object, roots: Mapping[str, object], grants: Grants) -> str:
    if isinstance(target, str):
        if target in roots or target in grants.restorers:
            return target
        known = ", ".join(sorted({*roots, *grants.restorers}))
        raise ConfigurationError(f"nothing can be restored by the name {target!r}", hint=f"what there is: {known}")
    for name, root in roots.items():
        if root is target:
            return name
    raise ConfigurationError(
        f"a {type(target).__name__} could not be found again after a restart",
        hint='grant a root, or an object by its kind and key: grant("account", key="42"), with a restorer for the kind',
    )


def _check_wish(wish: Wish, name: str, *, is_root: bool) -> None:
    if bool(wish.to) == wish.bearer:
        raise ConfigurationError(
            'a grant is sealed to one holder: to="spiffe://..." expected; bearer=True, without to=, lets whoever has '
            "the secret use it, as far as policies allow"
        )
    if is_root == bool(wish.key) or len(wish.key) > MOST_KEY_CHARS:
        expected = "no key: it is a root" if is_root else f'key="...", at most {MOST_KEY_CHARS} characters: which one'
        raise ConfigurationError(f"{name!r} takes {expected}")
    if wish.for_s is not None and not 0 < wish.for_s < float("inf"):
        raise ConfigurationError(f"for_s={wish.for_s!r}: seconds above 0 expected")


def _restorable(admission: Admission, wish: Wish, name: str) -> tuple[Policy, Restorable]:
    """Return a policy, and the rule in it by which it lets the holder restore this.

    Raises:
        CallRefused: There is none.
    """
    for policy in admission.epoch.policies.policies:
        found = policy.restores.get(name)
        if found is not None and ((wish.to in policy.principals) if wish.to else found.bearer):
            return policy, found
    who, line = (wish.to, "") if wish.to else ("whoever has the secret", ", and bearer = true")
    raise CallRefused(
        f"no policy lets {who} restore {name!r}; to allow it add to the policy of the holder: "
        f'[restore.{name}] with as = "FACET"{line}'
    )


def _end_of(wish: Wish, rule: Restorable, now: float) -> float | None:
    """Return when the grant ends: as asked for, and within what policy allows."""
    most = rule.max_for_s
    if wish.for_s is not None and most is not None and wish.for_s > most:
        raise CallRefused(f"{rule.rule}: a grant of {rule.name!r} lasts {most:g} s at most, {wish.for_s:g} s asked for")
    span = wish.for_s if wish.for_s is not None else most
    return None if span is None else now + span


def _kept(only: Iterable[str] | None, offer: Offer) -> frozenset[str] | None:
    """Return the members that a grant is narrowed to.

    Raises:
        ConfigurationError: One is no name, or the facet does not have it.
    """
    if only is None:
        return None
    if isinstance(only, str | Mapping):
        raise ConfigurationError(f"only={only!r}: a list of names of members expected")
    kept = frozenset(only)
    known = {word_of(key) for key in offer.grants}
    if not kept or not kept <= known:
        wrong = ", ".join(sorted(map(repr, kept - known))) or "nothing"
        raise ConfigurationError(
            f"only= names {wrong}, and the facet {offer.name} ({offer.rule}) has: {', '.join(sorted(known))}"
        )
    return kept


def _terms(wish: Wish, only: frozenset[str] | None, ends: float | None, now: float, by: str) -> str:
    kept = "" if only is None else f", only {' '.join(sorted(only))}"
    lasts = "until revoked" if ends is None else f"for {ends - now:g} s"
    return f"{'bearer' if wish.bearer else 'sealed'}{kept}, {lasts}, by {by}"
