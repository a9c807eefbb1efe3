"""Cedar, over the export, decides as the guard does: an independent implementation as the oracle."""

from random import Random

import cedarpy
import pytest

from caprpc import ids
from caprpc.analysis.cedar import action_id, cedar, held_name, is_expressed, resource_id
from caprpc.policy import Guard, PrincipalQuotas, Refused
from tests.policy.generated_policies import OPERATIONS, PEERS, Draft, load

ARGUMENTS: tuple[object, ...] = (-1, 0, 1, 2, 5, 10, 11, True, False, "", "a", "ab", "abc", "b", "EUR", "z" * 12)
"""Values that Cedar has, too: it knows neither floats nor bytes."""


def decided_by_guard(guard, facet, key, arguments, now):
    try:
        permit = guard.check(facet, *key, now)
        permit.give_back()
        if permit.arguments:
            permit.check_arguments(arguments)
    except Refused:
        return False
    return True


def context_of(policy, offer, key, arguments):
    grant = None if offer is None else offer.grants.get(key)
    held = [
        held_name(parameter, rule)
        for parameter, rule in ({} if grant is None else grant.arguments).items()
        if not is_expressed(rule) and parameter in arguments and not rule.fault(arguments[parameter])
    ]
    return {**arguments, "holds": held}


@pytest.mark.parametrize("seed", range(4))
def test_cedar_and_the_guard_never_disagree(seed):
    random = Random(seed)
    counts = {True: 0, False: 0}
    for _ in range(60):
        policies = load(Draft(random).text())
        policy = policies.policies[0]
        guard = Guard(policy, PrincipalQuotas())
        now, requests, expected = 0.0, [], []
        for name, offer in policy.offers.items():
            for key in random.sample(OPERATIONS, 6):
                for peer in PEERS:
                    now += 86_400.0
                    arguments = {"n": random.choice(ARGUMENTS), "s": random.choice(ARGUMENTS)}
                    if random.random() < 0.1:
                        del arguments["s"]
                    named = peer in policy.principals
                    expected.append(named and decided_by_guard(guard, guard.facet(name), key, arguments, now))
                    requests.append(
                        {
                            "principal": f'Peer::"{peer}"',
                            "action": f'Action::"{action_id(key)}"',
                            "resource": f'Facet::"{resource_id(policy, name)}"',
                            "context": context_of(policy, offer, key, arguments),
                        }
                    )
        for root in ("r0", "r1", "r2"):
            permitted = decided_by_guard(guard, guard.roots, (ids.OP_ROOT, root), {}, now)
            expected.append(permitted and PEERS[0] in policy.principals)
            requests.append(
                {
                    "principal": f'Peer::"{PEERS[0]}"',
                    "action": f'Action::"root {root}"',
                    "resource": f'Facet::"{resource_id(policy, "root")}"',
                    "context": {"holds": []},
                }
            )
        answers = cedarpy.is_authorized_batch(requests, cedar(policies), [])
        for request, answer, permitted in zip(requests, answers, expected, strict=True):
            counts[permitted] += 1
            assert answer.allowed == permitted, (request, answer.diagnostics.errors, cedar(policies))
    assert min(counts.values()) > 300


def test_what_cedar_cannot_express_is_named_for_the_caller_and_not_dropped(load_with):
    policies = load_with(("amount   = { min = 0.01, max = 10_000 }", "account = { max_len = 3 }"))
    assert "context.holds.contains" in cedar(policies)
