"""``caprpc serve --grants``: sturdy references of a service that the command line serves, over its restart."""

import importlib
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import caprpc
from caprpc import errors
from caprpc.cli import main
from tests.cli.test_serve import DRIVERS, Process, connect

HERE = Path(__file__).resolve().parent


@pytest.fixture
def bank(monkeypatch):
    """The module of the service, found as an operator's own module is found: by its name."""
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("bank_service")


@pytest.fixture
def site(tmp_path, bank, monkeypatch):
    bank.deploy(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(site, *arguments, listen="127.0.0.1:0"):
    side = site / "server"
    fixed = ("--identity", side / "identity", "--policies", side / "policies", "--listen", listen)
    return ["serve", "bank_service:roots", *map(str, fixed), *map(str, arguments)]


@pytest.fixture
def serve(site, repository_root):
    """Start a server; a second start ends the first one."""
    running = []

    def stop():
        while running:
            assert running.pop().end()[:2] == (0, "")

    def start(*arguments, **where):
        stop()
        running.append(Process(repository_root, *words(site, *arguments, **where)))
        return running[0]

    yield start
    stop()


def dial(site, uri):
    """Connect to where a sturdy reference leads."""
    side = site / "alice"
    return caprpc.connect(uri, identity=side / "identity", policies=side / "policies")


@DRIVERS
def test_what_a_method_grants_is_restored_after_a_restart(site, serve, bank, driver):
    options = ["--grants", site / "grants.db", "--restorers", "bank_service:restorers", *driver]
    server = serve(*options)
    with connect(site, server) as peer:
        uri = peer.root("bank", bank.Bank).keep("42")
    assert uri.startswith(f"{server.address}/account#")
    again = serve(*options, listen=server.address.removeprefix("caprpc://"))
    assert again.address == server.address
    with dial(site, uri) as peer:
        assert peer.restore(uri, bank.Account).number() == "42"
    listed = CliRunner().invoke(main, ["grants", "list", "grants.db"], prog_name="caprpc").output
    (grant,) = re.findall(r"G-[0-9A-Z]{12}", listed)
    assert CliRunner().invoke(main, ["grants", "revoke", "grants.db", grant], prog_name="caprpc").exit_code == 0
    with dial(site, uri) as peer, pytest.raises(errors.Denied):
        peer.restore(uri, bank.Account)


@DRIVERS
def test_the_address_in_a_sturdy_reference_may_be_another_one(site, serve, bank, driver):
    options = ["--grants", site / "grants.db", "--restorers", "bank_service:restorers", *driver]
    with connect(site, serve(*options, "--grants-address", "ledger.example:4853")) as peer:
        assert peer.root("bank", bank.Bank).keep("42").startswith("caprpc://ledger.example:4853/account#")


@DRIVERS
def test_a_policy_that_lets_restore_is_refused_without_a_store(site, driver):
    result = CliRunner().invoke(main, words(site, *driver), prog_name="caprpc")
    assert result.exit_code == 78
    assert re.search(r"alice\.toml:\d+: 'account' may be restored, and this service keeps no grants", result.stderr)
    assert "caprpc serve --grants" in result.stderr


@DRIVERS
def test_a_server_that_does_not_come_up_lets_go_of_the_store(site, driver):
    (site / "server" / "identity" / "key.pem").unlink()
    options = ("--grants", "grants.db", *driver)
    assert CliRunner().invoke(main, words(site, *options), prog_name="caprpc").exit_code == 78
    # SQLite removes it when the last connection is closed.
    assert (site / "grants.db").exists()
    assert not (site / "grants.db-wal").exists()


STORE = ("--grants", "grants.db")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--restorers", "bank_service:restorers"), 64, "need --grants FILE"),
        (("--grants-address", "ledger.example:4853"), 64, "need --grants FILE"),
        ((*STORE, "--restorers", "bank_service"), 64, "MODULE:NAME expected, such as service:restorers"),
        ((*STORE, "--restorers", "bank_service:nothing"), 64, "the module has no 'nothing'"),
        ((*STORE, "--restorers", "bank_service:SERVER_POLICY"), 64, "a mapping of kinds to callables"),
        ((*STORE, "--restorers", "bank_service:says_nothing"), 78, "does not say which interface it restores"),
        ((*STORE, "--restorers", "bank_service:says_what_is_not"), 78, "name 'Acount', which is not there"),
        ((*STORE, "--grants-address", "http://127.0.0.1/"), 78, "http://127.0.0.1/"),
        (("--grants", "no/such/directory/grants.db"), 78, "no/such/directory"),
    ],
    ids=lambda value: "-".join(value)[-40:] if isinstance(value, tuple) else None,
)
def test_what_cannot_be_granted_from_is_refused_at_the_start(site, arguments, code, says):
    result = CliRunner().invoke(main, words(site, *arguments), prog_name="caprpc")
    assert (result.exit_code, says in result.stderr) == (code, True), result.output
    assert "Traceback" not in result.output
