"""What the policy ends: calls that take too long, and what a vanished peer has left open, on both kinds of server."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import caprpc
import caprpc.aio
from caprpc import DeadlineExceeded, Interface, method
from caprpc.audit import AuditLog
from caprpc.testing.deployment import Deployment

WAIT_S = 10.0


class Slow(Interface):
    @method(effect="read", blocking=True)
    def wait(self) -> bool: ...

    @method(effect="read")
    def wait_awaiting(self) -> None: ...

    @method(effect="read")
    def quick(self) -> int: ...

    @method(effect="read")
    def numbers(self) -> Iterator[int]: ...

    @method(effect="write")
    def __enter__(self) -> None: ...

    @method(effect="write")
    def __exit__(self, kind: Any, value: Any, trace: Any) -> None: ...


class SlowImpl(Slow):
    def __init__(self):
        self.saw_the_end = threading.Event()
        self.cancelled = threading.Event()
        self.log = []

    def wait(self):
        context = caprpc.current()
        end = time.monotonic() + WAIT_S
        while not context.cancelled and time.monotonic() < end:
            time.sleep(0.005)
        if context.cancelled:
            self.saw_the_end.set()
        return context.cancelled

    async def wait_awaiting(self):
        try:
            await asyncio.sleep(WAIT_S)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def quick(self):
        return 1

    def numbers(self):
        def generate():
            try:
                yield from range(10_000)
            finally:
                self.log.append("closed")

        return generate()

    def __enter__(self):
        self.log.append("in")

    def __exit__(self, kind, value, trace):
        self.log.append("out" if kind is None else kind.__name__)


SERVER = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/client"]
[roots]
slow = "Slow"
[offer.Slow]
interface = "Slow"
call = ["wait", "wait_awaiting", "quick", "numbers"]
context = true
iterate = true
[offer.Slow.limit.wait]
timeout_s = 0.05
[offer.Slow.limit.wait_awaiting]
timeout_s = 0.05
"""
CLIENT = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Slow]
call = ["wait", "wait_awaiting", "quick", "numbers"]
context = true
iterate = true
"""


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    deployment = Deployment(tmp_path_factory.mktemp("overstay"))
    return deployment.side("server", {"client": SERVER}, [Slow]), deployment.side("client", {"server": CLIENT}, [Slow])


@contextlib.contextmanager
def serving(kind, options, roots):
    """Serve in this process, on threads or on a loop of its own; yield the address."""
    if kind == "blocking":
        server = caprpc.Server(roots, **options)
        address = server.listen("127.0.0.1:0")
        with server:
            yield address
        return
    stop, ready, found = threading.Event(), threading.Event(), []

    async def serve():
        async_server = caprpc.aio.Server(roots, **options)
        found.append(async_server.listen("127.0.0.1:0"))
        async with async_server:
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(WAIT_S)
    try:
        yield found[0]
    finally:
        stop.set()
        thread.join()


@pytest.fixture(params=["blocking", "aio"])
def served(request, sides, tmp_path):
    server, client = sides
    impl = SlowImpl()
    with serving(request.param, {**server.directories, "audit": tmp_path / "server"}, {"slow": impl}) as address:
        yield impl, lambda: caprpc.connect(address, **client.directories, audit=tmp_path / "client")


def until(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def test_method_that_overstays_is_answered_for_and_told(served):
    impl, connect = served
    with connect() as peer:
        slow = peer.root("slow", Slow)
        with pytest.raises(DeadlineExceeded):
            slow.wait()
        assert impl.saw_the_end.wait(WAIT_S)
        assert slow.quick() == 1


def test_coroutine_that_overstays_is_cancelled(served):
    impl, connect = served
    with connect() as peer:
        slow = peer.root("slow", Slow)
        with pytest.raises(DeadlineExceeded):
            slow.wait_awaiting()
        assert impl.cancelled.wait(WAIT_S)
        assert slow.quick() == 1


def test_what_a_peer_leaves_open_is_closed_once(served):
    impl, connect = served
    with connect() as peer:
        slow = peer.root("slow", Slow)
        numbers = slow.numbers()
        assert next(numbers) == 0
        context = contextlib.ExitStack()
        context.enter_context(slow)
    until(lambda: len(impl.log) == 3)
    assert sorted(impl.log) == ["ConnectionLost", "closed", "in"]


def test_generator_that_a_peer_lets_go_of_is_closed_while_the_connection_goes_on(served):
    impl, connect = served
    with connect() as peer:
        slow = peer.root("slow", Slow)
        numbers = slow.numbers()
        assert next(numbers) == 0
        caprpc.release(numbers)
        until(lambda: impl.log == ["closed"])
        assert slow.quick() == 1


def test_audit_log_of_an_idle_client_is_made_to_last(sides, tmp_path, monkeypatch):
    server, client = sides
    kept = threading.Event()
    tick = AuditLog.tick

    def note(log, now):
        tick(log, now)
        if "spiffe://test.example/server" in log._opened:
            kept.set()

    monkeypatch.setattr(AuditLog, "tick", note)
    with (
        serving("aio", {**server.directories, "audit": tmp_path / "server"}, {"slow": SlowImpl()}) as address,
        caprpc.connect(address, **client.directories, audit=tmp_path / "client"),
    ):
        assert kept.wait(WAIT_S)
