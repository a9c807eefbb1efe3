"""A good directory loads, and says what its files say."""

from datetime import UTC, datetime, timedelta

import pytest

from caprpc import ids
from caprpc.errors import IdentityRefused
from caprpc.limits import DEFAULT_LIMITS
from caprpc.policy import grant_line


def test_example_loads_without_warnings_and_says_what_it_says(directory):
    loaded = directory.load()
    (policy,) = loaded.policies
    assert loaded.warnings == ()
    assert (policy.name, policy.file, policy.tags) == ("org-b-feed", "org-b.toml", ("external",))
    assert policy.limits.in_flight == 8
    assert policy.limits.max_depth == DEFAULT_LIMITS.max_depth
    assert policy.connections == 2
    offer = policy.offers["FeedLedger"]
    assert offer.rule == "org-b.toml:16"
    assert set(offer.grants) == {
        *((ids.OP_CALL, name) for name in ("balance", "history", "post", "subscribe")),
        (ids.OP_GET, "currency"),
    }
    post = offer.grants[ids.OP_CALL, "post"]
    assert post.rule == "org-b.toml:18"
    assert post.arguments["amount"].rule == "org-b.toml:21"
    assert post.limit.per_second == 2
    assert post.record == {"account", "amount"}
    assert offer.grants[ids.OP_CALL, "history"].returns == "HistoryRO"


def test_contracts_survive_being_written_and_read(directory):
    contracts = directory.load().contracts
    assert contracts["Ledger"].members[ids.OP_CALL, "post"].parameters[1].type == "Decimal"
    directory.load().verify_contracts(contracts)


def test_peer_is_matched_by_anchor_and_principal(directory, make_identity):
    assert directory.load().match(make_identity(), datetime(2026, 11, 22, tzinfo=UTC)).name == "org-b-feed"


@pytest.mark.parametrize(
    "principal",
    [
        "spiffe://org-b.example.evil/treasury/feed",
        "spiffe://evil-org-b.example/treasury/feed",
        "spiffe://ORG-B.example/treasury/feed",
        "spiffe://org-b.example./treasury/feed",
        "spiffe://sub.org-b.example/treasury/feed",
        "spiffe://org-b.example/treasury/feed/",
        "spiffe://org-b.example/treasury/feed2",
        "spiffe://org-b.example/treasury",
        "spiffe://org-b.example/treasury/../treasury/feed",
        "spiffe://org-b.example/treasury/fee%64",
    ],
)
def test_principal_that_only_resembles_is_refused(directory, make_identity, principal):
    with pytest.raises(IdentityRefused) as caught:
        directory.load().match(make_identity(principal=principal), datetime(2026, 11, 22, tzinfo=UTC))
    assert caught.value.code == "no-policy"


def test_same_principal_under_another_anchor_is_refused(directory, make_identity):
    with pytest.raises(IdentityRefused):
        directory.load().match(make_identity(anchor="sha256:" + "3" * 64), datetime(2026, 11, 22, tzinfo=UTC))


def test_policy_ends_exactly_at_not_after(directory, make_identity):
    loaded = directory.load()
    loaded.match(make_identity(), datetime(2999, 6, 29, 23, 59, 59, 999999, tzinfo=UTC))
    with pytest.raises(IdentityRefused) as caught:
        loaded.match(make_identity(), datetime(2999, 6, 30, tzinfo=UTC))
    assert caught.value.code == "policy-expired"


@pytest.mark.parametrize(
    "operation", sorted(ids.OPERATION_NAMES.keys() - {ids.OP_ROOT, ids.OP_RESTORE} - ids.IMPLICIT_OPERATIONS)
)
def test_line_that_grants_an_operation_is_one_the_loader_knows(operation):
    line = grant_line(operation, "post" if operation in ids.NAMED_OPERATIONS else "")
    assert line in {
        *('call = ["post"]', 'get = ["post"]', 'set = ["post"]', "invoke = true", "iterate = true", "length = true"),
        *("contains = true", "index_get = true", "index_set = true", "context = true"),
        'compare = ["post"]',
    }


def test_a_member_that_takes_a_reference_needs_an_accept(directory):
    directory.replace('[accept.Sink]\ncall = ["update", "load"]\n', "")
    directory.replace('[[lend]]\nto = "Sink.load"\nparam = "source"\nas = "LinesOnly"\nlifetime = "call"\n', "")
    found = [(where, message) for where, message, _ in directory.problems()]
    assert found == [
        ("org-b.toml:18", "the peer may pass a Sink to 'subscribe' (sink), and nothing says what we may do with it")
    ]


def test_a_policy_holds_from_not_before_on(directory, make_identity):
    directory.replace("not_after = 2999", "not_before = 2026-12-01T00:00:00Z\nnot_after = 2999")
    policies = directory.load()
    start = datetime(2026, 12, 1, tzinfo=UTC)
    with pytest.raises(IdentityRefused) as caught:
        policies.match(make_identity(), start - timedelta(microseconds=1))
    assert caught.value.code == "policy-not-yet"
    assert policies.match(make_identity(), start).name == "org-b-feed"


def test_a_time_that_never_comes_is_an_error(directory):
    directory.replace("not_after = 2999", "not_before = 2999-12-01T00:00:00Z\nnot_after = 2999")
    assert any("it never holds" in message for _, message, _ in directory.problems())


def test_a_sensitive_parameter_cannot_be_recorded(directory):
    directory.replace(
        '{ name = "account", type = "str", required = true },\n  { name = "amount"',
        '{ name = "account", type = "str", required = true, sensitive = true },\n  { name = "amount"',
        "contracts.toml",
    )
    found = [(where, message) for where, message, _ in directory.problems()]
    assert found == [
        ("org-b.toml:29", "'account' of 'post' is declared sensitive: the audit log never keeps it in clear")
    ]


def test_rules_are_plain_texts_as_records_take_them(directory):
    (policy,) = directory.load().policies
    rules = [policy.peer_rule, policy.roots_rule, *(root.rule for root in policy.roots.values())]
    rules += [lend.rule for lend in policy.lends.values()] + [one.rule for one in policy.accepts.values()]
    for offer in policy.offers.values():
        rules.append(offer.rule)
        for grant in offer.grants.values():
            rules += [grant.rule, *(rule.rule for rule in grant.arguments.values())]
    assert {type(rule) for rule in rules} == {str}
