"""Services, policies and hosts for scenarios that run over every pairing of blocking and asyncio."""

import asyncio
import enum
import gc
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as clock_time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

import caprpc
import caprpc.aio
from caprpc import Interface, attribute, method
from caprpc.interfaces import TextLines
from caprpc.testing.deployment import Deployment

WAIT_S = 10.0
"""How long a test waits for something that is sure to come."""


class Color(enum.Enum):
    RED = 1
    GREEN = 2


@dataclass
class Point:
    x: int
    y: float


class Rejected(Exception):
    """What the service declares that it raises."""


class Leaf(Interface):
    @method(effect="read")
    def name(self) -> str: ...


class Table(Interface):
    @method(effect="read")
    def __len__(self) -> int: ...

    @method(effect="read")
    def __contains__(self, item: str) -> bool: ...

    @method(effect="read")
    def __getitem__(self, key: str) -> int: ...

    @method(effect="write")
    def __setitem__(self, key: str, value: int) -> None: ...

    @method(effect="read")
    def __iter__(self) -> Iterator[str]: ...

    @method(effect="write")
    def __enter__(self) -> int: ...

    @method(effect="write")
    def __exit__(self, kind: Any, value: Any, trace: Any) -> None: ...


class Service(Interface):
    currency: str = attribute()
    level: int = attribute(writable=True)

    @method(effect="read")
    def noop(self) -> None: ...

    @method(effect="read")
    def echo(self, value: Any) -> Any: ...

    @method(effect="read")
    def echo_none(self, value: None) -> None: ...

    @method(effect="read")
    def echo_bool(self, value: bool) -> bool: ...

    @method(effect="read")
    def echo_int(self, value: int) -> int: ...

    @method(effect="read")
    def echo_float(self, value: float) -> float: ...

    @method(effect="read")
    def echo_complex(self, value: complex) -> complex: ...

    @method(effect="read")
    def echo_str(self, value: str) -> str: ...

    @method(effect="read")
    def echo_bytes(self, value: bytes) -> bytes: ...

    @method(effect="read")
    def echo_tuple(self, value: tuple[int, str]) -> tuple[int, str]: ...

    @method(effect="read")
    def echo_list(self, value: list[int]) -> list[int]: ...

    @method(effect="read")
    def echo_dict(self, value: dict[str, int]) -> dict[str, int]: ...

    @method(effect="read")
    def echo_pairs(self, value: dict[int, str]) -> dict[int, str]: ...

    @method(effect="read")
    def echo_set(self, value: set[int]) -> set[int]: ...

    @method(effect="read")
    def echo_frozenset(self, value: frozenset[str]) -> frozenset[str]: ...

    @method(effect="read")
    def echo_datetime(self, value: datetime) -> datetime: ...

    @method(effect="read")
    def echo_date(self, value: date) -> date: ...

    @method(effect="read")
    def echo_time(self, value: clock_time) -> clock_time: ...

    @method(effect="read")
    def echo_timedelta(self, value: timedelta) -> timedelta: ...

    @method(effect="read")
    def echo_decimal(self, value: Decimal) -> Decimal: ...

    @method(effect="read")
    def echo_uuid(self, value: UUID) -> UUID: ...

    @method(effect="read")
    def echo_color(self, value: Color) -> Color: ...

    @method(effect="read")
    def echo_point(self, value: Point) -> Point: ...

    @method(effect="read")
    def line_counter(self, fileobj: TextLines, function: Callable[[str], None]) -> int: ...

    @method(effect="write")
    def keep_file(self, fileobj: TextLines) -> None: ...

    @method(effect="read")
    def read_kept_file(self) -> int: ...

    @method(effect="read")
    def items(self, n: int) -> Iterator[int]: ...

    @method(effect="read")
    def failing_items(self, n: int) -> Iterator[int]: ...

    @method(effect="read")
    def generated(self) -> Iterator[int]: ...

    @method(effect="read")
    def apply(self, function: Callable[[int], int], value: int) -> int: ...

    @method(effect="read", errors=(Rejected,))
    def reject(self, text: str) -> None: ...

    @method(effect="read")
    def break_down(self, text: str) -> None: ...

    @method(effect="read")
    def same(self) -> Leaf: ...

    @method(effect="write")
    def keep(self, leaf: Leaf) -> None: ...

    @method(effect="read")
    def kept(self) -> Leaf: ...

    @method(effect="read")
    def name_of(self, leaf: Leaf) -> str: ...

    @method(effect="read")
    def is_own(self, leaf: Leaf) -> bool: ...

    @method(effect="read")
    def principal(self) -> str: ...

    @method(effect="write")
    def note(self, number: int) -> None: ...

    @method(effect="read")
    def noted(self) -> list[int]: ...

    @method(effect="read", blocking=True)
    def wait(self) -> str: ...

    @method(effect="read", blocking=True)
    def wait_for_leaf(self) -> Leaf: ...

    @method(effect="read")
    def short(self, text: str) -> str: ...

    @method(effect="read")
    def hidden(self) -> None: ...

    @method(effect="read")
    def table(self) -> Table: ...

    @method(effect="read")
    def connection_number(self) -> int: ...


