"""``caprpc serve --grants``: sturdy references of a service that the command line serves, over its restart."""

import os
import re
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

import caprpc
from caprpc import Interface, errors, method
from caprpc.cli import main
from caprpc.testing import Deployment

DRIVERS = pytest.mark.parametrize("driver", [[], ["--aio"]], ids=["blocking", "aio"])

SERVICE = """
import caprpc
from caprpc import Interface, method


class Account(Interface):
    @method(effect="read")
    def number(self) -> str: ...


class Bank(Interface):
    @method(effect="write")
    def keep(self, key: str) -> str: ...


class TheAccount(Account):
    def __init__(self, key):
        self._key = key

    def number(self):
        return self._key


class TheBank(Bank):
    def keep(self, key):
        return caprpc.grant("account", key=key)


def account(key: str) -> Account:
    return TheAccount(key)


def silent(key):
    return TheAccount(key)


def misspelt(key: "Acount") -> "Acount":
    return TheAccount(key)


roots = {"bank": TheBank()}
restorers = {"account": account}
says_nothing = {"account": silent}
says_what_is_not = {"account": misspelt}
"""


class Account(Interface):
    @method(effect="read")
    def number(self) -> str: ...


class Bank(Interface):
    @method(effect="write")
    def keep(self, key: str) -> str: ...


SERVER_POLICY = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/alice"]
[roots]
bank = "Counter"
[offer.Counter]
interface = "Bank"
call = ["keep"]
[offer.OneAccount]
interface = "Account"
call = ["number"]
[restore.account]
as = "OneAccount"
"""
CLIENT_POLICY = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Bank]
call = ["keep"]
[accept.Account]
call = ["number"]
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    (tmp_path / "bank_service.py").write_text(SERVICE)
    deployment = Deployment(tmp_path)
    deployment.side("server", {"alice": SERVER_POLICY}, [Bank, Account])
    deployment.side("alice", {"server": CLIENT_POLICY}, [Bank, Account])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("bank_service", None)


def words(site, *arguments):
    side = site / "server"
    fixed = ("--identity", side / "identity", "--policies", side / "policies")
    return ["serve", "bank_service:roots", *map(str, fixed), *map(str, arguments)]


@pytest.fixture
def serve(site, repository_root):
    """Start a server and return its address; a second start ends the first one."""
    running = []

    def stop():
        for process in running:
            process.send_signal(signal.SIGTERM)
            assert process.communicate(timeout=15) == ("", "caprpc: stopping; running calls may take 5 s more\n")
        running.clear()

    def start(*arguments):
        stop()
        process = subprocess.Popen(
            [sys.executable, "-m", "caprpc", *words(site, *arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=site,
            env=os.environ | {"PYTHONPATH": str(repository_root)},
        )
        running.append(process)
        return process.stdout.readline().removeprefix("listening on ").strip()

    yield start
    stop()


def connect(site, address):
    return caprpc.connect(address, identity=site / "alice" / "identity", policies=site / "alice" / "policies")


@DRIVERS
def test_what_a_method_grants_is_restored_after_a_restart(site, serve, driver):
    options = ["--grants", "grants.db", "--restorers", "bank_service:restorers", *driver]
    address = serve(*options, "--listen", "127.0.0.1:0")
    with connect(site, address) as peer:
        uri = peer.root("bank", Bank).keep("42")
    assert uri.startswith(f"{address}/account#")
    assert serve(*options, "--listen", address.removeprefix("caprpc://")) == address
    with connect(site, uri) as peer:
        assert peer.restore(uri, Account).number() == "42"
    listed = CliRunner().invoke(main, ["grants", "list", "grants.db"], prog_name="caprpc").output
    (grant,) = re.findall(r"G-[0-9A-Z]{12}", listed)
    assert CliRunner().invoke(main, ["grants", "revoke", "grants.db", grant], prog_name="caprpc").exit_code == 0
    with connect(site, uri) as peer, pytest.raises(errors.Denied):
        peer.restore(uri, Account)


@DRIVERS
def test_the_address_in_a_sturdy_reference_may_be_another_one(site, serve, driver):
    options = ["--grants", "grants.db", "--restorers", "bank_service:restorers", *driver]
    address = serve(*options, "--listen", "127.0.0.1:0", "--grants-address", "ledger.example:4853")
    with connect(site, address) as peer:
        assert peer.root("bank", Bank).keep("42").startswith("caprpc://ledger.example:4853/account#")


@DRIVERS
def test_a_policy_that_lets_restore_is_refused_without_a_store(site, driver):
    result = CliRunner().invoke(main, words(site, *driver, "--listen", "127.0.0.1:0"), prog_name="caprpc")
    assert result.exit_code == 78
    assert re.search(r"alice\.toml:\d+: 'account' may be restored, and this service keeps no grants", result.stderr)
    assert "caprpc serve --grants" in result.stderr


@DRIVERS
def test_a_server_that_does_not_come_up_lets_go_of_the_store(site, driver):
    (site / "server" / "identity" / "key.pem").unlink()
    options = ("--grants", "grants.db", *driver, "--listen", "127.0.0.1:0")
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
        ((*STORE, "--restorers", "bank_service:SERVICE"), 64, "the module has no 'SERVICE'"),
        ((*STORE, "--restorers", "bank_service:says_nothing"), 78, "does not say which interface it restores"),
        ((*STORE, "--restorers", "bank_service:says_what_is_not"), 78, "name 'Acount', which is not there"),
        ((*STORE, "--grants-address", "http://127.0.0.1/"), 78, "http://127.0.0.1/"),
        (("--grants", "no/such/directory/grants.db"), 78, "no/such/directory"),
    ],
    ids=lambda value: "-".join(value)[-40:] if isinstance(value, tuple) else None,
)
def test_what_cannot_be_granted_from_is_refused_at_the_start(site, arguments, code, says):
    result = CliRunner().invoke(main, words(site, *arguments, "--listen", "127.0.0.1:0"), prog_name="caprpc")
    assert (result.exit_code, says in result.stderr) == (code, True), result.output
    assert "Traceback" not in result.output
