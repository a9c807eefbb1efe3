"""A good directory loads, and says what its files say."""

from datetime import UTC, datetime

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
    loaded.match(make_identity(), datetime(2027, 6, 29, 23, 59, 59, 999999, tzinfo=UTC))
    with pytest.raises(IdentityRefused) as caught:
        loaded.match(make_identity(), datetime(2027, 6, 30, tzinfo=UTC))
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