class LeafImpl(Leaf):
    def __init__(self, name="leaf"):
        self.text = name

    def name(self):
        return self.text


class TableImpl(Table):
    def __init__(self):
        self.values = {"a": 1, "b": 2}
        self.inside = []

    def __len__(self):
        return len(self.values)

    def __contains__(self, item):
        return item in self.values

    def __getitem__(self, key):
        return self.values[key]

    def __setitem__(self, key, value):
        self.values[key] = value

    def __iter__(self):
        return iter(list(self.values))

    def __enter__(self):
        self.inside.append("enter")
        return 7

    def __exit__(self, kind, value, trace):
        self.inside.append("failed" if kind is not None else "exit")


class Plain(Service):
    """Everything that needs no reference of the peer; both implementations share it."""

    def __init__(self, number=0):
        self.number = number
        self.currency = "EUR"
        self.level = 1
        self.file = None
        self.held = None
        self.leaf = LeafImpl("own")
        self.numbers = []
        self.closed = threading.Event()
        self.waiting = threading.Event()
        self.gate = threading.Event()
        self.tables = TableImpl()

    def _echo(self, value):
        return value

    def noop(self):
        return None

    echo = echo_none = echo_bool = echo_int = echo_float = echo_complex = echo_str = echo_bytes = _echo
    echo_tuple = echo_list = echo_dict = echo_pairs = echo_set = echo_frozenset = echo_datetime = echo_date = _echo
    echo_time = echo_timedelta = echo_decimal = echo_uuid = echo_color = echo_point = _echo

    def keep_file(self, fileobj):
        self.file = fileobj

    def items(self, n):
        return iter(range(n))

    def failing_items(self, n):
        def generate():
            yield from range(n)
            raise ValueError("the source broke")

        return generate()

    def generated(self):
        def generate():
            try:
                n = 0
                while True:
                    yield n
                    n += 1
            finally:
                self.closed.set()

        return generate()

    def reject(self, text):
        raise Rejected(text)

    def break_down(self, text):
        raise RuntimeError(text)

    def same(self):
        return self.leaf

    def keep(self, leaf):
        self.held = leaf

    def kept(self):
        return self.held

    def is_own(self, leaf):
        return leaf is self.leaf

    def principal(self):
        return caprpc.current().principal

    def note(self, number):
        self.numbers.append(number)

    def noted(self):
        return list(self.numbers)

    def wait(self):
        self.waiting.set()
        return "open" if self.gate.wait(WAIT_S) else "never"

    def wait_for_leaf(self):
        self.wait()
        return LeafImpl("late")

    def short(self, text):
        return text

    def hidden(self):
        raise AssertionError("was granted to nobody")

    def table(self):
        return self.tables

    def connection_number(self):
        return self.number


