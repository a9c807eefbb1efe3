"""Two policies that name one SPIFFE ID for different CAs: two peers, and no tool takes the one for the other."""

import json
import tomllib

import pytest

from caprpc.audit import AuditLog
from tests.policy.conftest import CA, FEED, PolicyDirectory

OTHER = "sha256:" + "7" * 64
STRANGER = "sha256:" + "8" * 64


def add_second(directory):
    """Add a policy for the same ID under another CA, with the same words."""
    text = (directory.path / "org-b.toml").read_text()
    directory.write("second.toml", text.replace(CA, OTHER).replace('"org-b-feed"', '"second"'))
    directory.replace('["org-b.toml"]', '["org-b.toml", "second.toml"]', "caprpc.toml")


@pytest.fixture
def two(directory):
    add_second(directory)
    return directory


@pytest.fixture
def log(tmp_path):
    """Return a function that writes connections: the CA, None for one whose opening is not there, and what was called.

    It returns the place of the last decision.
    """

    def write(*connections, closed=False):
        log = AuditLog.open(tmp_path / "log", name="server")
        relation = log.relation(FEED)
        for number, (anchor, *members) in enumerate(connections):
            common = {"peer": FEED, "connection": f"c{number}"}
            if anchor is not None:
                relation.record("open", **common, anchor=anchor)
            for member in members:
                fields = {"facet": "FeedLedger", "operation": "call", "member": member, "decision": "permit"}
                relation.record("decision", **common, **fields, rule="x.toml:1", policy="sha256:other")
        log.close()
        (file,) = (tmp_path / "log").glob("spiffe-*.jsonl")
        lines = file.read_text().splitlines()
        last = max(number for number, line in enumerate(lines, 1) if '"decision"' in line)
        return f"{file.name}:{last}"

    write.path = tmp_path / "log"
    return write


def unused_of(run, directory, log, *words):
    rows = json.loads(run("unused", directory.path, "--log", log.path, "--format", "json", *words).stdout)
    return {row["text"] for row in rows}


@pytest.mark.parametrize(("anchor", "idle"), [(CA, "second"), (OTHER, "org-b-feed")])
def test_a_call_uses_the_policy_of_its_own_ca(run, two, log, anchor, idle):
    log((anchor, "post", "balance"))
    found = unused_of(run, two, log)
    assert f"policy {idle}: its peer has done nothing" in found
    assert not any("Ledger.post (FeedLedger)" in text for text in found)
    assert any("Ledger.history (FeedLedger) was never used" in text for text in found)


def test_a_connection_that_was_opened_before_is_known_by_its_ca_still(run, two, log):
    log((OTHER, "post"))
    (file,) = log.path.glob("spiffe-*.jsonl")
    (time,) = [json.loads(line)["time"] for line in file.read_text().splitlines() if '"decision"' in line]
    assert "policy org-b-feed: its peer has done nothing" in unused_of(run, two, log, "--since", time)


def test_what_may_have_been_used_is_not_said_to_be_unused(run, two, log):
    log((None, "post"))
    assert not any("its peer has done nothing" in text for text in unused_of(run, two, log))


def test_a_ca_that_was_exchanged_makes_no_call_unused(run, directory, log):
    log((STRANGER, "post"))
    found = unused_of(run, directory, log)
    assert any("Ledger.balance (FeedLedger) was never used" in text for text in found)
    assert not any("Ledger.post (FeedLedger)" in text for text in found)


def test_a_draft_is_of_the_policy_that_was_used(run, two, log):
    log((OTHER, "post"))
    result = run("learn", two.path, "--log", log.path)
    assert result.exit_code == 0, result.output
    drafted = tomllib.loads(result.stdout)
    assert (drafted["name"], drafted["peer"]["ca"], drafted["offer"]["FeedLedger"]["call"]) == (
        "second",
        [OTHER],
        ["post"],
    )


def test_a_call_under_one_of_two_policies_proposes_nothing_and_is_told_of(run, two, log):
    log((OTHER, "balance"), (None, "post", "post"))
    result = run("learn", two.path, "--log", log.path)
    assert tomllib.loads(result.stdout)["offer"]["FeedLedger"]["call"] == ["balance"]
    assert f"left out: 2 calls of {FEED}: more than one policy names it" in result.stderr


