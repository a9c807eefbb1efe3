"""The Python of the how-to pages runs as it stands there."""

import gc
import os
import re
import signal
import sqlite3
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from caprpc import Interface, Server, method
from caprpc.testing.deployment import Deployment
from tests.docs.howto import Terminal

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PEER = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{}"]\n'
OFFER = (
    PEER.format("client") + '[roots]\nbooks = "Books"\n[offer.Books]\ninterface = "Books"\ncall = ["count", "add"]\n'
)
ACCEPT = PEER.format("server") + '[accept.Books]\ncall = ["count", "add"]\n'


class Books(Interface):
    """What stands on the shelves."""

    @method(effect="read", idempotent=True)
    def count(self) -> int:
        """Say how many there are."""

    @method(effect="write")
    def add(self, title: str) -> None: ...


class Shelf(Books):
    def __init__(self):
        self.titles = ["Emma"]

    def count(self):
        return len(self.titles)

    def add(self, title):
        self.titles.append(title)


@pytest.fixture
def site(tmp_path):
    deployment = Deployment(tmp_path / "site")
    return SimpleNamespace(
        deployment=deployment,
        server=deployment.side("server", {"client": OFFER}, [Books]),
        client=deployment.side("client", {"server": ACCEPT}, [Books]),
    )


@pytest.fixture
def blocks(repository):
    def read(page):
        return BLOCK.findall((repository / "docs" / "how-to" / page).read_text(encoding="utf-8"))

    return read


@pytest.fixture
def serving(site, tmp_path):
    """Return a function that starts a server, at the same address each time."""
    servers = []

    def start():
        if servers:
            servers[-1].stop(0.0)
        server = Server({"books": Shelf()}, **site.server.directories, audit=tmp_path / f"audit{len(servers)}")
        address = start.url.removeprefix("caprpc://") if servers else "127.0.0.1:0"
        start.url = server.listen(address)
        servers.append(server)
        server.start()
        return start.url

    yield start
    servers[-1].stop(0.0)


def test_reconnect(blocks, site, serving, capsys):
    using, plan, declaring = blocks("reconnect.md")
    names = {"url": serving(), "directories": site.client.directories, "restart_the_server": serving, "Books": Books}
    exec(using, names)
    assert capsys.readouterr().out.split() == ["1", "1"]
    exec(plan, names)
    assert names["plan"].attempts == 50
    exec(declaring, names)
    assert names["Books"].__name__ == "Books"


def test_starting_in_a_program_of_ones_own(blocks, site, tmp_path):
    (using,) = blocks("run-a-server.md")
    server = Server({"books": Shelf()}, **site.server.directories, audit=tmp_path / "audit")
    server.listen("127.0.0.1:0")
    try:
        exec(using, {"server": server})
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
        server.stop(0.0)


class Account(Interface):
    @method(effect="read")
    def balance(self) -> int: ...


class Ledger(Interface):
    @method(effect="read")
    def name(self) -> str: ...


class AccountService(Account):
    def balance(self):
        return 12


SERVICE = """
from caprpc import Interface, method

class Account(Interface):
    @method(effect="read")
    def balance(self) -> int: ...

class Rich(Account):
    def balance(self):
        return 12

def account(key: str) -> Account:
    return Rich()

roots = {"rich": Rich()}
restorers = {"account": account}
"""


