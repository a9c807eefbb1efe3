"""The command line as a whole: listing, loading, usage errors, version, completion."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from caprpc.cli import main


@pytest.fixture
def run():
    """Run ``caprpc`` in this process; returns the click result."""
    runner = CliRunner()
    return lambda *args: runner.invoke(main, args, prog_name="caprpc")


def test_without_a_command_it_shows_the_help_and_succeeds(run):
    result = run()
    assert result.exit_code == 0
    assert "Commands:" in result.output
    assert "caprpc demo" in result.output


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_every_installed_command_with_a_summary(run, option):
    output = run(option).output
    context = click.Context(main)
    assert main.list_commands(context)
    for name in main.list_commands(context):
        assert any(line.split()[:1] == [name] and len(line.split()) > 2 for line in output.splitlines()), name


def leaves(command, path):
    """Yield every command that does something, with the words that run it."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from leaves(command.get_command(context, name), (*path, name))
    else:
        yield path


def test_every_command_loads_and_has_help_with_an_example(run):
    for words in leaves(main, ()):
        result = run(*words, "--help")
        assert result.exit_code == 0, words
        assert "Example" in result.output, words
        assert f"caprpc {' '.join(words)}" in result.output.split("Example", 1)[1], words


def test_version_names_python_and_openssl(run):
    result = run("--version")
    assert result.exit_code == 0
    assert result.output.startswith("caprpc ")
    assert "OpenSSL" in result.output


def test_unknown_command_is_a_usage_error(run):
    result = run("frobnicate")
    assert result.exit_code == 64
    assert result.stderr == "caprpc: no command 'frobnicate'\n  hint: caprpc --help\n"


def test_mistyped_command_names_the_nearest(run):
    result = run("completoin")
    assert result.exit_code == 64
    assert "did you mean 'completion'?" in result.stderr


def test_private_names_and_module_names_are_not_commands(run):
    for name in ("exits", "__init__", "__class__", "completion.py", "../cli", ""):
        assert run(name).exit_code == 64, name


def test_unknown_option_is_a_usage_error(run):
    result = run("--frobnicate")
    assert result.exit_code == 64
    assert result.stderr.startswith("caprpc: ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(run, shell):
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_CAPRPC_COMPLETE" in result.stdout


def test_completion_refuses_other_shells(run):
    result = run("completion", "tcsh")
    assert result.exit_code == 64
    assert "'bash', 'zsh', 'fish'" in result.stderr


def test_completion_offers_the_commands(monkeypatch):
    monkeypatch.setenv("COMP_WORDS", "caprpc comp")
    monkeypatch.setenv("COMP_CWORD", "1")
    monkeypatch.setenv("_CAPRPC_COMPLETE", "bash_complete")
    result = CliRunner().invoke(main, [], prog_name="caprpc", complete_var="_CAPRPC_COMPLETE")
    assert "plain,completion" in result.output


def test_help_does_not_import_the_commands(repository_root):
    script = (
        "import sys; from caprpc.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(n for n in sys.modules if n.startswith('caprpc.cli.')))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=repository_root, capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == "['caprpc.cli.exits', 'caprpc.cli.streams']"


def test_python_dash_m_is_the_same_program(repository_root):
    command = [sys.executable, "-m", "caprpc", "nonsense"]
    run = subprocess.run(command, cwd=repository_root, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (64, "")
    assert run.stderr.startswith("caprpc: no command 'nonsense'")
    assert "Traceback" not in run.stderr
