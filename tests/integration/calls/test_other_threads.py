"""References of an asyncio connection on other threads: what can work works, the rest says what to write instead."""

import asyncio
import threading
import time

import pytest

import caprpc
import caprpc.aio
from caprpc import Interface, method
from caprpc.testing import aio_connected


class Account(Interface):
    @method(effect="read")
    def balance(self) -> int: ...


class Ledger(Interface):
    @method(effect="write")
    def post(self, amount: int) -> int: ...

    @method(effect="read")
    def account(self) -> Account: ...

    @method(effect="read", blocking=True)
    def wait(self) -> None: ...


class AccountOfAcme(Account):
    def balance(self):
        return 12


class Book(Ledger):
    def __init__(self):
        self.total = 0
        self.cancelled = threading.Event()
        self.waiting = threading.Event()

    def post(self, amount):
        self.total += amount
        return self.total

    def account(self):
        return AccountOfAcme()

    def wait(self):
        context = caprpc.current()
        self.waiting.set()
        while not context.cancelled:
            threading.Event().wait(0.001)
        self.cancelled.set()


@pytest.fixture
async def connected(caprpc_sides):
    """A peer on this loop, a root of it, and the object behind that."""
    book = Book()
    roots = {"ledger": book}
    async with aio_connected(roots, *caprpc_sides(roots)) as peer:
        yield peer, await peer.root("ledger", Ledger), book


async def test_many_loops_of_other_threads_call_at_once(connected):
    _, ledger, book = connected

    async def post():
        return await asyncio.gather(*(ledger.post(1) for _ in range(50)))

    results = await asyncio.gather(*(asyncio.to_thread(asyncio.run, post()) for _ in range(4)), post())
    assert sorted(number for numbers in results for number in numbers) == list(range(1, 251))
    assert book.total == 250


async def test_what_another_loop_gets_can_be_used_there(connected):
    _, ledger, _ = connected

    async def balance():
        return await (await ledger.account()).balance()

    assert await asyncio.to_thread(asyncio.run, balance()) == 12


async def test_cancelling_on_another_loop_cancels_at_the_peer(connected):
    _, ledger, book = connected

    async def give_up():
        waiting = asyncio.ensure_future(ledger.wait())
        await asyncio.to_thread(book.waiting.wait)
        waiting.cancel()
        await asyncio.wait([waiting])

    await asyncio.to_thread(asyncio.run, give_up())
    assert await asyncio.to_thread(book.cancelled.wait, 10)


async def test_thread_without_a_loop_is_told_what_to_write(connected):
    _, ledger, book = connected
    with pytest.raises(RuntimeError, match=r"write caprpc.submit\(ref.post, ...\).result\(\)"):
        await asyncio.to_thread(lambda: ledger.post(1))
    assert book.total == 0
    assert await asyncio.to_thread(lambda: caprpc.submit(ledger.post, 1).result()) == 1


async def test_what_belongs_to_the_loop_is_refused_on_another(connected):
    peer, ledger, _ = connected
    for coroutine in (
        lambda: peer.root("ledger", Ledger),
        lambda: peer.roots(),
        lambda: caprpc.aio.oneway(ledger.post, 1),
        lambda: caprpc.aio.batch([(ledger.post, (1,))]),
    ):
        with pytest.raises(RuntimeError, match="belongs to the event loop of its connection"):
            await asyncio.to_thread(lambda make=coroutine: asyncio.run(_await(make)))
    assert await ledger.post(0) == 0


async def _await(make):
    return await make()


async def test_release_from_another_thread(connected):
    _, ledger, _ = connected
    account = await ledger.account()
    await asyncio.to_thread(caprpc.release, account)
    await asyncio.sleep(0)
    with pytest.raises(caprpc.ReferenceDead):
        await account.balance()


async def test_promise_that_a_thread_drops_at_once_still_carries_its_step(connected):
    """The thread is done with the promise before the loop has asked for anything."""
    _, ledger, _ = connected

    def balances():
        return [future.result() for future in [caprpc.pipe(ledger).account().balance() for _ in range(30)]]

    assert await asyncio.to_thread(balances) == [12] * 30


class Revoking(Book):
    """Revokes in a thread of an asyncio server, whose loop is busy at that moment."""

    def __init__(self, loop):
        super().__init__()
        self.loop = loop
        self.order = []
        self.revoke = lambda: caprpc.revoke(self)

    def wait(self):
        busy = threading.Event()

        def be_busy():
            busy.set()
            time.sleep(0.1)
            self.order.append("the loop goes on")

        self.loop.call_soon_threadsafe(be_busy)
        assert busy.wait(10)
        self.revoke()
        self.order.append("revoked")


@pytest.mark.parametrize("of_the_server", [False, True])
async def test_what_a_thread_revokes_is_revoked_when_it_goes_on(caprpc_sides, of_the_server):
    book = Revoking(asyncio.get_running_loop())
    roots = {"ledger": book}
    serving, dialing = caprpc_sides(roots)
    server = caprpc.aio.Server(roots, **serving.directories)
    address = server.listen("127.0.0.1:0")
    if of_the_server:
        book.revoke = lambda: server.revoke("spiffe://test.example/client")
    async with server, caprpc.aio.connect(address, **dialing.directories) as peer:
        ledger = await peer.root("ledger", Ledger)
        with pytest.raises((caprpc.ReferenceDead, caprpc.RemoteError, caprpc.ConnectionLost)):
            await ledger.wait()
        while len(book.order) < 2:
            await asyncio.sleep(0.005)
        with pytest.raises((caprpc.ReferenceDead, caprpc.RemoteError, caprpc.ConnectionLost)):
            await ledger.post(1)
    assert book.order == ["the loop goes on", "revoked"]
    assert book.total == 0