class Methods(Plain):
    """The ``def`` implementation."""

    def line_counter(self, fileobj, function):
        n = 0
        for line in fileobj.readlines():
            function(line)
            n += 1
        return n

    def read_kept_file(self):
        return len(list(self.file.readlines()))

    def apply(self, function, value):
        return function(value)

    def name_of(self, leaf):
        return leaf.name()


class Coroutines(Plain):
    """The ``async def`` implementation."""

    async def line_counter(self, fileobj, function):
        n = 0
        async for line in await fileobj.readlines():
            n += 1
            await function(line)
        return n

    async def read_kept_file(self):
        return len([line async for line in await self.file.readlines()])

    async def apply(self, function, value):
        return await function(value)

    async def name_of(self, leaf):
        return await leaf.name()

    async def noop(self):
        await asyncio.sleep(0)

    async def note(self, number):
        self.numbers.append(number)
        await asyncio.sleep(0)

    async def principal(self):
        await asyncio.sleep(0)
        return caprpc.current().principal

    async def reject(self, text):
        await asyncio.sleep(0)
        raise Rejected(text)

    async def failing_items(self, n):
        async def generate():
            for i in range(n):
                yield i
            raise ValueError("the source broke")

        return generate()


GRANTED = [name for name in vars(Service) if not name.startswith("_") and name not in ("currency", "level", "hidden")]
CALLS = ", ".join(f'"{name}"' for name in GRANTED)

OFFER = f"""
[roots]
service = "Service"
[offer.Service]
interface = "Service"
call = [{CALLS}]
get = ["currency", "level"]
set = ["level"]
iterate = true
[offer.Service.args.short]
text = {{ max_len = 3 }}
[offer.Service.returns]
same = "Leaf"
kept = "Leaf"
wait_for_leaf = "Leaf"
table = "Table"
[offer.Leaf]
interface = "Leaf"
call = ["name"]
[offer.Table]
interface = "Table"
length = true
contains = true
index_get = true
index_set = true
iterate = true
context = true
[accept.TextLines]
call = ["readlines"]
iterate = true
[accept.Callable]
invoke = true
[accept.Iterator]
iterate = true
[accept.Leaf]
call = ["name"]
"""

PEERS = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{}"]\n'


def lend(to, param, facet, lifetime="call"):
    return f'[[lend]]\nto = "Service.{to}"\nparam = "{param}"\nas = "{facet}"\nlifetime = "{lifetime}"\n'


CLIENT = f"""
[accept.Service]
call = [{CALLS}]
get = ["currency", "level"]
set = ["level"]
iterate = true
[accept.Leaf]
call = ["name"]
[accept.Table]
length = true
contains = true
index_get = true
index_set = true
iterate = true
context = true
[offer.LinesOnly]
interface = "TextLines"
call = ["readlines"]
iterate = true
[offer.InvokeOnly]
interface = "Callable"
invoke = true
[offer.Lent]
interface = "Leaf"
call = ["name"]
""" + "".join(
    [
        lend("line_counter", "fileobj", "LinesOnly"),
        lend("line_counter", "function", "InvokeOnly"),
        lend("keep_file", "fileobj", "LinesOnly"),
        lend("apply", "function", "InvokeOnly"),
        lend("keep", "leaf", "Lent", "connection"),
        lend("name_of", "leaf", "Lent"),
    ]
)


