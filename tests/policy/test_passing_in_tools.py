"""What crosses more than one connection, and what outlives one, in every tool: no authority that no tool shows."""

import json
import tomllib

import pytest

from caprpc.analysis.authority import number_text
from caprpc.audit import AuditLog
from tests.policy.conftest import FEED

VAULT = "spiffe://org-c.example/vault"
OFFER = '[offer.HistoryRO]\ninterface = "History"\n'
PASSES = f'{OFFER}forward = true\nforward_from = ["{VAULT}"]\n'
SAYS = f"may be passed on to third parties; stands for objects of {VAULT}"
LEND = '[[lend]]\nto = "Sink.load"\nparam = "source"\nas = "LinesOnly"\nlifetime = "call"\n'


@pytest.fixture
def changed(directory, newer, run):
    """Return a function that changes the policy and returns the differences, as verdict, subject, old and new."""

    def change(*pairs):
        for file in directory.path.iterdir():
            newer.write(file.name, file.read_bytes())
        for old, new in pairs:
            newer.replace(old, new)
        result = run("diff", directory.path, newer.path, "--format", "json")
        rows = json.loads(result.stdout)["differences"]
        return result.exit_code, [(row["verdict"], row["subject"], row["old"], row["new"]) for row in rows]

    return change


def line_of(directory, text):
    """Return the number of the line of the policy that begins so."""
    lines = (directory.path / "org-b.toml").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.startswith(text))


def test_a_facet_that_may_be_passed_on_is_a_widening(changed):
    code, rows = changed((OFFER, f"{OFFER}forward = true\n"))
    assert (code, rows) == (1, [("wider", "History: passing on", "none", "may be passed on to third parties")])


def test_a_facet_for_objects_of_others_is_a_widening(changed):
    code, rows = changed((OFFER, f'{OFFER}forward_from = ["{VAULT}"]\n'))
    assert (code, rows) == (1, [("wider", "History: passing on", "none", f"stands for objects of {VAULT}")])


def test_taking_passing_away_is_narrower(changed, directory):
    directory.replace(OFFER, PASSES)
    code, rows = changed((PASSES, f"{OFFER}forward = true\n"))
    assert (code, rows) == (0, [("narrower", "History: passing on", SAYS, "may be passed on to third parties")])


RESTORE = '[restore.kept]\nas = "HistoryRO"\nmax_for_s = 1_234_567\n'


@pytest.mark.parametrize(
    ("new", "code", "row"),
    [
        ("max_for_s = 1_234_568", 1, ("wider", "for at most 1234567 s", "for at most 1234568 s")),
        ("max_for_s = 1_234_566", 0, ("narrower", "for at most 1234567 s", "for at most 1234566 s")),
        (
            "max_for_s = 1_234_567\nbearer = true",
            1,
            ("wider", "for at most 1234567 s", "for at most 1234567 s, as bearer, too"),
        ),
        ("", 1, ("wider", "for at most 1234567 s", "without end")),
    ],
)
def test_the_terms_of_a_restore_are_compared_by_themselves(changed, directory, new, code, row):
    directory.replace("[offer.FeedLedger]", f"{RESTORE}[offer.FeedLedger]")
    found = changed(("max_for_s = 1_234_567", new))
    assert found == (code, [(row[0], "restore kept", row[1], row[2])])


def test_two_lends_in_one_line_are_two(changed, directory):
    """Rules name lines, and a line may hold more than one lend: each of them is compared."""
    contracts = (directory.path / "contracts.toml").read_text()
    load = next(part for part in contracts.split("\n\n") if 'name = "load"' in part)
    directory.write("contracts.toml", f"{contracts}\n{load.replace('interface.Sink', 'interface.Ledger')}\n")
    one = '{ to = "Sink.load", param = "source", as = "LinesOnly", lifetime = "call" }'
    directory.replace(LEND, "")
    directory.replace("reason =", f"lend = [{one}, {one.replace('Sink', 'Ledger')}]\nreason =")
    directory.replace("[accept.Sink]", '[accept.Ledger]\ncall = ["load"]\n[accept.Sink]')
    wide = '[offer.Lines]\ninterface = "TextLines"\ncall = ["readlines", "read"]\niterate = true\n'
    code, rows = changed((one, one.replace("LinesOnly", "Lines")), ("[accept.Ledger]", f"{wide}[accept.Ledger]"))
    assert (code, [row[:2] for row in rows]) == (1, [("new", "TextLines.read")])


