"""The pages on declaring, serving, calling, asyncio and the shell: their code and their commands run as they stand."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

import caprpc
from caprpc.testing import Deployment
from caprpc.testing.everything import declared_by, everything
from tests.docs.howto import Terminal, blocks, commands, write

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 30.0
SHOP = '''"""What the shop offers."""

from collections.abc import Iterator

from caprpc import Interface, method


class Shop(Interface):
    @method(effect="read")
    def add(self, a: int, b: int = 1) -> int: ...

    @method(effect="read")
    def lines(self, count: int) -> Iterator[str]: ...

    @method(effect="write")
    def buy(self) -> None: ...
'''
THE_SHOP = """from shop.interfaces import Shop


class TheShop(Shop):
    def add(self, a, b=1):
        return a + b

    def lines(self, count):
        return (f"line {number}" for number in range(count))

    def buy(self):
        pass
"""


COUNTER = """from shop.interfaces import Counting


class Counter(Counting):
    def count(self):
        return 1


"""
COUNTING = """from caprpc import Interface, method


class Counting(Interface):
    @method(effect="read")
    def count(self) -> int: ...
"""


def lay_out(directory, roots, interfaces=(), *, offer=lambda text: text):
    """Make the directories that the pages name, for a server of these roots and for alice."""
    deployment = Deployment(directory / "made", trust_domain="acme.example")
    offered, accepted = everything(roots, interfaces, server="shop", client="alice")
    declared = declared_by(roots, interfaces)
    for side, name, here, policies in (
        ("server", "shop", "pki/server", {"alice": offer(offered)}),
        ("client", "alice", "pki/alice", {"shop": accepted}),
    ):
        made = deployment.side(name, policies, declared)
        for source, target in ((made.identity, directory / here), (made.policies, directory / "policies" / side)):
            target.parent.mkdir(mode=0o700, exist_ok=True)
            source.rename(target)
        index = directory / "policies" / side / "caprpc.toml"
        write(index, index.read_text(encoding="utf-8").replace("../audit", f"../../audit/{side}"))


def module_of(name, source):
    """Make a module of a text, importable while it is used: interfaces look names up in their module."""
    module = sys.modules[name] = ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
    return module


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The reader's directory: the current one, on the path; modules found there are forgotten at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("shop", "service", "page"):
            del sys.modules[name]


@contextlib.contextmanager
def started(line, directory, **instead):
    """Start a server with a command line of a page; give what it says first, and stop it with SIGTERM at the end."""
    for page, now in instead.items():
        line = line.replace(page, now)
    program = [sys.executable, "-m", *line.split()]
    environment = os.environ | {"PYTHONPATH": f"{directory}{os.pathsep}{ROOT}"}
    running = subprocess.Popen(
        program, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield running.stdout.readline()
    finally:
        running.terminate()
        said, _ = running.communicate(timeout=WAIT_S)
    assert running.returncode == 0, said


@pytest.fixture
def shop(here, request):
    """A shop that is served: the terminal, for a page, of somebody who may call it, but not buy."""
    write(here / "shop" / "__init__.py", "from shop.interfaces import Shop\n")
    write(here / "shop" / "interfaces.py", SHOP)
    roots = {"shop": module_of("shop_of_acme", THE_SHOP).TheShop()}
    lay_out(here, roots, offer=lambda text: text.replace(', "buy"]', "]"))
    server = caprpc.Server(roots, identity="pki/server", policies="policies/server")
    terminal = Terminal(here, request.param)
    terminal.instead["caprpc://127.0.0.1:4853"] = server.listen("127.0.0.1:0")
    terminal.instead["unix:/run/shop.sock"] = server.listen(f"unix:{here}/shop.sock")
    with server:
        yield terminal


def test_serve_and_call_serves(here):
    demo, serve, *_ = commands("serve-and-call")
    (code,) = blocks("serve-and-call", "python")
    write(here / "shop" / "__init__.py", "")
    write(here / "shop" / "interfaces.py", COUNTING)
    write(here / "service.py", COUNTER + code)
    counter = module_of("service", COUNTER + code).Counter()
    lay_out(here, {"counter": counter})
    with started(serve, here, **{"127.0.0.1:4853": "127.0.0.1:0"}) as said:
        address = said.removeprefix("listening on ").strip()
        with caprpc.connect(address, identity="pki/alice", policies="policies/client") as peer:
            assert peer.root("counter", sys.modules["shop.interfaces"].Counting).count() == 1
    assert demo == "caprpc demo --keep"


@pytest.mark.parametrize("shop", ["serve-and-call"], indirect=True)
def test_serve_and_call_calls(shop, here, tmp_path):
    *_, call, in_a_script = commands("serve-and-call")
    assert shop(call) == "3\n"
    options = "caprpc://127.0.0.1:4853 shop.buy --interface shop:Shop --identity pki/alice --policies policies/client"
    line = in_a_script.replace("\u2026 shop.buy", f"{options} 2>/dev/null")
    line = line.replace("caprpc call", f"{sys.executable} -m caprpc call")
    line = line.replace("caprpc://127.0.0.1:4853", shop.instead["caprpc://127.0.0.1:4853"])
    environment = os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{ROOT}"}
    done = subprocess.run(["bash", "-c", line], cwd=here, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "not allowed\n"


def test_demo_that_is_kept_prints_the_commands(here, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(here))
    monkeypatch.setattr("tempfile.tempdir", None)
    said = Terminal(here, "serve-and-call")("caprpc demo --keep")
    assert "caprpc serve " in said
    assert "caprpc call " in said


def transcript(block):
    """Return the command of a session on a page, what is typed in it, and what it answers."""
    command, *lines = block.splitlines()
    typed, answered = [], []
    for line in lines:
        if line.startswith("caprpc> "):
            typed.append(line.removeprefix("caprpc> "))
        elif typed and not re.fullmatch(r"[0-9.]+ ms", line):
            answered.append(line)
    return command.removeprefix("$ "), typed, answered


@pytest.mark.parametrize("shop", ["use-the-shell"], indirect=True)
def test_use_the_shell(shop):
    *sessions, piped = blocks("use-the-shell", "console")
    for session in sessions:
        command, typed, answered = transcript(session)
        assert shop(command, typed="\n".join([*typed, ""])).splitlines() == answered
    first, answer = piped.splitlines()
    printed, _, command = first.removeprefix("$ ").partition(" | ")
    typed = re.fullmatch(r"printf '(.*)\\n'", printed).group(1)
    assert shop(command, typed=f"{typed}\n") == f"{answer}\n"


def test_run_a_server_tells_how_it_is(here):
    serve, status = [line for line in commands("run-a-server") if "/run/ledger/status" in line]
    write(here / "shop" / "__init__.py", "")
    write(here / "shop" / "interfaces.py", COUNTING)
    write(here / "ledger.py", f"{COUNTER}def roots():\n    return {{'counter': Counter()}}\n")
    lay_out(here, {"counter": module_of("service", COUNTER).Counter()})
    instead = {"--policies policies ": "--listen 127.0.0.1:0 --policies policies/server "}
    instead["/run/ledger/status"] = str(here / "status")
    with started(serve, here, **instead) as said:
        assert "listening on" in said
        told = Terminal(here, "run-a-server")(status, **instead)
    (page,) = [block for block in blocks("run-a-server", "console") if "attention\n" in block]
    labels = re.findall(r"^(\w+): ", page, re.MULTILINE)
    assert labels == ["listening", "connections", "policies"]
    assert set(labels) <= set(re.findall(r"^(\w+): ", told, re.MULTILINE))
    assert told.splitlines()[0] == "ok"


LEDGER = """from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

