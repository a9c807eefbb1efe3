"""An approval, or an entry of a baseline, that lets nothing pass is told of, in every format."""

import json

import pytest


def entry(what, more=""):
    quoted = what.replace("\\", "\\\\").replace('"', '\\"')
    return f'[[pass]]\nwhat = "{quoted}"\nby = "sec@acme.example"\nreason = "SEC-1"\n{more}'


@pytest.fixture
def key(run, directory, newer):
    newer.replace('get  = ["currency"]', 'get  = ["currency", "limit"]')
    return json.loads(run("diff", directory.path, newer.path, "--format", "json").stdout)["differences"][0]["key"]


@pytest.fixture
def approved(tmp_path):
    def write(*entries, kind="approvals"):
        path = tmp_path / "approved.toml"
        path.write_text(f'caprpc = 1\nkind = "{kind}"\n' + "".join(entries))
        return path

    return write


def test_an_approval_of_nothing_is_named_where_it_stands_and_changes_no_verdict(run, directory, newer, key, approved):
    path = approved(entry(key), entry("new somebody else"))
    result = run("diff", directory.path, newer.path, "--approvals", path)
    assert result.exit_code == 0
    note = f"{path}:8: note: matches nothing that was found: new somebody else [unused-entry]\n"
    assert note in result.stdout
    assert result.stdout.endswith("1 new; nobody may do more than was approved\n")
    assert "unused-entry" not in run("diff", directory.path, newer.path, "--approvals", approved(entry(key))).stdout


def test_an_approval_that_has_ended_says_why_it_lets_nothing_pass(run, directory, newer, key, approved):
    path = approved(entry(key, "until = 2020-01-01T00:00:00Z\n"))
    result = run("diff", directory.path, newer.path, "--approvals", path)
    assert result.exit_code == 1
    assert f"{path}:4: note: has ended, and lets nothing pass: {key} [unused-entry]" in result.stdout


def test_an_approval_of_what_is_no_widening_is_unused(run, directory, newer, approved):
    newer.replace("max = 10_000", "max = 5_000")
    found = json.loads(run("diff", directory.path, newer.path, "--format", "json").stdout)["differences"]
    path = approved(entry(found[0]["key"]))
    assert "[unused-entry]" in run("diff", directory.path, newer.path, "--approvals", path).stdout


def test_machines_are_told_of_it(run, directory, newer, key, approved):
    path = approved(entry(key), entry("new nobody"))
    arguments = ("diff", directory.path, newer.path, "--approvals", path, "--format")
    found = json.loads(run(*arguments, "json").stdout)
    assert [(one["code"], one["level"], one["file"], one["line"]) for one in found["findings"]] == [
        ("unused-entry", "note", str(path), 8)
    ]
    assert found["wider"] is False
    results = json.loads(run(*arguments, "sarif").stdout)["runs"][0]["results"]
    assert [(one["ruleId"], one["level"]) for one in results] == [("unused-entry", "note")]
    place = results[0]["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == (path.as_uri(), 8)
    assert f"{path}:8" in run(*arguments, "markdown").stdout.replace("\\", "")


def test_an_entry_of_a_baseline_that_matches_no_finding_is_named_and_is_no_finding(run, directory, approved):
    path = approved(entry("idle-lend nobody"), kind="baseline")
    before = run("lint", directory.path)
    result = run("lint", directory.path, "--baseline", path)
    assert result.exit_code == before.exit_code
    assert f"{path}:4: note: matches nothing that was found: idle-lend nobody [unused-entry]" in result.stdout
    found = json.loads(run("lint", directory.path, "--baseline", path, "--format", "json").stdout)["findings"]
    assert [one["file"] for one in found if one["code"] == "unused-entry"] == [str(path)]


def test_an_approval_of_one_root_lets_no_other_pass_that_leads_to_the_same_facet(run, directory, newer, approved):
    newer.replace('ledger = "FeedLedger"', 'ledger = "FeedLedger"\npayroll = "FeedLedger"')
    found = json.loads(run("diff", directory.path, newer.path, "--format", "json").stdout)["differences"]
    path = approved(*(entry(one["key"]) for one in found))
    assert run("diff", directory.path, newer.path, "--approvals", path).exit_code == 0
    newer.replace('payroll = "FeedLedger"', 'payroll = "FeedLedger"\nvault = "FeedLedger"')
    result = run("diff", directory.path, newer.path, "--approvals", path)
    assert result.exit_code == 1
    assert "new      root vault: nothing -> FeedLedger (org-b.toml:16)\n" in result.stdout


@pytest.mark.parametrize(("terms", "wider"), [("max_for_s = 5", "max_for_s = 50"), ("", "bearer = true")])
def test_an_approval_of_something_to_restore_holds_for_its_terms(run, directory, newer, approved, terms, wider):
    newer.replace("[offer.FeedLedger]\n", f'[restore.vault]\nas = "FeedLedger"\n{terms}\n[offer.FeedLedger]\n')
    found = json.loads(run("diff", directory.path, newer.path, "--format", "json").stdout)["differences"]
    path = approved(*(entry(one["key"]) for one in found))
    assert run("diff", directory.path, newer.path, "--approvals", path).exit_code == 0
    newer.replace(f'as = "FeedLedger"\n{terms}\n', f'as = "FeedLedger"\n{wider}\n')
    result = run("diff", directory.path, newer.path, "--approvals", path)
    assert result.exit_code == 1, result.output
    assert "restore vault" in result.stdout


def test_an_approval_of_a_peer_holds_for_its_time(run, directory, newer, approved):
    directory.replace("treasury/feed", "treasury/other")
    found = json.loads(run("diff", directory.path, newer.path, "--format", "json").stdout)["differences"]
    path = approved(*(entry(one["key"]) for one in found if one["verdict"] == "new"))
    assert run("diff", directory.path, newer.path, "--approvals", path).exit_code == 0
    newer.replace("not_after = 2999-06-30T00:00:00Z\n", "")
    result = run("diff", directory.path, newer.path, "--approvals", path)
    assert result.exit_code == 1
    assert "without end" in result.stdout


def test_a_file_of_approvals_without_end_is_not_read_to_its_end(run, directory, approved):
    path = approved()
    path.unlink()
    path.symlink_to("/dev/zero")
    result = run("diff", directory.path, directory.path, "--approvals", path)
    assert result.exit_code == 3
    assert f"{path}: more than 1048576 bytes" in result.stderr
