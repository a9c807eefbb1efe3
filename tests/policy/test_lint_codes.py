"""Each finding of lint that no other test looks for: where it begins, where it ends, and what it says."""

import dataclasses
import json
from datetime import timedelta

import pytest

from caprpc import ids
from caprpc.analysis.lint import CODES
from caprpc.analysis.lint import lint as find
from tests.policy.conftest import NOW, make_contracts

END = "not_after = 2999-06-30T00:00:00Z"


def findings(directory, wanted, **options):
    found = find(directory.load(), now=NOW, **options)
    assert {one.code for one in found} <= CODES.keys()
    return [(one.where, one.message) for one in found if one.code == wanted]


@pytest.mark.parametrize(
    ("left", "says"),
    [
        (timedelta(days=30), None),
        (timedelta(days=30) - timedelta(seconds=1), "policy org-b-feed ends in 29 days"),
        (timedelta(days=1), "policy org-b-feed ends in 1 day"),
        (timedelta(seconds=1), "policy org-b-feed ends in 0 days"),
    ],
    ids=["a month", "less than a month", "a day", "a second"],
)
def test_a_policy_that_ends_within_a_month_is_found(directory, left, says):
    directory.replace(END, f"not_after = {(NOW + left).isoformat()}")
    assert findings(directory, "expires-soon") == ([] if says is None else [("org-b.toml:9", says)])
    assert findings(directory, "expired") == []


def test_a_policy_that_has_ended_does_not_end_soon(directory):
    directory.replace(END, f"not_after = {NOW.isoformat()}")
    assert findings(directory, "expires-soon") == []
    assert findings(directory, "expired") == [("org-b.toml:9", f"policy org-b-feed ended at {NOW.isoformat()}")]


def test_only_a_policy_for_others_must_end(directory):
    directory.replace(f"{END}\n", "")
    text = "policy org-b-feed is for another organization and never ends"
    assert findings(directory, "no-expiry") == [("org-b.toml:8", text)]
    directory.replace('tags   = ["external"]\n', "")
    assert findings(directory, "no-expiry") == []


def test_a_policy_that_nobody_answers_for_or_gives_a_reason_for_is_found(directory):
    assert findings(directory, "no-owner") == findings(directory, "no-reason") == []
    directory.replace('owner  = "treasury-security@acme.example"\n', "")
    directory.replace('reason = "SEC-2044: intraday feed"\n', "")
    assert findings(directory, "no-owner") == [("org-b.toml:7", "policy org-b-feed has no owner")]
    assert findings(directory, "no-reason") == [("org-b.toml:7", "policy org-b-feed has no reason")]


def test_a_facet_that_nothing_gives_is_found_once(directory):
    spare = '[offer.Spare]\ninterface = "Ledger"\ncall = ["entries"]\niterate = true\n'
    directory.replace("[offer.HistoryRO]", f"{spare}[offer.HistoryRO]")
    text = "no root, lend or result gives the peer the facet Spare"
    assert findings(directory, "unreachable-facet") == [("org-b.toml:31", text)]


def test_an_accept_of_what_we_never_hold_is_found(directory):
    directory.replace("[accept.Sink]", "[accept.Iterator]\niterate = true\n[accept.Sink]")
    assert findings(directory, "idle-accept") == [("org-b.toml:42", "we never come to hold a Iterator of theirs")]


def test_a_call_of_the_peer_without_a_timeout_is_found_until_it_has_one(directory):
    text = "Ledger.subscribe may call the peer back, and nothing says how long that may take"
    assert findings(directory, "callback-without-timeout") == [("org-b.toml:18", text)]
    directory.replace(
        "[offer.FeedLedger.returns]", "[offer.FeedLedger.limit.subscribe]\ntimeout_s = 30\n[offer.FeedLedger.returns]"
    )
    assert findings(directory, "callback-without-timeout") == []


def changed(member):
    contracts = make_contracts()
    ledger = contracts["Ledger"]
    members = dict(ledger.members)
    members[ids.OP_CALL, member] = dataclasses.replace(members[ids.OP_CALL, member], returns="bool")
    return {**contracts, "Ledger": dataclasses.replace(ledger, members=members)}


def test_code_that_declares_something_else_is_found_where_it_is_granted(directory):
    assert findings(directory, "contract-drift", code=make_contracts()) == []
    text = "call 'post' of interface Ledger has changed in the code: the result was None, is bool"
    assert findings(directory, "contract-drift", code=changed("post")) == [("org-b.toml:18", text)]
    assert findings(directory, "contract-drift", code=changed("entries")) == [], "nobody may use it"


MODULE = """
from caprpc.interface import Interface, method

class Sink(Interface):
    @method(effect="read")
    def update(self, line: int) -> None: ...
"""


def test_drift_is_an_error_in_every_pipeline(run, directory, tmp_path, monkeypatch):
    (tmp_path / "lint_drift_sink.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    words = ("lint", directory.path, "--contracts", "lint_drift_sink", "--format")
    result = run(*words, "json")
    found = [one for one in json.loads(result.stdout)["findings"] if one["code"] == "contract-drift"]
    assert (result.exit_code, {(one["level"], one["file"], one["line"]) for one in found}) == (
        1,
        {("error", "org-b.toml", 42)},
    )
    assert [one["message"].partition(" of interface Sink ")[::2] for one in found] == [
        ("call 'update'", "has changed in the code: parameters were (line: str), are (line: int)"),
        ("call 'load'", "is gone from the code"),
    ]
    sarif = json.loads(run(*words, "sarif").stdout)["runs"][0]["results"]
    assert [one["level"] for one in sarif if one["ruleId"] == "contract-drift"] == ["error", "error"]
