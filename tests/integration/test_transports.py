"""Ways to a server besides TCP: Unix sockets, sockets that are connected already, and processes that we start."""

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest

import caprpc
import caprpc.aio
from caprpc import ConfigurationError, ConnectRefused, Interface, Reconnect, method
from caprpc.address import Address
from caprpc.cli.exits import EX_CONFIG, EX_USAGE
from caprpc.sockets import close_listener, listen
from caprpc.testing.deployment import Deployment

WAIT_S = 20.0
PEER = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{}"]\n'
SERVICE = """
import os
from caprpc import Interface, method

class Worker(Interface):
    @method(effect="read", idempotent=True)
    def pid(self) -> int: ...

class Here(Worker):
    def pid(self):
        return os.getpid()

def roots():
    return {"worker": Here()}
"""


class Worker(Interface):
    @method(effect="read", idempotent=True)
    def pid(self) -> int: ...


class Here(Worker):
    def pid(self):
        return os.getpid()


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    deployment = Deployment(tmp_path_factory.mktemp("transports"))
    offer = PEER.format("client") + '[roots]\nworker = "Worker"\n[offer.Worker]\ninterface = "Worker"\ncall = ["pid"]\n'
    accept = PEER.format("server") + '[accept.Worker]\ncall = ["pid"]\n'
    return (
        deployment.side("server", {"client": offer}, [Worker]),
        deployment.side("client", {"server": accept}, [Worker]),
    )


@pytest.fixture
def way(pairing, sides, tmp_path):
    """Set a pairing up for the worker; ``pairing.serve`` takes an address."""
    server, client = sides

    class Way:
        clients = {"alice": client}

    Way.server = server
    pairing.deployment = Way
    return pairing


async def pid(face):
    worker = await face.root("worker", Worker)
    return await face(worker.pid())


def opens(records):
    return [record["address"] for record in records if record["kind"] == "open" and "connection" in record]


@pytest.mark.parametrize("form", ["unix:{}", "caprpc+unix://{}", "unix:@{}"])
def test_unix_socket_knows_who_is_at_the_other_end(way, tmp_path, form):
    path = tmp_path / "s"
    host = way.serve({"worker": Here()}, address=form.format(path))
    if "@" in form:
        assert host.address == f"unix:@{path}"
        assert not path.exists()
    else:
        assert host.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    host.address = form.format(path)
    assert way.run(pid) == os.getpid()
    host.stop()
    us = f"unix pid={os.getpid()} uid={os.getuid()} gid={os.getgid()}"
    assert opens(host.records()) == [us]
    client = (way.directory / f"client{way._serial}").rglob("*.jsonl")
    assert any(f'"address":"unix:{"@" if "@" in form else ""}{path} ({us})"' in file.read_text() for file in client)
    assert not path.exists()