def test_every_tool_shows_what_may_be_passed_on(run, directory):
    directory.replace(OFFER, PASSES)
    path = directory.path
    assert f"HistoryRO {SAYS}" in run("check", path).stdout
    rows = json.loads(run("list", path, "--format", "json").stdout)
    assert {row["facet"] for row in rows if row["passing"] == SAYS} == {"HistoryRO", "HistoryRO/iterator"}
    assert SAYS in run("reach", path, "--peer", "org-b-feed", "HistoryRO").stdout
    (held,) = json.loads(run("reach", path, "--peer", "org-b-feed", "HistoryRO", "--format", "json").stdout)
    assert (held["forward"], held["forward_from"]) == (True, [VAULT])
    explained = run("explain", path, "--peer", "org-b-feed", "History", "--operation", "length").stdout
    assert f"facet HistoryRO {SAYS}  (org-b.toml:{line_of(directory, '[offer.HistoryRO]')})" in explained
    assert SAYS in run("export", path, "--to", "csv").stdout
    exported = json.loads(run("export", path, "--to", "json").stdout)["policies"][0]["may"]
    assert {row["facet"] for row in exported if row["forward"]} == {"HistoryRO", "HistoryRO/iterator"}
    report = path.parent / "report.html"
    run("report", path, "--html", report)
    text = report.read_text()
    assert "What crosses more than one connection" in text
    assert "org-c.example" in text


def test_what_may_be_restored_is_exported(run, directory):
    directory.replace("[offer.FeedLedger]", f"{RESTORE}[offer.FeedLedger]")
    (exported,) = json.loads(run("export", directory.path, "--to", "json").stdout)["policies"]
    line = line_of(directory, "[restore.kept]")
    assert exported["restores"] == [
        {"name": "kept", "as": "HistoryRO", "bearer": False, "max_for_s": 1_234_567.0, "rule": f"org-b.toml:{line}"}
    ]
    assert exported["roots"] == {"ledger": "FeedLedger"}
    assert "restore  kept as HistoryRO for at most 1234567 s" in run("check", directory.path).stdout


@pytest.mark.parametrize(
    ("number", "text"), [(30.0, "30"), (1_234_567.0, "1234567"), (0.25, "0.25"), (1_000_000.0, "1000000"), (7, "7")]
)
def test_numbers_are_shown_with_every_digit(number, text):
    assert number_text(number) == text
    assert float(text) == number


@pytest.fixture
def learn(directory, run, tmp_path):
    """Return a function that drafts from a log with one permitted operation on each of some facets."""

    def drafted(*used):
        log = AuditLog.open(tmp_path / "log", name="server")
        for facet, operation in used:
            fields = {"facet": facet, "operation": operation, "decision": "permit", "rule": "x:1"}
            log.relation(FEED).record("decision", peer=FEED, **fields)
        log.close()
        return tomllib.loads(run("learn", directory.path, "--log", tmp_path / "log").stdout)

    return drafted


CONTEXT = """\
[offer.Held]
interface = "ContextManager"
context = true
[offer.Held.returns]
context = "HistoryRO"
[offer.Held.limit.context]
per_hour = 3
[offer.Each]
interface = "Iterator"
iterate = true
[offer.Each.returns]
iterate = "HistoryRO"
[offer.Each.limit.iterate]
max_items = 5
"""


@pytest.mark.parametrize("operations", [("enter", "exit"), ("exit", "enter"), ("exit",)], ids="+".join)
def test_a_draft_keeps_what_a_context_gives_and_its_limits(learn, directory, operations):
    directory.replace('ledger = "FeedLedger"\n', 'ledger = "FeedLedger"\nheld = "Held"\neach = "Each"\n')
    directory.replace("[offer.FeedLedger]", f"{CONTEXT}[offer.FeedLedger]")
    used = [("Held", operation) for operation in operations]
    drafted = learn(*used, ("Each", "next"), ("Each", "close"), ("HistoryRO", "length"))["offer"]
    assert (drafted["Held"]["returns"], drafted["Held"]["limit"]) == (
        {"context": "HistoryRO"},
        {"context": {"per_hour": 3.0}},
    )
    assert (drafted["Each"]["returns"], drafted["Each"]["limit"]) == (
        {"iterate": "HistoryRO"},
        {"iterate": {"max_items": 5}},
    )


def test_a_draft_keeps_what_may_be_passed_on_and_rounds_nothing(learn, directory):
    directory.replace(OFFER, f"{RESTORE}{PASSES}")
    directory.replace('lifetime = "call"', "lifetime = 1_234_567")
    drafted = learn(("HistoryRO", "length"), ("LinesOnly", "iterate"))
    assert drafted["offer"]["HistoryRO"]["forward"] is True
    assert drafted["offer"]["HistoryRO"]["forward_from"] == [VAULT]
    assert drafted["restore"]["kept"]["max_for_s"] == 1_234_567
    assert drafted["lend"][0]["lifetime"] == 1_234_567
