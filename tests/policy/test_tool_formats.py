"""What the tools print for machines and for other people's pages: SARIF, JUnit, Markdown, CSV."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import unquote

import cedarpy
import pytest
from click.testing import CliRunner

from caprpc.audit import AuditLog
from caprpc.cli import main
from caprpc.cli.findings import Shown, as_csv, markdown
from caprpc.cli.policy import policy
from caprpc.cli.sarif import as_sarif
from tests.policy.conftest import FEED, PolicyDirectory
from tests.policy.test_policy_tools import TESTS

HOSTILE = "a|b `c` [click](http://evil.example) *d* _e_ <img src=x> &lt; \\| ![i](j) ~~f~~ $g$\nnew\rline\u202e"


@pytest.fixture
def run(directory, monkeypatch):
    monkeypatch.chdir(directory.path.parent)
    return lambda *words: CliRunner().invoke(main, ["policy", *map(str, words)])


def checked_sarif(text: str) -> list[dict]:
    """Return the results of a log in which everything that SARIF 2.1.0 requires is there and of its form."""
    log = json.loads(text)
    assert log["version"] == "2.1.0"
    (found,) = log["runs"]
    driver = found["tool"]["driver"]
    assert driver["name"]
    assert found["columnKind"] in {"unicodeCodePoints", "utf16CodeUnits"}
    rules = [rule["id"] for rule in driver["rules"]]
    assert len(set(rules)) == len(rules)
    for rule in driver["rules"]:
        check_message(rule["shortDescription"])
    for result in found["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in {"none", "note", "warning", "error"}
        check_message(result["message"])
        assert all(re.fullmatch("[0-9a-f]{32}", one) for one in result["partialFingerprints"].values())
        (location,) = result["locations"]
        place = location["physicalLocation"]
        check_artifact(place["artifactLocation"])
        region = place.get("region", {"startLine": 1})
        assert region["startLine"] >= 1
        assert region.get("startColumn", 1) >= 1
    return found["results"]


def check_message(message: dict) -> None:
    assert message["text"]
    # 3.11.5: a brace would be a placeholder; 3.11.6: [text](address) is a link.
    assert not re.search(r"[{}]", message["text"])
    assert "](" not in message["text"]


def check_artifact(location: dict) -> None:
    uri = location["uri"]
    assert re.fullmatch(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-F]{2})+", uri), uri
    if uri.startswith("file:///"):
        assert "uriBaseId" not in location
    else:
        assert not uri.startswith(("/", ".."))
        assert location["uriBaseId"] == "%SRCROOT%"


def test_sarif_of_check_has_line_and_column_of_each_problem(run, directory):
    directory.replace("per_second = 2", "per_secnd = 2")
    directory.replace('"post", "subscribe"]', '"pots", "subscribe"]')
    result = run("check", "policies", "--format", "sarif")
    assert result.exit_code == 3
    found = {one["ruleId"]: one for one in checked_sarif(result.stdout)}
    place = found["no-such-member"]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "policies/org-b.toml", "uriBaseId": "%SRCROOT%"}
    assert place["region"] == {"startLine": 18, "startColumn": 31}


def test_sarif_of_what_has_no_place_names_the_index(run, tmp_path):
    (place,) = checked_sarif(run("check", tmp_path / "nowhere", "--format", "sarif").stdout)[0]["locations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"].endswith("nowhere/caprpc.toml")


def test_sarif_of_lint_diff_and_unused_is_whole(run, directory, tmp_path):
    directory.replace('owner  = "treasury-security@acme.example"\n', "")
    assert {one["ruleId"] for one in checked_sarif(run("lint", directory.path, "--format", "sarif").stdout)} >= {
        "no-owner"
    }

    newer = PolicyDirectory(tmp_path / "newer one")
    newer.replace("max = 10_000", "max = 20_000")
    (wider,) = checked_sarif(run("diff", directory.path, newer.path, "--format", "sarif").stdout)
    assert wider["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "newer%20one/org-b.toml"
    assert "amount ( min = 0.01, max = 20000 )" in wider["message"]["text"]


@pytest.mark.parametrize(
    ("directory", "uri"),
    [
        ("p", "p/f.toml"),
        ("./a/../p", "p/f.toml"),
        ("p q/ü#?", "p%20q/%C3%BC%23%3F/f.toml"),
        ("/elsewhere/p", "file:///elsewhere/p/f.toml"),
        ("../p", "file://"),
    ],
)
def test_addresses_are_relative_where_they_can_be(tmp_path, monkeypatch, directory, uri):
    monkeypatch.chdir(tmp_path)
    (result,) = checked_sarif(as_sarif([Shown("error", "c", "f.toml:3", "m")], Path(directory), {}))
    location = result["locations"][0]["physicalLocation"]["artifactLocation"]
    assert location["uri"].startswith(uri)
    assert unquote(location["uri"]).endswith("/f.toml")


def test_a_finding_keeps_its_fingerprint_when_lines_move():
    def fingerprints(where, message):
        (result,) = checked_sarif(as_sarif([Shown("error", "c", where, message)], Path("p"), {}))
        return result["partialFingerprints"]

    assert fingerprints("f.toml:3", "m") == fingerprints("f.toml:4", "m")
    assert fingerprints("f.toml:3", "m") != fingerprints("f.toml:3", "n")
    assert fingerprints("f.toml:3", "m") != fingerprints("g.toml:3", "m")


def test_a_hostile_text_is_no_link_and_no_placeholder_in_sarif():
    checked_sarif(
        as_sarif(
            [Shown("error", "c", "f.toml:1", HOSTILE + "{0} [x]{http://evil.example}", HOSTILE)],
            Path("p"),
            {"c": HOSTILE},
        )
    )


def test_a_hostile_cell_stays_one_cell_of_a_markdown_table():
    text = markdown(("x", "y"), [(HOSTILE, "snake_case_word")])
    lines = text.split("\n")
    assert len(lines) == 3
    cells = re.split(r"(?<!\\)(?:\\\\)*\|", lines[2])
    assert len(cells) == 4
    assert cells[2].strip() == "snake_case_word"
    unescaped = re.sub(r"\\.", "", cells[1])
    assert not re.search(r"[`*\[\]~$<]|(?<!\w)_|_(?!\w)", unescaped)
    assert "&amp;lt;" in cells[1]
    assert lines[2].isprintable()


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("https://evil.example", "https&#58;//evil.example"),
        ("(HTTP://evil.example", "(HTTP&#58;//evil.example"),
        ("ftp://evil.example", "ftp&#58;//evil.example"),
        ("www.evil.example", "www&#46;evil.example"),
        ("mailto:a@evil.example", "mailto:a@<!-- -->evil.example"),
        ("@everybody", "@<!-- -->everybody"),
        ("spiffe://org-b.example/feed", "spiffe://org-b.example/feed"),
    ],
)
def test_a_bare_address_is_no_link_of_githubs_markdown(text, written):
    """Each was rendered by cmark-gfm, which makes a link of the first five texts and of none of what is written."""
    assert markdown(("x",), [(text,)]).endswith(f"| {written} |")


def test_a_directory_whose_name_is_no_text_has_a_report_and_addresses(run, directory, tmp_path):
    strange = tmp_path / "\udcff"
    directory.path.rename(strange)
    page = tmp_path / "report.html"
    assert run("report", strange, "--html", page).exit_code == 0
    assert r"What peers may do: \udcff, version 7" in page.read_text()
    found = run("lint", strange, "--format", "sarif")
    assert found.exit_code == 1
    assert {
        one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in checked_sarif(found.stdout)
    } == {"%FF/org-b.toml"}


@pytest.mark.parametrize(
    "cell",
    ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\ufeff=1", "\uff1d1", "\uff0b1"],
)
def test_no_cell_of_a_csv_is_a_formula(cell):
    rows = list(csv.reader(io.StringIO(as_csv(("a", "b"), [(cell, "x")]), newline="")))
    assert rows == [["a", "b"], [f"'{cell}", "x"]]


@pytest.mark.parametrize("cell", ["a=b", "1-2", 'say "hi"', "a,b", "two\nlines", "", " a"])
def test_other_cells_of_a_csv_are_as_they_were(cell):
    rows = list(csv.reader(io.StringIO(as_csv(("a", "b"), [(cell, "x")]), newline="")))
    assert rows == [["a", "b"], [cell, "x"]]


def test_expectations_as_junit(run, directory):
    directory.write("tests.toml", TESTS.replace('facet = "FeedLedger"', 'rule = "<&>\u00ff"'))
    directory.replace('audit = "../audit"', 'audit = "../audit"\ntests = ["tests.toml"]', "caprpc.toml")
    result = run("test", directory.path, "--coverage", "--format", "junit")
    assert result.exit_code == 1
    suite = ET.fromstring(result.stdout.encode())
    cases = {case.get("name"): case.find("failure") for case in suite.findall("testcase")}
    assert suite.get("tests") == str(len(cases))
    assert suite.get("failures") == str(sum(failure is not None for failure in cases.values()))
    assert cases["T2"] is None
    assert "and not by <&>" in cases["T1"].get("message")
    assert "facet FeedLedger grants Ledger.post (org-b.toml:18)" in cases["T1"].text
    assert "no test notices" in cases["org-b-feed: Ledger.balance (FeedLedger)"].get("message")


def test_expectations_reach_and_check_as_markdown(run, directory):
    directory.write("tests.toml", TESTS)
    directory.replace('audit = "../audit"', 'audit = "../audit"\ntests = ["tests.toml"]', "caprpc.toml")
    text = run("test", directory.path, "--format", "markdown").stdout
    assert "| ok | T2 | spiffe://org-b.example/treasury/feed may not Ledger.post | no | tests.toml:9 |" in text
    text = run("reach", directory.path, "--peer", "org-b-feed", "History", "--format", "markdown").stdout
    assert "| HistoryRO | History | root ledger > call history | org-b.toml:18 |" in text
    directory.replace("per_second = 2", "per_secnd = 2")
    text = run("check", directory.path, "--format", "markdown").stdout
    assert "| error | org-b.toml:24 | unknown-key | " in text


def cells_of(line: str) -> int:
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) - 1


def check_text(text: str) -> None:
    assert text.strip()
    assert all(line.isprintable() for line in text.splitlines())


def check_markdown(text: str) -> None:
    lines = text.splitlines()
    assert len(lines) > 2
    assert {cells_of(line) for line in lines} == {cells_of(lines[0])}


def check_csv(text: str) -> None:
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert len(rows) > 1
    assert {len(row) for row in rows} == {len(rows[0])}


def check_cedar(text: str) -> None:
    assert cedarpy.format_policies(text).count("permit") == text.count("permit(")


CHECKS = {
    "text": check_text,
    "json": json.loads,
    "sarif": checked_sarif,
    "markdown": check_markdown,
    "csv": check_csv,
    "junit": ET.fromstring,
    "cedar": check_cedar,
}

TOOLS = {
    "check": (3, "broken"),
    "lint": (1, "policies"),
    "list": (0, "policies"),
    "can-i": (0, "policies", "--peer", "org-b-feed", "Ledger.balance", "account=A"),
    "explain": (0, "policies", "--peer", "org-b-feed", "Ledger.balance", "account=A"),
    "reach": (0, "policies", "--peer", "org-b-feed"),
    "diff": (1, "policies", "newer"),
    "test": (1, "policies", "--coverage"),
    "unused": (1, "policies", "--log", "log"),
    "shadow": (1, "newer", "--log", "log"),
    "export": (0, "policies"),
}
"""What each tool is asked, and the code with which it answers, whatever the form."""


def forms_of(tool: str) -> list[str]:
    return [form for one in policy.commands[tool].params if one.name == "form" for form in one.type.choices]


def test_every_tool_that_has_forms_is_asked_in_each():
    assert {name for name in policy.commands if forms_of(name)} == TOOLS.keys()


@pytest.mark.parametrize(("tool", "form"), [(tool, form) for tool in TOOLS for form in forms_of(tool)])
def test_every_tool_answers_in_every_form_alike(run, directory, tmp_path, tool, form):
    directory.write("tests.toml", TESTS)
    directory.replace('audit = "../audit"', 'audit = "../audit"\ntests = ["tests.toml"]', "caprpc.toml")
    newer, broken = PolicyDirectory(tmp_path / "newer"), PolicyDirectory(tmp_path / "broken")
    newer.replace('call = ["balance", "history", "post", "subscribe"]', 'call = ["history", "post", "subscribe"]')
    newer.replace('get  = ["currency"]', 'get  = ["currency", "limit"]')
    broken.replace("per_second = 2", "per_secnd = 2")
    log = AuditLog.open(tmp_path / "log", name="server")
    fields = {"peer": FEED, "facet": "FeedLedger", "operation": "call", "member": "balance", "decision": "permit"}
    log.relation(FEED).record("decision", **fields)
    log.close()
    code, *words = TOOLS[tool]
    option = "--to" if tool == "export" else "--format"
    result = run(tool, *words, option, form)
    assert result.exit_code == code, result.output
    CHECKS[form](result.stdout)