def test_sturdy_references(blocks, tmp_path, monkeypatch, capsys):
    deployment = Deployment(tmp_path / "site")
    offer = PEER.format("client") + (
        '[restore.account]\nas = "AccountRO"\nmax_for_s = 2_592_000\n'
        '[offer.AccountRO]\ninterface = "Account"\ncall = ["balance"]\n'
    )
    accept = PEER.format("server") + '[accept.Account]\ncall = ["balance"]\n'
    serving = deployment.side("server", {"client": offer}, [Ledger, Account])
    dialing = deployment.side("client", {"server": accept}, [Ledger, Account])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "state").mkdir(mode=0o700)
    grants, restores, revokes = blocks("sturdy-references.md")
    names = {"server_directories": serving.directories, "Ledger": Ledger, "Account": Account}
    names["AccountService"] = AccountService
    exec(grants, names)
    with names["server"]:
        exec(restores, {**names, "client_directories": dialing.directories})
        run = Terminal(tmp_path, "sturdy-references")
        assert "account 42 for" in run("caprpc grants list state/grants.db --state live")
        exec(revokes, {**names, "time": time})
        assert [grant.state(0.0) for grant in names["server"].list_grants()] == ["revoked"]
        _grant_and_go_back(names["server"], run, tmp_path / "state" / "grants.db")
    _serve_from_the_command_line(run, monkeypatch, tmp_path, serving)
    assert not run.left()
    holder = deployment.trust_domain + "/client"
    assert capsys.readouterr().out.splitlines() == ["True", "12", f"account 42 spiffe://{holder} live"]


def _grant_and_go_back(server, run, store):
    """Revoke from the command line, and put back a copy of the store that knows nothing of it."""
    with closing(sqlite3.connect(store)) as live, closing(sqlite3.connect(store.with_name("copy.db"))) as copy:
        live.backup(copy)
    server.grant("account", key="43", to="spiffe://test.example/client", for_s=60)
    given = server.list_grants()[-1].grant_id
    assert given in run("caprpc grants revoke state/grants.db G-7KQ2M9XW4HTA", **{"G-7KQ2M9XW4HTA": given})
    server.stop(0.0)
    for name in ("", "-wal", "-shm"):
        Path(f"{store}{name}").unlink(missing_ok=True)
    store.with_name("copy.db").rename(store)
    store.chmod(0o600)
    assert given in run("caprpc grants accept-restore state/grants.db")


def _serve_from_the_command_line(run, monkeypatch, directory, serving):
    """Serve until a signal; it comes once the server has opened its socket."""
    (directory / "service.py").write_text(SERVICE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "service", raising=False)
    opened = directory / "socket"
    stopper = threading.Thread(target=_stop_once, args=(opened,))
    stopper.start()
    (line,) = run.left()
    instead = {"/run/ledger/socket": str(opened), "pki/server": str(serving.identity)}
    said = run(line, **instead, **{"policies/server": str(serving.policies)})
    stopper.join()
    monkeypatch.delitem(sys.modules, "service")
    assert said.startswith(f"listening on unix:{opened}\n")


def _stop_once(opened):
    until = time.monotonic() + 20.0
    while not (opened.exists() and gc.get_freeze_count() > 1_000) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


def test_use_unix_sockets(blocks, site, tmp_path, monkeypatch, repository, capsys):
    listening, starting = blocks("use-unix-sockets.md")
    names = {
        "server_directories": site.server.directories,
        "client_directories": site.client.directories,
        "directory": tmp_path,
        "Books": Books,
        "Shelf": Shelf,
        "child_options": [
            *("--identity", str(site.server.identity), "--policies", str(site.server.policies)),
            *("--audit", str(tmp_path / "child")),
        ],
    }
    exec(listening, names)
    assert capsys.readouterr().out == "1\n"
    (tmp_path / "shelf_service.py").write_text(
        "from tests.docs.test_howto_examples import Shelf\n\ndef roots():\n    return {'books': Shelf()}\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{repository}")
    exec(starting, names)
    assert capsys.readouterr().out == "1\n"


def test_follow_connections(blocks, site, capsys):
    hooks, listing = blocks("follow-connections.md")
    names = {"roots": {"books": Shelf()}, "server_directories": site.server.directories}
    exec(hooks, names)
    server: Server = names["server"]
    url = server.listen("127.0.0.1:0")
    with server:
        exec(listing, {"url": url, "client_directories": site.client.directories})
    assert capsys.readouterr().out.splitlines() == [
        "{'books': 'Books'}",
        "spiffe://test.example/client has gone: closed",
    ]
    assert not names["here"]