def test_file_of_another_kind_is_left_alone(tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(ConfigurationError, match="cannot listen on unix:"):
        listen(Address.parse(f"unix:{tmp_path}/notes"))
    assert (tmp_path / "notes").read_text() == "mine"


def test_one_of_two_servers_gets_a_stale_socket_and_keeps_it(tmp_path):
    path = tmp_path / "s"
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        won, barrier = [], threading.Barrier(4)

        def run(won=won, barrier=barrier):
            barrier.wait()
            try:
                won.append(listen(Address.parse(f"unix:{path}")))
            except ConfigurationError:
                return

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        close_listener(won[0])


@pytest.mark.parametrize("text", ["unix:relative", "unix:@", "unix:", "unix:/" + "x" * 200, "unix:@" + "x" * 200])
def test_senseless_unix_addresses_are_refused(text):
    with pytest.raises(ConfigurationError, match="address"):
        Address.parse(text)


def test_connected_sockets_are_served_like_accepted_ones(way, tmp_path):
    ours, theirs = socket.socketpair()
    host = way.serve({"worker": Here()})
    if way.server_kind == "blocking":
        host.server.adopt(theirs)
    else:
        host._loop.call_soon_threadsafe(host.server.adopt, theirs)
    options = {**way.deployment.clients["alice"].directories, "audit": tmp_path / "client"}
    if way.client_kind == "blocking":
        with caprpc.Client(**options) as client, client.adopt(ours) as peer:
            assert peer.root("worker", Worker).pid() == os.getpid()
            assert host.server.connections == 1
    else:

        async def main():
            async with caprpc.aio.Client(**options) as client, client.adopt(ours) as peer:
                worker = await peer.root("worker", Worker)
                assert await worker.pid() == os.getpid()
                assert host.server.connections == 1

        asyncio.run(main())
    host.stop()
    assert opens(host.records()) == [f"unix pid={os.getpid()} uid={os.getuid()} gid={os.getgid()}"]


def test_sockets_that_are_not_connected_are_refused(sides, tmp_path):
    with caprpc.Client(**sides[1].directories, audit=tmp_path / "audit") as client:
        for wrong in (socket.socket(), socket.socket(socket.AF_UNIX), *socket.socketpair(type=socket.SOCK_DGRAM)):
            with wrong, pytest.raises(ConfigurationError, match="connected socket|stream socket"):
                client.adopt(wrong)


@pytest.fixture
def command(sides, tmp_path, monkeypatch):
    (tmp_path / "worker_service.py").write_text(SERVICE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    server = sides[0]
    return [
        *(sys.executable, "-m", "caprpc", "serve", "worker_service:roots", "--fd", "{fd}", "--grace", "0"),
        *("--identity", str(server.identity), "--policies", str(server.policies), "--audit", str(tmp_path / "server")),
    ]


@pytest.fixture(params=["blocking", "aio"])
def with_child(request, sides, tmp_path):
    """Return a function that starts a child with either client and runs ``use(root, peer)``."""
    options = {**sides[1].directories, "audit": tmp_path / "client", "timeout_s": WAIT_S}

    def run(command, use, **how):
        if request.param == "blocking":
            with caprpc.connect_subprocess(command, **options, **how) as peer:
                return use(lambda: peer.root("worker", Worker).pid(), peer)

        async def main():
            async with caprpc.aio.connect_subprocess(command, **options, **how) as peer:
                worker = await peer.root("worker", Worker)
                loop = asyncio.get_running_loop()

                def ask():
                    async def call():
                        return await worker.pid()

                    return asyncio.run_coroutine_threadsafe(call(), loop).result(WAIT_S)

                return await asyncio.to_thread(use, ask, peer)

        return asyncio.run(main())

    return run


def gone(process_id):
    """Whether a process ends in time."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        try:
            os.kill(process_id, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("driver", [[], ["--aio"]], ids=["blocking-child", "aio-child"])
def test_subprocess_is_a_server_with_an_identity_and_ends_with_the_connection(with_child, command, driver):
    seen = {}

    def use(ask, peer):
        seen["pid"] = ask()
        return peer.principal

    assert with_child(command + driver, use) == "spiffe://test.example/server"
    assert seen["pid"] != os.getpid()
    assert gone(seen["pid"])


def test_subprocess_that_dies_is_started_again(with_child, command):
    def use(ask, _peer):
        first = ask()
        os.kill(first, signal.SIGKILL)
        second = ask()
        assert second != first
        return second

    assert gone(with_child(command, use, reconnect=Reconnect(first_s=0.01, most_s=0.1)))


def test_subprocess_with_another_identity_is_refused_and_ended(with_child, command):
    with pytest.raises(ConnectRefused):
        with_child(command, lambda *_: None, peer="spiffe://test.example/other")


def test_subprocess_that_ends_at_once_is_refused(with_child):
    with pytest.raises(ConnectRefused, match="subprocess"):
        with_child([sys.executable, "-c", "'{fd}'"], lambda *_: None)


def test_program_that_is_not_there_is_named(with_child):
    with pytest.raises(ConnectRefused, match="cannot start /no/such/program: No such file"):
        with_child(["/no/such/program", "{fd}"], lambda *_: None)


@pytest.mark.parametrize("command", [["caprpc", "serve"], "caprpc serve --fd {fd}"], ids=["no-place", "text"])
def test_command_that_does_not_say_where_the_descriptor_goes_is_refused(with_child, command):
    with pytest.raises(ConfigurationError, match="a list of words with {fd} among them"):
        with_child(command, lambda *_: None)


def test_subprocess_ends_when_we_are_killed(sides, command, tmp_path):
    program = f"""
import sys, caprpc
sys.path.insert(0, {str(tmp_path)!r})
from worker_service import Worker
peer = caprpc.connect_subprocess({command!r}, identity={str(sides[1].identity)!r},
    policies={str(sides[1].policies)!r}, audit={str(tmp_path / "client")!r}, timeout_s={WAIT_S})
print(peer.root("worker", Worker).pid(), flush=True)
sys.stdin.read()
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with parent:
        child = int(parent.stdout.readline())
        parent.kill()
    assert gone(child)


def test_serve_takes_a_descriptor_or_addresses(command):
    both = [word.replace("{fd}", "9") for word in command]
    run = subprocess.run([*both, "--listen", "127.0.0.1:0"], capture_output=True, text=True, check=False)
    assert run.returncode == EX_USAGE
    assert "--fd and --listen exclude each other" in run.stderr
    run = subprocess.run(both, capture_output=True, text=True, check=False)
    assert run.returncode == EX_CONFIG
    assert "--fd 9: no socket was inherited under this number" in run.stderr


def test_a_host_that_is_unknown_is_no_address_in_use(monkeypatch):
    class Unknown(socket.socket):
        def bind(self, address):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "socket", Unknown)
    with pytest.raises(ConfigurationError) as caught:
        listen(Address("nowhere.example", 4853, ""))
    assert str(caught.value).splitlines() == [
        "address: cannot listen on caprpc://nowhere.example:4853: Name or service not known",
        "  hint: give an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them",
    ]
