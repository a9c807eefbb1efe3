"""What a log says of the policies: what was never used, what a candidate would change, what would be enough."""

import json
from random import Random

import pytest
from click.testing import CliRunner

from caprpc import ids
from caprpc.analysis.changes import WIDENING
from caprpc.analysis.difference import difference
from caprpc.analysis.draft import draft
from caprpc.analysis.events import Event
from caprpc.analysis.usage import needs, shadow, unused
from caprpc.audit import AuditLog
from caprpc.cli import main
from tests.policy.conftest import FEED
from tests.policy.generated_policies import Draft, load

DAY = 86_400.0


def event(facet, operation, member, *, at=0.0, permitted=True, reason="", args=None, peer=FEED) -> Event:
    return Event(peer, facet, (operation, member), permitted, reason, at, "sha256:x", args or {}, "")


def some_events() -> list[Event]:
    return [
        event("FeedLedger", ids.OP_ROOT, "ledger"),
        event("FeedLedger", ids.OP_CALL, "post", at=DAY, args={"amount": "5", "account": "A"}),
        event("FeedLedger", ids.OP_CALL, "history", at=2 * DAY),
        event("HistoryRO", ids.OP_LENGTH, "", at=3 * DAY),
        event("FeedLedger", ids.OP_CALL, "wipe", permitted=False, reason="not-granted"),
    ]


def test_what_no_event_used_is_named_with_its_rule(directory):
    found = {(one.kind, one.text) for one in unused(directory.load(), some_events())}
    assert ("grant", "org-b-feed: Ledger.balance (FeedLedger) was never used") in found
    assert ("grant", "org-b-feed: Ledger.currency (get) (FeedLedger) was never used") in found
    assert not any("Ledger.post (FeedLedger) was" in text for _, text in found)
    assert not any(kind == "root" for kind, _ in found)


def test_a_limit_that_nobody_came_near_is_named_and_one_that_was_is_not(load_with):
    policies = load_with(("per_second = 2", "per_second = 100"))
    posts = [event("FeedLedger", ids.OP_CALL, "post", at=index / 100) for index in range(60)]
    assert not any(one.kind == "limit" for one in unused(policies, posts))
    assert any("at most 40 were seen" in one.text for one in unused(policies, posts[:40]))


def posts(*arguments: dict[str, str]) -> list[Event]:
    return [event("FeedLedger", ids.OP_CALL, "post", at=DAY * index, args=one) for index, one in enumerate(arguments)]


def rules_of(policies, events) -> list[str]:
    return [f"{one.where} {one.text.partition(': ')[2]}" for one in unused(policies, events) if one.kind == "rule"]


def test_a_rule_that_no_call_came_near_is_named(load_with):
    policies = load_with(('currency = { in = ["EUR", "USD"] }', 'currency = { in = ["EUR", "USD"], max_len = 9 }'))
    assert rules_of(policies, posts({"amount": "4999.99", "currency": "EUR"}, {"amount": "5", "currency": "EUR"})) == [
        "org-b.toml:21 Ledger.post: amount may be up to 10000, and at most 4999.99 was seen",
        "org-b.toml:22 Ledger.post: currency may have a length of 9, and at most 3 was seen",
        "org-b.toml:22 Ledger.post: currency may be USD, which was never seen",
    ]


def test_a_rule_that_was_approached_or_whose_values_were_not_kept_is_not_named(load_with):
    policies = load_with()
    near = posts({"amount": "5000", "currency": "EUR"}, {"amount": "1", "currency": "USD"})
    assert rules_of(policies, near) == []
    for kept in ({}, {"amount": "hmac:00"}, {"amount": "1[cut: 9 characters]"}, {"amount": "NaN"}):
        assert rules_of(policies, posts({"amount": "1"}, kept)) in (
            [],
            ["org-b.toml:21 Ledger.post: amount may be up to 10000, and at most 1 was seen"] * ("NaN" in kept.values()),
        )