def shadowed(run, directory, log):
    rows = json.loads(run("shadow", directory.path, "--log", log.path, "--format", "json").stdout)
    return [(row["verdict"], row["call"], row["because"]) for row in rows]


@pytest.fixture
def narrowed(two):
    """The second policy grants a call less."""
    two.replace('call = ["balance", "history"', 'call = ["history"', "second.toml")
    return two


def test_a_candidate_decides_a_call_under_the_policy_of_its_ca(run, narrowed, log):
    log((CA, "balance"))
    assert shadowed(run, narrowed, log) == []


def test_a_candidate_refuses_a_call_under_the_policy_of_its_ca(run, narrowed, log):
    log((OTHER, "balance"))
    text = "second.toml:16 does not list it"
    assert shadowed(run, narrowed, log) == [("would be refused", "FeedLedger: call balance", text)]


def test_a_call_whose_ca_is_not_known_may_be_refused(run, narrowed, log):
    log((None, "balance"))
    ((verdict, _, why),) = shadowed(run, narrowed, log)
    assert verdict == "may be refused"
    unknown = "which policy it is the log does not say, for it does not hold the CA"
    assert why == f"second.toml:16 does not list it; {unknown}"


def test_a_candidate_for_another_ca_lets_nobody_in(run, directory, log):
    log((STRANGER, "balance"))
    text = f"no policy names the peer with the CA key {STRANGER}"
    assert shadowed(run, directory, log) == [("would be refused", "FeedLedger: call balance", text)]


@pytest.mark.parametrize(
    ("anchor", "code", "says"),
    [
        (CA, 0, "facet FeedLedger grants Ledger.balance  (org-b.toml:18)"),
        (OTHER, 1, "does not list Ledger.balance  (second.toml:16)"),
        (STRANGER, 1, f"no policy names {FEED} with the CA key {STRANGER}: it is not let in at all  (caprpc.toml)"),
        (None, 4, f"org-b-feed, second name {FEED} for different CAs, and the log does not hold the CA"),
    ],
    ids=["first", "second", "none", "unknown"],
)
def test_a_logged_call_is_explained_under_the_policy_of_its_ca(run, narrowed, log, anchor, code, says):
    place = log((anchor, "balance"))
    result = run("explain", narrowed.path, "--log", log.path, "--reference", place)
    assert result.exit_code == code, result.output
    assert says in result.stdout


@pytest.mark.parametrize("words", [("can-i", "Ledger.post"), ("explain", "Ledger.post"), ("reach",), ("list",)])
def test_a_question_about_both_says_so(run, two, words):
    result = run(words[0], two.path, "--peer", FEED, *words[1:])
    assert f"note: 2 policies name {FEED}, each for another CA: org-b-feed, second" in result.stderr
    assert "note" not in run(words[0], two.path, "--peer", "second", *words[1:]).stderr


def test_what_is_reached_names_the_policy_where_there_are_two(run, two):
    lines = run("reach", two.path, "--peer", FEED, "HistoryRO").stdout.splitlines()
    assert [line.rpartition("under policy ")[2] for line in lines if "in 2 steps" in line] == ["org-b-feed", "second"]


def test_what_is_approved_for_one_is_not_approved_for_the_other(run, two, tmp_path):
    candidate = PolicyDirectory(tmp_path / "candidate")
    add_second(candidate)
    candidate.replace('get  = ["currency"]', 'get  = ["currency", "limit"]')
    words = ("diff", two.path, candidate.path)
    (found,) = json.loads(run(*words, "--format", "json").stdout)["differences"]
    assert found["peer"] == f"{FEED} (policy org-b-feed)"
    approved = tmp_path / "approved.toml"
    entry = f'[[pass]]\nwhat = "{found["key"]}"\nby = "sec@acme.example"\nreason = "SEC-1"\n'
    approved.write_text(f'caprpc = 1\nkind = "approvals"\n{entry}')
    assert run(*words, "--approvals", approved).exit_code == 0
    candidate.replace('get  = ["currency"]', 'get  = ["currency", "limit"]', "second.toml")
    result = run(*words, "--approvals", approved)
    assert result.exit_code == 1
    assert f"{FEED} (policy second)" in result.stdout