from caprpc import Interface, method


class LedgerInterface(Interface):
    @method(effect="read")
    def balance(self, account: str) -> int: ...

    @method(effect="read")
    def history(self, account: str) -> Iterator[int]: ...

    @method(effect="write")
    def transaction(self) -> AbstractContextManager[None]: ...


class Ledger(LedgerInterface):
    def history(self, account):
        return iter([5, 7])

    def transaction(self):
        return nullcontext()


class Database:
    async def fetch_balance(self, account):
        return ord(account)


Ledger.database = Database()
"""


def test_use_asyncio(here, capsys):
    client, server = blocks("use-asyncio", "python")
    write(here / "page.py", LEDGER)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    head = "import asyncio\nimport caprpc.aio\nfrom page import Ledger\n\n"
    write(here / "server.py", f"{head}{server}\nasyncio.run(main())\n".replace("4853", port))
    import page

    lay_out(here, {"ledger": type("LedgerOfAcme", (page.Ledger,), {"balance": lambda self, account: 0})()})
    with running(here / "server.py", int(port)):
        names = {"url": f"caprpc://127.0.0.1:{port}", "Ledger": page.LedgerInterface}
        exec(compile(client, "use-asyncio", "exec"), names)
    assert capsys.readouterr().out.split() == ["65", "5", "7"]


@contextlib.contextmanager
def running(script, port):
    """Run a script that serves until SIGTERM; it says nothing, so its port is looked at."""
    environment = os.environ | {"PYTHONPATH": f"{script.parent}{os.pathsep}{ROOT}"}
    program = subprocess.Popen([sys.executable, str(script)], cwd=script.parent, env=environment)
    until = time.monotonic() + WAIT_S
    try:
        while True:
            assert program.poll() is None, "the server has ended"
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            assert time.monotonic() < until
            time.sleep(0.02)
        yield
    finally:
        program.send_signal(signal.SIGTERM)
        assert program.wait(WAIT_S) == 0