class Host:
    """A server of either kind, running in this process."""

    def __init__(self, kind, roots, directories, *, audit, address="127.0.0.1:0", **options):
        self.kind = kind
        self.audit = audit
        self.roots = roots
        self._loop = None
        if kind == "blocking":
            self.server = caprpc.Server(roots, **directories, audit=audit, **options)
            self.address = self.server.listen(address)
            self.server.start()
            return
        started = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(roots, directories, address, options, started))
        )
        self._thread.start()
        assert started.wait(WAIT_S)

    async def _serve(self, roots, directories, address, options, started):
        self.server = caprpc.aio.Server(roots, **directories, audit=self.audit, **options)
        self.address = self.server.listen(address)
        await self.server.start()
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        started.set()
        await self._stopping.wait()
        await self.server.stop(self._grace_s)

    def stop(self, grace_s=5.0):
        self._grace_s = grace_s
        if self.kind == "blocking":
            self.server.stop(grace_s)
            return
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def on_loop(self, function):
        """Call something of the server where it may be called, and return what it returns."""
        if self.kind == "blocking":
            return function()

        async def run():
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(WAIT_S)

    def sever(self):
        """Break every connection as a network does: without a word to either side."""
        for connection in list(self.server._connections):
            if self.kind == "blocking":
                connection.wire.sock.shutdown(socket.SHUT_RDWR)
            else:
                self._loop.call_soon_threadsafe(connection.cut_off)

    def reload(self):
        if self.kind == "blocking":
            return self.server.reload()

        async def again():
            return self.server.reload()

        return asyncio.run_coroutine_threadsafe(again(), self._loop).result(WAIT_S)

    def records(self):
        """Return every record of the audit log."""
        lines = []
        for path in sorted(self.audit.rglob("*.jsonl")):
            lines += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return lines


class Face:
    """What a scenario does with its peer, the same text for both clients: ``await face(ref.method(...))``."""

    END = object()

    def __init__(self, kind, peer):
        self.kind = kind
        self.peer = peer

    @property
    def is_async(self):
        return self.kind == "aio"

    async def __call__(self, result):
        try:
            return await result if self.is_async else result
        finally:
            # An error's traceback holds this frame: the two would wait for the garbage collector.
            del result

    async def root(self, name="service", interface=Service):
        return await self(self.peer.root(name, interface))

    async def list(self, iterator):
        if self.is_async:
            return [item async for item in iterator]
        return list(iterator)

    async def next(self, iterator):
        """Return the next item, or ``Face.END``: a coroutine cannot raise ``StopIteration``."""
        if self.is_async:
            return await anext(iterator, self.END)
        return next(iterator, self.END)

    async def close(self, iterator):
        await iterator.aclose() if self.is_async else iterator.close()

    async def set(self, ref, name, value):
        if self.is_async:
            await caprpc.aio.set_attribute(ref, name, value)
        else:
            setattr(ref, name, value)

    async def batch(self, calls):
        return await caprpc.aio.batch(calls) if self.is_async else caprpc.batch(calls)

    def submit(self, ref, *args):
        return (caprpc.aio if self.is_async else caprpc).submit(ref, *args)

    async def result(self, future):
        try:
            return await future if self.is_async else future.result(WAIT_S)
        finally:
            del future  # as above

    def release(self, ref):
        (caprpc.aio if self.is_async else caprpc).release(ref)

    async def pause(self, done):
        """Wait until something has become true on the other side."""
        end = time.monotonic() + WAIT_S
        while not done():
            assert time.monotonic() < end, "waited in vain"
            await asyncio.sleep(0.002) if self.is_async else time.sleep(0.002)