def test_numbers_of_a_rule_are_found_in_texts(load_with):
    policies = load_with(("amount   = { min = 0.01, max = 10_000 }", "amount   = { in = [1, 2.5] }"))
    assert rules_of(policies, posts({"amount": "1"}, {"amount": "2.50"})) == []
    assert rules_of(policies, posts({"amount": "1"})) == [
        "org-b.toml:21 Ledger.post: amount may be 2.5, which was never seen"
    ]


def test_unused_and_shadow_in_other_forms(run, directory, log):
    sarif = json.loads(run("unused", directory.path, "--log", log, "--format", "sarif").stdout)
    rules = {rule["id"] for rule in sarif["runs"][0]["tool"]["driver"]["rules"]}
    assert "unused-grant" in rules
    assert {one["level"] for one in sarif["runs"][0]["results"]} == {"note"}
    text = run("unused", directory.path, "--log", log, "--format", "markdown").stdout
    assert "| org-b.toml:18 | grant | org-b-feed: Ledger.balance (FeedLedger) was never used |" in text
    text = run("shadow", directory.path, "--log", log, "--format", "markdown").stdout
    assert text.splitlines()[2].startswith("| may be refused | 1 |")


def test_a_policy_whose_peer_did_nothing_is_one_line(directory):
    assert [one.kind for one in unused(directory.load(), [])] == ["policy"]


RULES = """\
[offer.FeedLedger.args.post]
amount   = { min = 0.01, max = 10_000 }
currency = { in = ["EUR", "USD"] }
"""


def test_shadow_counts_calls_that_a_candidate_would_refuse(load_with):
    candidate = load_with(
        ('call = ["balance", "history", "post", "subscribe"]', 'call = ["balance", "subscribe"]'),
        (RULES, ""),
        ("[offer.FeedLedger.limit.post]\nper_second = 2\n", ""),
        ('history = "HistoryRO"\n', ""),
        ('[offer.FeedLedger.record]\npost = ["account", "amount"]\n', ""),
    )
    found = {(one.verdict, one.subject): one for one in shadow(candidate, some_events() * 3)}
    assert found["would be refused", "FeedLedger: call post"].calls == 3
    assert "org-b.toml:16 does not list it" in found["would be refused", "FeedLedger: call history"].why
    assert ("would be refused", "HistoryRO: length") not in found


def test_shadow_says_may_where_the_log_did_not_keep_an_argument(load_with):
    candidate = load_with(("max = 10_000", "max = 4"))
    found = shadow(candidate, some_events())
    assert [(one.verdict, one.subject) for one in found] == [("may be refused", "FeedLedger: call post")]
    assert "'amount' was 5" in found[0].why
    assert "'currency' was not recorded" in found[0].why


def test_shadow_names_what_was_refused_and_would_not_be(load_with):
    candidate = load_with(('get  = ["currency"]', 'get  = ["currency", "limit"]'))
    asked = [event("FeedLedger", ids.OP_GET, "limit", permitted=False, reason="not-granted")]
    assert [one.verdict for one in shadow(candidate, asked)] == ["would be permitted"]


def test_a_peer_that_the_candidate_does_not_name_is_refused(directory):
    stranger = [event("FeedLedger", ids.OP_CALL, "post", peer="spiffe://other.example/x")]
    assert [one.verdict for one in shadow(directory.load(), stranger)] == ["would be refused"]


def test_a_draft_loads_and_gives_no_more_than_what_was_in_force(directory):
    policies = directory.load()
    roots, facets = needs(policies, some_events())["org-b-feed"]
    text = draft(policies.policies[0], roots, facets)
    directory.write("org-b.toml", text)
    learned = directory.load()
    found = difference(policies, learned)
    assert not [one for one in found if one.verdict in WIDENING]
    gone = {one.subject for one in found if one.verdict == "gone"}
    assert {"Ledger.balance", "Ledger.subscribe", "Ledger.currency (get)", "History (iterate)"} <= gone
    assert not {"Ledger.post", "Ledger.history", "History (length)"} & gone
    assert learned.policies[0].offers["FeedLedger"].grants[ids.OP_CALL, "post"].arguments["amount"].maximum == 10_000


