"""``caprpc policy``: what it prints, and its exit codes."""

import json

import pytest
from click.testing import CliRunner

from caprpc.cli import main

MODULE = '''
from collections.abc import Callable
from caprpc.interface import Interface, method

class Sink(Interface):
    """Takes lines."""

    @method(effect="write")
    def update(self, line: str) -> None: ...

class Feed(Interface):
    """Gives lines."""

    @method(effect="read")
    def subscribe(self, sink: Sink, done: Callable[[str], None]) -> int: ...

class NotAnInterface: ...
'''


@pytest.fixture
def run():
    return lambda *args: CliRunner().invoke(main, ["policy", *map(str, args)], prog_name="caprpc")


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "policy_command_feed.py").write_text(MODULE)
    (tmp_path / "policy_command_broken.py").write_text("raise RuntimeError('boom')")
    monkeypatch.syspath_prepend(tmp_path)
    return "policy_command_feed"


def test_good_directory_is_summarized(run, directory):
    result = run("check", directory.path)
    assert result.exit_code == 0
    assert "version 7, 1 policy, no errors" in result.stdout
    assert "    peer     spiffe://org-b.example/treasury/feed" in result.stdout
    assert "    offer    HistoryRO (History): iterate, length" in result.stdout
    assert "    lend     to Sink.load (source) as LinesOnly, for the call" in result.stdout
    assert "    accept   Sink: call update, call load" in result.stdout


def test_errors_are_shown_with_file_line_and_hint(run, directory):
    directory.replace('"balance", ', '"ballance", ')
    directory.replace("in_flight = 8", "in_fligth = 8")
    result = run("check", directory.path)
    assert result.exit_code == 3
    assert result.stdout.splitlines() == [
        f"{directory.path}/org-b.toml:18:9: error: interface Ledger has no member 'ballance' for 'call'"
        " [no-such-member]",
        "  hint: did you mean 'balance'?",
        f"{directory.path}/org-b.toml:51:1: error: unknown key 'in_fligth' in [limits] [unknown-key]",
        "  hint: did you mean 'in_flight'?",
        f"{directory.path}: 2 errors; nothing of it is used",
    ]


def test_warnings_do_not_fail(run, directory):
    directory.replace('ledger = "FeedLedger"', 'history = "HistoryRO"')
    result = run("check", directory.path)
    assert result.exit_code == 0
    assert "org-b.toml:16:1: warning: " in result.stdout


def test_json_has_the_same_problems(run, directory):
    directory.replace('"balance", ', '"ballance", ')
    result = run("check", directory.path, "--format", "json")
    assert result.exit_code == 3
    report = json.loads(result.stdout)
    assert report["ok"] is False
    assert report["problems"] == [
        {
            "severity": "error",
            "file": "org-b.toml",
            "line": 18,
            "column": 9,
            "code": "no-such-member",
            "message": "interface Ledger has no member 'ballance' for 'call'",
            "hint": "did you mean 'balance'?",
        }
    ]


def test_json_of_a_good_directory_lists_its_policies(run, directory):
    report = json.loads(run("check", directory.path, "--format", "json").stdout)
    assert (report["ok"], report["version"], report["problems"]) == (True, 7, [])
    assert report["policies"][0]["roots"] == {"ledger": "FeedLedger"}


def test_missing_directory_does_not_load(run, tmp_path):
    result = run("check", tmp_path / "nowhere")
    assert result.exit_code == 3
    assert f"{tmp_path / 'nowhere'}: error: the directory cannot be opened" in result.stdout


def test_file_in_place_of_a_directory_does_not_load(run, directory):
    assert run("check", directory.path / "org-b.toml").exit_code == 3


def test_problem_of_the_directory_names_it_once(run, directory):
    directory.path.chmod(0o777)
    assert f"{directory.path}: error: the directory is writable" in run("check", directory.path).stdout


def test_contracts_of_a_module_are_printed_with_all_that_they_mention(run, module):
    result = run("contracts", module)
    assert result.exit_code == 0
    for name in ("Feed", "Sink", "Callable", "Iterator"):
        assert f"[interface.{name}]\n" in result.stdout
    assert "NotAnInterface" not in result.stdout


def test_contracts_are_written_and_then_load(run, module, directory):
    target = directory.path / "contracts.toml"
    assert "changed; review" in run("contracts", f"{module}:Feed", "--write", target).stdout
    assert run("contracts", module, "--write", target).stdout == f"{target}: unchanged\n"
    directory.write(
        "org-b.toml",
        directory.path.joinpath("org-b.toml").read_text().split("[roots]")[0]
        + '[roots]\nfeed = "Feed"\n[offer.Feed]\ninterface = "Feed"\ncall = ["subscribe"]\n'
        '[accept.Sink]\ncall = ["update"]\n[accept.Callable]\ninvoke = true\n',
    )
    directory.replace('reach = ["LedgerAdmin"]', 'reach = ["Sink"]', "caprpc.toml")
    result = run("check", directory.path, "--contracts", module)
    assert (result.exit_code, "error" in result.stdout.replace("no errors", "")) == (0, False), result.stdout
    target.write_text(target.read_text().replace('returns = "int"', 'returns = "str"'))
    result = run("check", directory.path, "--contracts", module)
    assert result.exit_code == 3
    assert "call 'subscribe' of interface Feed has changed in the code: the result was str, is int" in result.stdout


def test_a_module_that_fails_is_named_with_its_error(run, module):
    result = run("contracts", "policy_command_broken")
    assert (result.exit_code, "RuntimeError: boom" in result.stderr) == (70, True)


def test_written_contracts_have_safe_modes(run, module, tmp_path):
    target = tmp_path / "contracts.toml"
    run("contracts", module, "--write", target)
    assert target.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".contracts")] == []


@pytest.mark.parametrize(
    ("argument", "part"),
    [
        ("policy_command_nowhere", "cannot import 'policy_command_nowhere'"),
        ("policy_command_feed:Nothing", "the module has: Feed, Sink"),
        ("policy_command_feed:NotAnInterface", "no such interface"),
        ("json", "has no interfaces"),
        ("..", "is not the dotted name"),
        ("", "is not the dotted name"),
    ],
)
def test_module_that_cannot_be_used_is_a_usage_error(run, module, argument, part):
    result = run("contracts", argument)
    assert result.exit_code == 2
    assert part in result.stderr