def finish(coroutine):
    """Run a coroutine that never waits: each of its calls blocks by itself."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a blocking scenario has awaited something")


class Pairing:
    """One server and one client, each of one kind."""

    def __init__(self, server_kind, client_kind, deployment, directory, implementation=Methods):
        self.server_kind, self.client_kind = server_kind, client_kind
        self.deployment = deployment
        self.directory = directory
        self.implementation = implementation
        self.service = implementation()
        self._stack = ExitStack()
        self.host = None
        self._serial = 0

    def serve(self, roots=None, **options):
        """Start the server; the pairing stops it."""
        self._serial += 1
        self.host = Host(
            self.server_kind,
            roots or {"service": self.service},
            self.deployment.server.directories,
            audit=self.directory / f"server{self._serial}",
            **options,
        )
        self._stack.callback(self.host.stop)
        return self.host

    def run(self, scenario, *, side="alice", **how):
        """Run a scenario against the server, over a connection of its own."""
        host = self.host or self.serve()
        self._serial += 1
        options = {**self.deployment.clients[side].directories, "audit": self.directory / f"client{self._serial}"}
        if self.client_kind == "blocking":
            with caprpc.connect(host.address, **options, **how) as peer:
                return finish(scenario(Face("blocking", peer)))

        async def main():
            async with await caprpc.aio.connect(host.address, **options, **how) as peer:
                return await scenario(Face("aio", peer))

        return asyncio.run(main())

    def held_by_peers(self):
        """Return how many objects of the server its peers hold."""
        return sum(len(connection.link.session.exports) for connection in list(self.host.server._connections))

    def close(self):
        self.service.gate.set()
        self._stack.close()


class Scene:
    """The directories of all sides."""

    def __init__(self, root):
        self.deployment = deployment = Deployment(root)
        policies = {name: PEERS.format(name) + OFFER for name in ("alice", "bob")}
        self.policies = policies
        self.client_policy = PEERS.format("server") + CLIENT
        self.server = deployment.side("server", policies, [Service, Table])
        self.clients = {
            name: deployment.side(name, {"server": PEERS.format("server") + CLIENT}, [Service, Table])
            for name in ("alice", "bob")
        }

    pairing = Pairing

    def rewrite(self, policies, version):
        """Replace the server's policies."""
        self.deployment.rewrite(self.server, policies, version)

    def add_stranger(self):
        """Make a client for which the server has no policy."""
        policies = {"server": PEERS.format("server") + CLIENT}
        self.clients["stranger"] = self.deployment.side("stranger", policies, [Service, Table])


@pytest.fixture(scope="session")
def scene(tmp_path_factory):
    return Scene(tmp_path_factory.mktemp("scenarios"))


PAIRINGS = [(server, client) for server in ("blocking", "aio") for client in ("blocking", "aio")]


@contextmanager
def nothing_left():
    """Fail if a thread is left behind."""
    before = set(threading.enumerate())
    yield
    end = time.monotonic() + WAIT_S
    while (left := [t for t in threading.enumerate() if t not in before]) and time.monotonic() < end:
        time.sleep(0.005)
    assert not left
    gc.collect()


@pytest.fixture(params=PAIRINGS, ids=lambda kinds: f"{kinds[0]}-server-{kinds[1]}-client")
def pairing(request, scene, tmp_path):
    """One pairing after the other, with ``def`` methods."""
    with nothing_left():
        made = Pairing(*request.param, scene, tmp_path)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(
    params=[(*kinds, impl) for kinds in PAIRINGS for impl in (Methods, Coroutines)],
    ids=lambda kinds: f"{kinds[0]}-server-{kinds[1]}-client-{kinds[2].__name__.lower()}",
)
def both(request, scene, tmp_path):
    """One pairing after the other, with ``def`` and with ``async def`` methods."""
    with nothing_left():
        made = Pairing(request.param[0], request.param[1], scene, tmp_path, request.param[2])
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(
    params=[(*kinds, number) for kinds in PAIRINGS for number in (0, 1)],
    ids=lambda kinds: f"{kinds[0]}-server-{kinds[1]}-client-{('def', 'async-def')[kinds[2]]}",
)
def pairings(request):
    """Return a maker: of one pairing after the other, with the first and with the second of two implementations."""
    server, client, number = request.param
    with nothing_left():
        yield lambda deployment, directory, *implementations: Pairing(
            server, client, deployment, directory, implementations[number]
        )


@pytest.fixture
def parts():
    """Return the classes that scenarios need."""

    class Parts:
        leaf, rejected, color, point, service = LeafImpl, Rejected, Color, Point, Service
        methods, coroutines = Methods, Coroutines
        interfaces = (Service, Table)

    return Parts