def test_refused_calls_propose_nothing(directory):
    policies = directory.load()
    refused = [event("FeedLedger", ids.OP_CALL, "post", permitted=False, reason="per_second")]
    assert needs(policies, refused) == {}


@pytest.fixture
def log(tmp_path):
    """A log in which the feed has posted once and asked for something else once."""
    path = tmp_path / "audit"
    log = AuditLog.open(path, name="server")
    relation = log.relation(FEED)
    common = {"peer": FEED, "facet": "FeedLedger", "operation": "call"}
    relation.record("decision", **common, member="post", decision="permit", args={"amount": "5"}, rule="org-b.toml:18")
    relation.record(
        "decision", **common, member="wipe", decision="deny", reason="not-granted", reference="R-7KQ2M9XW4HTA"
    )
    log.close()
    return path


@pytest.fixture
def run():
    runner = CliRunner()
    return lambda *words: runner.invoke(main, ["policy", *map(str, words)])


def test_tools_read_a_real_log(run, directory, log, tmp_path):
    result = run("unused", directory.path, "--log", log)
    assert result.exit_code == 1
    assert "Ledger.balance (FeedLedger) was never used" in result.stdout
    assert "2 decisions" in result.stdout
    shadowed = run("shadow", directory.path, "--log", log, "--format", "json")
    assert [row["verdict"] for row in json.loads(shadowed.stdout)] == ["may be refused"]
    explained = run("explain", directory.path, "--log", log, "--reference", "R-7KQ2M9XW4HTA")
    assert explained.exit_code == 1
    assert "does not list Ledger.wipe" in explained.stdout
    assert "logged: refused (not-granted)" in explained.stdout
    drafted = run("learn", directory.path, "--log", log, "--write", tmp_path / "draft")
    assert drafted.exit_code == 0
    assert 'call = ["post"]' in (tmp_path / "draft" / "org-b.toml").read_text()


def test_what_administers_is_never_proposed(run, directory, log):
    directory.replace('name = "post"\neffect = "read"', 'name = "post"\neffect = "admin"', "contracts.toml")
    policies = directory.load()
    _, facets = needs(policies, some_events())["org-b-feed"]
    assert (ids.OP_CALL, "post") not in facets["FeedLedger"].used
    assert facets["FeedLedger"].left_out == ((ids.OP_CALL, "post"),)
    assert "post" not in draft(policies.policies[0], {"ledger"}, facets)
    drafted = run("learn", directory.path, "--log", log)
    assert (drafted.exit_code, "post" in drafted.stdout) == (0, False)
    assert drafted.stderr == ("left out: org-b-feed: FeedLedger: post has the effect admin; a person must grant it\n")


def test_a_log_without_decisions_cannot_decide(run, directory, tmp_path):
    path = tmp_path / "audit"
    AuditLog.open(path, name="server").close()
    for words in (("unused",), ("shadow",), ("learn",)):
        assert run(*words, directory.path, "--log", path).exit_code == 4
    assert run("unused", directory.path, "--log", tmp_path / "nowhere").exit_code == 3


def test_drafts_of_generated_policies_load_and_never_widen():
    random = Random(5)
    for _ in range(60):
        policies = load(Draft(random).text())
        policy = policies.policies[0]
        peer = sorted(policy.principals)[0]
        seen = [event(root.facet, ids.OP_ROOT, root.name, peer=peer) for root in policy.roots.values()]
        for name, offer in policy.offers.items():
            seen += [event(name, *key, peer=peer) for key in offer.grants if random.random() < 0.5]
        for roots, facets in needs(policies, seen).values():
            learned = load(draft(policy, roots, facets))
            assert not [one for one in difference(policies, learned) if one.verdict in WIDENING]
