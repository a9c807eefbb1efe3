"""When a policy holds, by how many ways something is reached, and questions about roots, restores and interfaces."""

import json

import pytest

from tests.policy.conftest import FEED

ROOT = 'ledger = "FeedLedger"'


def answer(run, directory, *words):
    result = run("can-i", directory.path, "--peer", *words)
    return result.exit_code, result.stdout.splitlines()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("not_after = 2999-06-30T00:00:00Z", "not_after = 2025-06-30T00:00:00Z", "ended at 2025-06-30T00:00:00+00:00"),
        ("[peer]", "not_before = 2999-01-01T00:00:00Z\n[peer]", "begins at 2999-01-01T00:00:00+00:00"),
    ],
)
def test_a_policy_out_of_its_time_permits_nothing(run, directory, old, new, says):
    if "2999" in new:
        directory.replace("not_after = 2999-06-30T00:00:00Z\n", "")
    directory.replace(old, new)
    code, lines = answer(run, directory, "org-b-feed", "Ledger.balance")
    assert (code, lines[0].startswith(f"no: policy org-b-feed {says}: the peer is not let in (org-b.toml:")) == (
        1,
        True,
    )
    assert run("explain", directory.path, "--peer", FEED, "Ledger.balance").exit_code == 1
    rows = json.loads(run("list", directory.path, "--format", "json").stdout)
    assert {row["now"] for row in rows} == {says}
    reached = run("reach", directory.path, "--peer", FEED).stdout
    assert reached.startswith(f"policy org-b-feed {says}: nothing of it can be reached now (org-b.toml:")
    (held, *_) = json.loads(run("reach", directory.path, "--peer", FEED, "--format", "json").stdout)
    assert (held["policy"], held["now"]) == ("org-b-feed", says)


def test_a_policy_in_its_time_holds(run, directory):
    assert answer(run, directory, "org-b-feed", "Ledger.balance")[0] == 0
    rows = json.loads(run("list", directory.path, "--format", "json").stdout)
    assert {row["now"] for row in rows} == {"holds"}
    assert "now" not in run("reach", directory.path, "--peer", FEED).stdout


def test_a_yes_names_the_grant_its_limits_and_the_rules_that_it_passes(run, directory):
    directory.replace(
        "[offer.FeedLedger.limit.post]", "[offer.FeedLedger.limit]\nper_day = 9\n[offer.FeedLedger.limit.post]"
    )
    code, lines = answer(run, directory, "org-b-feed", "Ledger.post", "amount=5", "currency=EUR")
    assert code == 0
    assert [line.partition(" (")[0] for line in lines] == [
        "yes: facet FeedLedger grants Ledger.post",
        "  within its limits: per_second = 2",
        "  within the limits of the whole facet: per_day = 9",
        "  'amount' passes",
        "  'currency' passes",
    ]


def test_every_way_to_a_facet_is_named(run, directory):
    directory.replace(ROOT, f'{ROOT}\nlines = "LinesOnly"\nagain = "HistoryRO"')
    found = run("reach", directory.path, "--peer", FEED, "LinesOnly").stdout.splitlines()
    assert found == [
        "LinesOnly (TextLines), in 1 step",
        "  root lines: LinesOnly (org-b.toml:15)",
        "  also: lent to Sink.load (source) for the call (org-b.toml:46)",
    ]
    (history,) = json.loads(run("reach", directory.path, "--peer", FEED, "HistoryRO", "--format", "json").stdout)
    assert [step["text"] for step in history["path"]] == ["root again"]
    assert [[step["text"] for step in way] for way in history["others"]] == [["root ledger", "call history"]]
    shown = run("reach", directory.path, "--peer", FEED, "History", "--format", "markdown").stdout
    assert "root ledger > call history |" in shown


def test_what_can_be_held_as_opaque_is_named_and_is_not_reached(run, directory):
    result = run("reach", directory.path, "--peer", FEED, "Subscription")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "Subscription, as opaque: to be held and handed back (org-b.toml:18)",
        "  root ledger > call subscribe",
        f"Subscription: unreachable for {FEED}",
    ]


@pytest.mark.parametrize(
    ("word", "operation", "code", "says"),
    [
        ("ledger", "root", 0, "yes: root ledger as FeedLedger"),
        ("ledgr", "root", 1, "no: there is no root 'ledgr'"),
        ("kept", "restore", 4, "cannot decide: restore kept as HistoryRO, if it was granted"),
        ("other", "restore", 1, "no: there is no [restore.other]"),
    ],
)
def test_roots_and_restores_are_asked_for_by_their_names(run, directory, word, operation, code, says):
    directory.replace("[offer.FeedLedger]", '[restore.kept]\nas = "HistoryRO"\n[offer.FeedLedger]')
    found, lines = answer(run, directory, FEED, word, "--operation", operation)
    assert (found, lines[-1].startswith(says)) == (code, True), lines
    explained = run("explain", directory.path, "--peer", FEED, word, "--operation", operation).stdout
    assert explained.splitlines()[-1].endswith(f": {FEED} and {operation} {word}")


def test_who_can_takes_an_interface(run, directory):
    found = run("list", directory.path, "--who-can", "History", "--format", "json")
    assert found.exit_code == 0
    assert {row["member"] for row in json.loads(found.stdout)} == {"History (iterate)", "History (length)"}
    assert run("list", directory.path, "--who-can", "LedgerAdmin").stderr == "nobody may use LedgerAdmin\n"
    found = json.loads(run("list", directory.path, "--who-can", "Ledger", "--format", "json").stdout)
    assert "Ledger.post" in {row["member"] for row in found}
