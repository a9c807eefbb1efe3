"""The tools that answer questions about policies: what they print, and their exit codes."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from caprpc.analysis.authority import rule_toml
from caprpc.analysis.lint import CODES
from caprpc.cli.policy import policy
from caprpc.ids import OP_CALL
from caprpc.policy import ArgumentRule
from caprpc.policy.problems import CODES as PROBLEM_CODES
from tests.policy.conftest import FEED

ROOT = Path(__file__).parents[2]

ADMIN = """\
caprpc = 1
kind   = "policy"
name   = "ops-admin"
owner  = "ops@acme.example"
reason = "OPS-1"
[peer]
ca     = ["sha256:2222222222222222222222222222222222222222222222222222222222222222"]
spiffe = ["spiffe://acme.example/ops"]
[roots]
admin = "Admin"
[offer.Admin]
interface = "LedgerAdmin"
call = ["wipe"]
"""

TESTS = """\
caprpc = 1
kind   = "tests"
[[expect]]
id   = "T1"
peer = "org-b-feed"
may  = "Ledger.post"
args = { account = "A", amount = 10, currency = "EUR" }
facet = "FeedLedger"
[[expect]]
id      = "T2"
peer    = "spiffe://org-b.example/treasury/feed"
may_not = "Ledger.post"
args    = { amount = 10_001, currency = "EUR" }
[[expect]]
id      = "T3"
peer    = "org-b-feed"
reaches_not = "LedgerAdmin"
[[expect]]
id      = "T4"
peer    = "org-b-feed"
reaches = "HistoryRO"
"""


def test_list_has_one_line_for_each_right_with_its_rule(run, directory):
    result = run("list", directory.path, "--format", "json")
    rows = {row["member"]: row for row in json.loads(result.stdout)}
    assert result.exit_code == 0
    assert rows["Ledger.post"]["rule"] == "org-b.toml:18"
    assert rows["Ledger.post"]["limits"] == "per_second = 2"
    assert 'currency { in = ["EUR", "USD"] }' in rows["Ledger.post"]["arguments"]
    assert rows["History (iterate)"]["through"] == "root ledger > call history"
    assert rows["TextLines.readlines"]["through"].startswith("lent to Sink.load (source) for the call")


def test_list_who_can_names_nobody_with_a_code_of_its_own(run, directory):
    assert "org-b-feed" in run("list", directory.path, "--who-can", "Ledger.post").stdout
    nobody = run("list", directory.path, "--who-can", "LedgerAdmin.wipe")
    assert (nobody.exit_code, nobody.stderr) == (1, "nobody may use LedgerAdmin.wipe\n")


@pytest.mark.parametrize("form", ["markdown", "csv"])
def test_list_in_other_forms_has_every_member(run, directory, form):
    text = run("list", directory.path, "--format", form).stdout
    for name in ("Ledger.balance", "Ledger.currency (get)", "History (length)", "Iterator (next)"):
        assert name in text


@pytest.mark.parametrize(
    ("words", "code", "answer"),
    [
        (("Ledger.post", "account=A", "amount=5", "currency=EUR"), 0, "yes"),
        (("Ledger.post", "account=A", "amount=10001", "currency=EUR"), 1, "no: 'amount' fails the rule's 'max'"),
        (("Ledger.post", "account=A", "amount=0.001", "currency=EUR"), 1, "no: 'amount' fails the rule's 'min'"),
        (("Ledger.post", "amount=5"), 4, "cannot decide: it depends on 'currency'"),
        (("Ledger.close",), 1, "no: facet FeedLedger, held through root ledger, does not list Ledger.close"),
        (("LedgerAdmin.wipe",), 1, "no: no facet is for LedgerAdmin; the peer can hold"),
        (("Ledger.currency",), 0, "yes"),
        (("Ledger.currency", "--operation", "set"), 1, "no"),
        (("History", "--operation", "iterate"), 0, "yes"),
        (("Ledger",), 2, ""),
        (("Ledger.post", "amount"), 2, ""),
        (("Ledger.post", "amount=NaN"), 2, ""),
    ],
)
def test_can_i_answers_with_a_code(run, directory, words, code, answer):
    result = run("can-i", directory.path, "--peer", FEED, *words)
    assert result.exit_code == code, result.output
    assert result.stdout.startswith(answer)


def test_a_peer_that_no_policy_names_may_nothing(run, directory):
    result = run("can-i", directory.path, "--peer", "spiffe://nobody.example/x", "Ledger.post")
    assert result.exit_code == 1
    assert "no policy names spiffe://nobody.example/x" in result.stdout


def test_explain_shows_each_step_with_its_line(run, directory):
    result = run("explain", directory.path, "--peer", FEED, "History", "--operation", "length")
    assert result.exit_code == 0
    assert [line.rpartition("  ")[2] for line in result.stdout.splitlines()[:4]] == [
        "(org-b.toml:9)",
        "(org-b.toml:14)",
        "(org-b.toml:18)",
        "(org-b.toml:34)",
    ]


def test_reach_shows_the_path_or_says_unreachable(run, directory):
    result = run("reach", directory.path, "--peer", "org-b-feed", "History")
    assert result.exit_code == 0
    assert "root ledger: FeedLedger (org-b.toml:14)\n  call history: HistoryRO (org-b.toml:18)" in result.stdout
    gone = run("reach", directory.path, "--peer", "org-b-feed", "LedgerAdmin")
    assert (gone.exit_code, gone.stdout) == (1, "LedgerAdmin: unreachable for org-b-feed\n")


def test_diff_names_what_is_new_and_wider_and_narrower(run, directory, newer):
    newer.replace('get  = ["currency"]', 'get  = ["currency", "limit"]')
    newer.replace("max = 10_000", "max = 20_000")
    newer.replace("per_second = 2", "per_second = 1")
    newer.replace("length = true\n", "")
    result = run("diff", directory.path, newer.path, "--format", "json")
    found = {(one["verdict"], one["subject"]) for one in json.loads(result.stdout)["differences"]}
    assert result.exit_code == 1
    assert found == {
        ("new", "Ledger.limit (get)"),
        ("wider", "Ledger.post: arguments"),
        ("narrower", "Ledger.post: limits"),
        ("gone", "History (length)"),
    }


def test_what_is_newly_reached_is_named_with_its_path(run, directory, newer):
    newer.replace('subscribe = "opaque"', 'subscribe = "Sub"')
    newer.replace("[offer.HistoryRO]", '[offer.Sub]\ninterface = "Subscription"\ncall = ["stop"]\n[offer.HistoryRO]')
    found = json.loads(run("diff", directory.path, newer.path, "--format", "json").stdout)["differences"]
    assert [(one["verdict"], one["subject"], one["through"], one["new_rule"]) for one in found] == [
        ("wider", "Ledger.subscribe: result", "root ledger", "org-b.toml:18"),
        ("new", "Subscription.stop", "root ledger > call subscribe", "org-b.toml:33"),
    ]
    text = run("diff", directory.path, newer.path).stdout
    assert "  new      Subscription.stop, through root ledger > call subscribe: nothing -> unrestricted" in text
    back = json.loads(run("diff", newer.path, directory.path, "--format", "json").stdout)["differences"]
    assert ("gone", "root ledger > call subscribe", "org-b.toml:33") in [
        (one["verdict"], one["through"], one["old_rule"]) for one in back
    ]


def test_diff_of_renamed_facets_is_none(run, directory, newer):
    text = (newer.path / "org-b.toml").read_text().replace("FeedLedger", "Renamed").replace("HistoryRO", "Other")
    newer.write("org-b.toml", text)
    result = run("diff", directory.path, newer.path)
    assert (result.exit_code, result.stdout) == (0, "no difference in what anybody may do\n")


def test_diff_of_a_narrower_policy_is_clean(run, directory, newer):
    newer.replace("max = 10_000", "max = 5_000")
    result = run("diff", directory.path, newer.path)
    assert result.exit_code == 0
    assert result.stdout.endswith("1 narrower; nobody may do more than before\n")


def test_diff_lets_an_approved_widening_pass_and_no_other(run, directory, newer, tmp_path):
    newer.replace('get  = ["currency"]', 'get  = ["currency", "limit"]')
    found = json.loads(run("diff", directory.path, newer.path, "--format", "json").stdout)["differences"]
    approved = tmp_path / "approved.toml"
    key = found[0]["key"].replace("\\", "\\\\").replace('"', '\\"')
    text = f'caprpc = 1\nkind = "approvals"\n[[pass]]\nwhat = "{key}"\nby = "sec@acme.example"\nreason = "SEC-1"\n'
    approved.write_text(text)
    passed = run("diff", directory.path, newer.path, "--approvals", approved)
    assert passed.exit_code == 0
    assert passed.stdout.endswith("1 new; nobody may do more than was approved\n")
    newer.replace("max = 10_000", "max = 20_000")
    assert run("diff", directory.path, newer.path, "--approvals", approved).exit_code == 1
    approved.write_text(text + "until = 2020-01-01T00:00:00Z\n")
    newer.replace("max = 20_000", "max = 10_000")
    assert run("diff", directory.path, newer.path, "--approvals", approved).exit_code == 1
    approved.write_text(text.replace("by =", "buy ="))
    assert run("diff", directory.path, newer.path, "--approvals", approved).exit_code == 3


def test_diff_between_git_revisions(run, directory):
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

    def git(*words):
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "init.defaultBranch=main"]
        subprocess.run(
            ["git", "-C", directory.path.parent, *identity, *words], check=True, env=environment, capture_output=True
        )

    # A policy directory holds nothing but policies: the repository is the directory above.
    for words in (("init", "-q"), ("add", "policies"), ("commit", "-qm", "one"), ("tag", "v1")):
        git(*words)
    assert run("diff", "--git", "v1", directory.path).exit_code == 0
    directory.replace("per_second = 2", "per_second = 3")
    changed = run("diff", "--git", "v1", directory.path)
    assert changed.exit_code == 1, changed.output
    assert "Ledger.post: limits" in changed.stdout
    for words in (("commit", "-qam", "two"), ("tag", "v2")):
        git(*words)
    directory.replace("per_second = 3", "per_second = 1")
    between = run("diff", "--git", "v1..v2", directory.path, "--format", "json")
    (row,) = json.loads(between.stdout)["differences"]
    assert (between.exit_code, row["old"], row["new"]) == (1, "per_second = 2", "per_second = 3")
    assert run("diff", "--git", "v2..v1", directory.path).exit_code == 0
    assert run("diff", "--git", "v2", directory.path).exit_code == 0
    assert run("diff", "--git", "nowhere", directory.path).exit_code == 2
    assert run("diff", "--git", "--help", directory.path).exit_code == 2


def test_lint_finds_what_loads_and_is_likely_wrong(run, directory, tmp_path):
    directory.replace('call = ["update", "load"]', 'call = ["update"]')
    result = run("lint", directory.path, "--format", "json")
    codes = {one["code"] for one in json.loads(result.stdout)["findings"]}
    assert result.exit_code == 1
    assert {"idle-lend", "callback-without-timeout"} <= codes
    sarif = json.loads(run("lint", directory.path, "--format", "sarif").stdout)
    assert {one["ruleId"] for one in sarif["runs"][0]["results"]} == codes
    baseline = tmp_path / "baseline.toml"
    assert run("lint", directory.path, "--write-baseline", baseline).exit_code == 0
    assert run("lint", directory.path, "--baseline", baseline).exit_code == 0
    directory.replace('owner  = "treasury-security@acme.example"\n', "")
    again = run("lint", directory.path, "--baseline", baseline)
    assert again.exit_code == 1
    assert "[no-owner]" in again.stdout


def test_lint_names_warnings_of_the_loader_by_their_own_codes(run, directory):
    directory.replace("2" * 64, "0" * 64)
    directory.replace('text = "nobody reaches LedgerAdmin"', 'text = "x"\nexcept = ["ops-admn"]', "caprpc.toml")
    directory.replace('tags   = ["external"]\n', 'tags   = ["external"]\nnot_before = 2020-01-01T00:00:00Z\n')
    directory.replace("not_after = 2999-06-30T00:00:00Z", "not_after = 2021-06-30T00:00:00Z")
    found = json.loads(run("lint", directory.path, "--format", "json").stdout)["findings"]
    codes = [one["code"] for one in found]
    assert {"placeholder", "no-such-policy"} <= set(codes)
    assert codes.count("expired") == 1


def test_lint_says_what_ends_soon_and_what_never_ends(run, directory):
    directory.replace("not_after = 2999-06-30T00:00:00Z", "")
    assert "[no-expiry]" in run("lint", directory.path).stdout


def test_expectations_are_run_with_the_rule_as_part_of_the_answer(run, directory):
    directory.write("tests.toml", TESTS)
    directory.replace('audit = "../audit"', 'audit = "../audit"\ntests = ["tests.toml"]', "caprpc.toml")
    assert run("test", directory.path).exit_code == 0
    found = json.loads(run("test", directory.path, "--format", "json").stdout)
    assert found["expectations"][0]["rule"] == "org-b.toml:18"
    directory.replace('facet = "FeedLedger"', 'rule = "org-b.toml:19"', "tests.toml")
    failed = run("test", directory.path)
    assert failed.exit_code == 1
    assert "FAIL T1" in failed.stdout
    assert "by org-b.toml:18 and not by org-b.toml:19" in failed.stdout


def test_coverage_names_grants_that_no_test_would_miss(run, directory):
    directory.write("tests.toml", TESTS)
    directory.replace('audit = "../audit"', 'audit = "../audit"\ntests = ["tests.toml"]', "caprpc.toml")
    result = run("test", directory.path, "--coverage", "--format", "json")
    survivors = {line["text"] for line in json.loads(result.stdout)["coverage"]["survivors"]}
    assert result.exit_code == 1
    assert "org-b-feed: Ledger.balance (FeedLedger)" in survivors
    assert "org-b-feed: Ledger.post (FeedLedger)" not in survivors
    assert "org-b-feed: Ledger.history (FeedLedger)" not in survivors


def test_an_expectation_that_fails_anyway_covers_nothing(run, directory):
    directory.write("tests.toml", TESTS.replace('facet = "FeedLedger"', 'rule = "org-b.toml:1"'))
    directory.replace('audit = "../audit"', 'audit = "../audit"\ntests = ["tests.toml"]', "caprpc.toml")
    found = json.loads(run("test", directory.path, "--coverage", "--format", "json").stdout)
    survivors = {line["text"] for line in found["coverage"]["survivors"]}
    assert not found["passed"]
    assert "org-b-feed: Ledger.balance (FeedLedger)" in survivors
    assert "org-b-feed: Ledger.history (FeedLedger)" not in survivors


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('peer = "org-b-feed"\nmay  = "Ledger.post"', 'peer = "org-b-feed"\nmai  = "Ledger.post"', "unknown key 'mai'"),
        ('may_not = "Ledger.post"', 'may_not = "Ledger.post"\nmay = "Ledger.post"', "here are 2"),
        ('id      = "T3"', 'id      = "T2"', "the id 'T2' is taken at tests.toml:9"),
        ('kind   = "tests"', 'kind   = "policy"', "kind 'policy' where 'tests' is expected"),
        ('reaches = "HistoryRO"', 'may = "HistoryRO"', "names no member"),
    ],
)
def test_a_test_file_with_a_mistake_does_not_load(directory, old, new, message):
    assert TESTS.count(old) == 1
    directory.write("tests.toml", TESTS.replace(old, new))
    directory.replace('audit = "../audit"', 'audit = "../audit"\ntests = ["tests.toml"]', "caprpc.toml")
    assert any(message in text for _, text, _ in directory.problems())


def test_a_test_file_that_is_not_listed_does_not_load(directory):
    directory.write("tests.toml", TESTS)
    assert any("is not listed" in text for _, text, _ in directory.problems())


def test_report_is_one_file_without_scripts(run, directory, newer, tmp_path):
    newer.replace("max = 10_000", "max = 20_000")
    newer.write("admin.toml", ADMIN)
    newer.replace('policies = ["org-b.toml"]', 'policies = ["org-b.toml", "admin.toml"]', "caprpc.toml")
    newer.replace('text = "nobody reaches LedgerAdmin"', 'text = "a < b & c"\nexcept = ["ops-admin"]', "caprpc.toml")
    target = tmp_path / "report.html"
    assert run("report", newer.path, "--html", target, "--since", directory.path).exit_code == 0
    text = target.read_text()
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert "a &lt; b &amp; c" in text
    assert "Ledger.post: arguments" in text
    assert 'class="no">no' in text
    assert text.count("<svg") == 2
    assert "No older version was given" not in text
    assert "No audit log was given to compare with." in text
    assert run("report", newer.path, "--html", target).exit_code == 0
    assert "No older version was given to compare with." in target.read_text()


def test_the_drawing_names_each_lend_by_its_parameter_and_cuts_no_label_that_has_room(run, tmp_path):
    target = tmp_path / "report.html"
    assert run("report", ROOT / "policies" / "ledger-partner", "--html", target).exit_code == 0
    labels = re.findall(r'<text class="label"[^>]*>([^<]*)</text>', target.read_text())
    assert labels == [
        "lent to Ledger.load (postings)",
        "lent to Ledger.load (progress)",
        "lent to Ledger.subscribe (sink)",
        "call readlines, iterate",
    ]
    drawing = target.read_text().partition("<svg")[2].partition("</svg>")[0]
    assert drawing.rindex('class="arrow"') < drawing.index('class="label"'), "a line would cross a label"


def test_export_as_json_has_what_each_peer_may(run, directory):
    found = json.loads(run("export", directory.path, "--to", "json").stdout)
    assert {right["member"] for right in found["policies"][0]["may"]} >= {"Ledger.post", "History (iterate)"}
    assert found["never"][0]["id"] == "N1"


def test_csv_export_gives_a_spreadsheet_no_formula():
    from caprpc.cli.findings import as_csv

    assert as_csv(("a",), [("=1+1",), ("@x",)]).splitlines() == ["a", "'=1+1", "'@x"]


def test_tools_say_what_does_not_load(run, tmp_path, directory):
    directory.write("org-b.toml", "caprpc = 1\nkind = 'policy'\nbroken")
    for words in (("list",), ("lint",), ("reach", "--peer", "x"), ("test",), ("export", "--to", "json")):
        result = run(words[0], directory.path, *words[1:])
        assert result.exit_code == 3, result.output
        assert "org-b.toml:3" in result.stderr


def test_baseline_that_is_written_is_toml(run, directory, tmp_path):
    baseline = tmp_path / "baseline.toml"
    run("lint", directory.path, "--write-baseline", baseline)
    assert tomllib.loads(baseline.read_text())["kind"] == "baseline"


def test_the_reference_lists_every_tool_and_every_finding():
    page = (ROOT / "docs" / "reference" / "policy-tools.md").read_text()
    for name in policy.commands:
        assert f"| `{name} " in page, name
    problems, _, findings = page.partition("## Findings of `lint`")
    for codes, part in ((CODES, findings), (PROBLEM_CODES, problems)):
        rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", part, re.M))
        assert {code: rows.get(code) for code in codes} == dict(codes)


def test_every_problem_has_a_code_of_the_list_and_a_column_within_its_line(run, directory):
    directory.replace(
        'call = ["balance", "history", "post", "subscribe"]', 'call = ["balance", "histori", "post", "subscribe"]'
    )
    directory.replace("per_second = 2", "per_secnd = 2")
    found = json.loads(run("check", directory.path, "--format", "json").stdout)["problems"]
    places = {(one["code"], one["line"], one["column"]) for one in found}
    assert ("no-such-member", 18, 20) in places
    assert ("unknown-key", 24, 1) in places
    text = run("check", directory.path).stdout
    assert "org-b.toml:18:20: error: interface Ledger has no member 'histori' for 'call' [no-such-member]" in text


@pytest.mark.parametrize(
    ("characters", "shown"),
    [
        ("abc", '["a-c"]'),
        ("ab", '["a", "b"]'),
        ("azAZ09-_", '["-", "0", "9", "A", "Z", "_", "a", "z"]'),
        ("".join(map(chr, range(32, 127))), '[" -~"]'),
        ("+,-.", '["+-."]'),
    ],
)
def test_characters_of_a_rule_are_shown_as_they_may_be_written(load_with, characters, shown):
    rule = ArgumentRule(chars=frozenset(characters))
    assert rule_toml(rule) == f"{{ chars = {shown} }}"
    policies = load_with(('currency = { in = ["EUR", "USD"] }', f"currency = {rule_toml(rule)}"))
    grant = policies.policies[0].offers["FeedLedger"].grants[OP_CALL, "post"]
    assert grant.arguments["currency"].chars == frozenset(characters)
