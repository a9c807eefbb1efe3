"""A ledger whose calls wait, call back, and return references, for every pairing of drivers."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

import caprpc
import caprpc.aio
from caprpc import Interface, attribute, method
from caprpc.testing.deployment import Deployment

WAIT_S = 10.0
"""How long something may take that is sure to come."""


class NoAccount(Exception):
    """What ``find`` declares."""


class Entry(Interface):
    @method(effect="read")
    def amount(self) -> int: ...

    @method(effect="read")
    def hidden(self) -> int: ...


class History(Interface):
    currency: str = attribute()

    @method(effect="read")
    def latest(self) -> Entry: ...

    @method(effect="read")
    def size(self) -> int: ...

    @method(effect="read")
    def next_page(self) -> "History": ...

    @method(effect="write")
    def note(self, number: int) -> None: ...


class Ledger(Interface):
    @method(effect="read")
    def history(self, account: str) -> History: ...

    @method(effect="read", blocking=True)
    def slow_history(self, account: str) -> History: ...

    @method(effect="read", errors=(NoAccount,))
    def find(self, account: str) -> History: ...

    @method(effect="read")
    def balance(self, account: str) -> int: ...

    @method(effect="write")
    def note(self, number: int) -> None: ...

    @method(effect="read")
    def noted(self) -> list[int]: ...

    @method(effect="read")
    def time_left(self) -> float: ...

    @method(effect="read", blocking=True)
    def wait(self) -> str: ...

    @method(effect="read", blocking=True)
    def gated(self) -> str: ...

    @method(effect="read")
    def ask_back(self, function: Callable[[], float]) -> float: ...

    @method(effect="read")
    def relay(self, function: Callable[[int], int], number: int) -> int: ...

    @method(effect="read")
    def time_left_of_batch(self, function: Callable[[], float]) -> list[float]: ...


class EntryImpl(Entry):
    def __init__(self, value):
        self.value = value

    def amount(self):
        return self.value

    def hidden(self):
        raise AssertionError("was granted to nobody")


class HistoryImpl(History):
    currency = "EUR"

    def __init__(self, ledger, account):
        self.ledger = ledger
        self.account = account

    def latest(self):
        return EntryImpl(len(self.account))

    def size(self):
        return 3

    def next_page(self):
        return self

    def note(self, number):
        self.ledger.numbers.append(number)


class Common(Ledger):
    def __init__(self):
        self.numbers = []
        self.waiting = threading.Event()
        self.told = threading.Event()
        self.gate = threading.Event()

    def history(self, account):
        return HistoryImpl(self, account)

    def slow_history(self, account):
        self.waiting.set()
        self.gate.wait(WAIT_S)
        return HistoryImpl(self, account)

    def find(self, account):
        raise NoAccount(account)

    def balance(self, account):
        return len(account)

    def note(self, number):
        self.numbers.append(number)

    def noted(self):
        return list(self.numbers)

    def time_left(self):
        due = caprpc.current().deadline
        return -1.0 if due is None else due - time.monotonic()

    def gated(self):
        self.waiting.set()
        return "open" if self.gate.wait(WAIT_S) else "never"


class Methods(Common):
    """The ``def`` implementation."""

    def wait(self):
        self.waiting.set()
        context = caprpc.current()
        end = time.monotonic() + WAIT_S
        while not context.cancelled and time.monotonic() < end:
            time.sleep(0.002)
        if context.cancelled:
            self.told.set()
        return "waited"

    def ask_back(self, function):
        return function()

    def relay(self, function, number):
        return function(number)

    def time_left_of_batch(self, function):
        return caprpc.batch([(function, ()), (function, ())])


class Coroutines(Common):
    """The ``async def`` implementation."""

    async def wait(self):
        self.waiting.set()
        try:
            await asyncio.sleep(WAIT_S)
        except asyncio.CancelledError:
            self.told.set()
            raise
        return "waited"

    async def ask_back(self, function):
        return await function()

    async def relay(self, function, number):
        return await function(number)

    async def time_left_of_batch(self, function):
        return await caprpc.aio.batch([(function, ()), (function, ())])


LEDGER = "history slow_history find balance note noted time_left wait gated ask_back relay time_left_of_batch".split()
NAMES = ", ".join(f'"{name}"' for name in LEDGER)

SERVER = f"""
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/client"]
[roots]
ledger = "Ledger"
[offer.Ledger]
interface = "Ledger"
call = [{NAMES}]
[offer.Ledger.returns]
history = "History"
slow_history = "History"
find = "History"
[offer.History]
interface = "History"
call = ["latest", "size", "next_page", "note"]
get = ["currency"]
[offer.History.returns]
latest = "Entry"
next_page = "History"
[offer.Entry]
interface = "Entry"
call = ["amount"]
[accept.Callable]
invoke = true
"""
LEND = '[[lend]]\nto = "Ledger.{}"\nparam = "function"\nas = "Function"\nlifetime = "call"\n'
CLIENT = f"""
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Ledger]
call = [{NAMES}]
[accept.History]
call = ["latest", "size", "next_page", "note"]
get = ["currency"]
[accept.Entry]
call = ["amount", "hidden"]
[offer.Function]
interface = "Callable"
invoke = true
""" + "".join(LEND.format(name) for name in ("ask_back", "relay", "time_left_of_batch"))


class World:
    """Directories of one server and one client, made once."""

    def __init__(self, root, server_more="", client_more=""):
        self.deployment = Deployment(root)
        interfaces = [Ledger, History, Entry]
        self.server = self.deployment.side(
            "server", {"client": SERVER + server_more}, interfaces, spiffe="spiffe://test.example/server"
        )
        self.clients = {
            "alice": self.deployment.side(
                "client", {"server": CLIENT + client_more}, interfaces, spiffe="spiffe://test.example/client"
            )
        }


@pytest.fixture(scope="session")
def ledger_world(tmp_path_factory):
    made = {}

    def make(server_more="", client_more=""):
        key = (server_more, client_more)
        if key not in made:
            made[key] = World(tmp_path_factory.mktemp("ledger"), server_more, client_more)
        return made[key]

    return make


PAIRINGS = [(server, client) for server in ("blocking", "aio") for client in ("blocking", "aio")]


class Ledgers:
    """A server with one ledger, and what a test says to it."""

    interface = Ledger
    NoAccount = NoAccount
    methods, coroutines = Methods, Coroutines

    def __init__(self, pairing):
        self.pairing = pairing
        self.impl = pairing.service
        self.host = pairing.serve({"ledger": pairing.service})

    def run(self, scenario):
        """Run ``scenario(face, ledger)`` over a connection of its own."""

        async def with_root(face):
            return await scenario(face, await face.root("ledger", Ledger))

        return self.pairing.run(with_root)

    def sessions(self):
        """Return the server's sessions."""
        return [connection.link.session for connection in list(self.host.server._connections)]


@pytest.fixture
def make_ledgers(scene, ledger_world, tmp_path):
    made = []

    def make(server, client, implementation=Methods, server_more="", client_more=""):
        world = ledger_world(server_more, client_more)
        pairing = scene.pairing(server, client, world, tmp_path / str(len(made)), implementation)
        made.append(pairing)
        return Ledgers(pairing)

    yield make
    for pairing in made:
        pairing.close()


@pytest.fixture(params=PAIRINGS, ids=lambda kinds: f"{kinds[0]}-server-{kinds[1]}-client")
def ledgers(request, make_ledgers):
    """Every pairing, with ``def`` methods."""
    return make_ledgers(*request.param)


@pytest.fixture(
    params=[(*kinds, impl) for kinds in PAIRINGS for impl in (Methods, Coroutines)],
    ids=lambda kinds: f"{kinds[0]}-server-{kinds[1]}-client-{kinds[2].__name__.lower()}",
)
def both(request, make_ledgers):
    """Every pairing, with ``def`` and with ``async def`` methods."""
    return make_ledgers(*request.param)
