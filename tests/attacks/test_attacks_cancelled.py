"""A task that is cancelled wherever it can be: what it held is free again, and each call has one outcome. CAP-RU-10.

Each operation runs once to count where it suspends. Then it runs once for each of these places, and once more for each
that lies a few turns of the loop behind one, and is cancelled there.
"""

import asyncio
import gc
import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from test_attacks_sturdy import EXTRA, Paper
from vault_service import CLIENT, INTERFACES, SCALE, SERVER, Safe, Slip, Vault

import caprpc
import caprpc.aio
from caprpc.objects.grants import Grants

TURNS = (0, 1, 2, 3) if SCALE > 1 else (0, 2)
"""Turns of the loop between the suspension and the cancellation: the answer may be here, or half of it."""

AUDITED = '[audit]\nlevel = "outcome"\n'


class Cancelled:
    """Awaits something, counts its suspensions, and at one of them cancels its own task, or does something else."""

    def __init__(self, coroutine, at=0, turns=0, do=None):
        self._coroutine = coroutine
        self._at = at
        self._turns = turns
        self._do = do
        self.count = 0

    def __await__(self):
        inner = self._coroutine.__await__()
        resume = inner.send, None
        while True:
            try:
                awaited = resume[0](resume[1])
            except StopIteration as stop:
                return stop.value
            self.count += 1
            if self.count == self._at:
                self._act(self._do or asyncio.current_task().cancel, self._turns)
            try:
                resume = inner.send, (yield awaited)
            except BaseException as exc:
                resume = inner.throw, exc

    def _act(self, do, turns):
        if turns:
            asyncio.get_running_loop().call_soon(self._act, do, turns - 1)
        else:
            do()


async def call(at):
    assert await at.vault.add(1, 2) == 3


async def slow_call(at):
    await at.vault.nap(5)


async def callback(at):
    async def function(number):
        await asyncio.sleep(0)
        return number + 1

    assert await at.vault.call_back(function) == 2


async def stream(at):
    assert [number async for number in at.vault.numbers(60)] == list(range(60))


async def context(at):
    async with await at.vault.door() as inside:
        assert inside == 1
        await at.vault.noop()


async def reference(at):
    slip = await at.vault.slip()
    assert await slip.text() == "slip"


async def batch(at):
    assert await caprpc.aio.batch([(at.vault.add, (1, 2)), (at.vault.noop, ()), (at.vault.add, (3, 4))]) == [3, None, 7]


async def pipelined(at):
    assert await caprpc.aio.pipe(at.vault).slip().text() == "slip"


async def one_way(at):
    await caprpc.aio.oneway(at.vault.noop)
    await at.vault.noop()


async def root(at):
    assert await (await at.peer.root("vault", Vault)).add(1, 2) == 3


async def restore(at):
    assert await (await at.peer.restore(at.uri, Slip)).text() == "7"


OPERATIONS = [call, slow_call, callback, stream, context, reference, batch, pipelined, one_way, root, restore]


class Bank:
    """A server that restores, its client's side, and what both hold."""

    def __init__(self, world, driver, directory, service=None):
        directory.mkdir(mode=0o700)
        self.service = service or world.service
        self.grants = Grants(directory / "grants.db", restorers={"slip": Paper, "other": Paper})
        policy = SERVER + AUDITED
        self.running = world.serve(
            driver, roots={"vault": self.service}, policy=policy, grants=self.grants, extra=EXTRA
        )
        result = self.running.server.grant("slip", key="7", to=f"spiffe://{world.deployment.trust_domain}/alice")
        if driver == "aio":
            result = asyncio.run_coroutine_threadsafe(result, self.running._loop).result(10)
        self.secret = result.partition("#")[2]
        self.uri = f"{self.running.address}/slip#{self.secret}"
        self.side = world.side("alice", policies={"server": CLIENT + AUDITED})

    def held(self):
        """Return what the server holds for its clients: connections, tables, tasks."""
        sessions = [one.link.session for one in list(self.running.server._connections) if one.link.admitted]
        tasks = [len(one.tasks) for one in list(self.running.server._connections) if hasattr(one, "tasks")]
        return sum(tasks), [tables(session) for session in sessions]

    def outcomes(self):
        """Stop; return how many records there are of calls that may run, and how many of their ends, by question.

        Where a method raised has a record of its own before that of the end.
        """
        found = {}
        for kind in ("decision", "outcome"):
            records = self.running.records(kind=kind)
            found[kind] = Counter(
                (fields["connection"], fields["question"])
                for fields in records
                if fields.get("decision") != "deny" and fields.get("outcome") != "error" and "question" in fields
            )
        return found["decision"], found["outcome"]


def tables(session):
    return (
        *(len(session.exports), len(session.imports), len(session.kept), len(session.asked.open)),
        *(len(session.answers), session.queued_bytes),
    )


async def settled(look, wanted, seconds=5.0):
    """Wait until what is held is what was held; return it as it is."""
    end = time.monotonic() + seconds
    while (found := look()) != wanted and time.monotonic() < end:
        await asyncio.sleep(0.002)
        gc.collect(0)
    return found


async def ended(awaiting):
    """Run as a task and return how it ended: exactly one of a result, an error, and cancelled."""

    async def run():
        return await awaiting

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return "returned" if error is None else error


@pytest.fixture
def bank(world, driver, tmp_path):
    return Bank(world, driver, tmp_path / "state")


async def at_rest(bank, peer):
    """Return a function that tells what both ends and the loop hold, and what it tells while nothing is under way.

    Each look has the client give back what it has dropped.
    """

    def look():
        peer._connection.flush()
        return tables(peer._connection.link.session), bank.held(), len(asyncio.all_tasks())

    end = time.monotonic() + 5.0
    while any(any(held[2:]) for held in (look()[0], *look()[1][1])):
        assert time.monotonic() < end, look()
        await asyncio.sleep(0.002)
    return look, look()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_a_client_that_is_cancelled_anywhere_leaves_nothing(bank, operation):
    async def main():
        seen = []
        async with caprpc.aio.connect(bank.running.address, **bank.side.directories) as peer:
            at = SimpleNamespace(peer=peer, vault=await peer.root("vault", Vault), uri=bank.uri)
            look, before = await at_rest(bank, peer)
            counting = Cancelled(operation(at))
            assert await ended(counting) == "returned"
            assert counting.count
            assert await settled(look, before) == before
            for turns in TURNS:
                for place in range(1, counting.count + 1):
                    seen.append(await ended(Cancelled(operation(at), place, turns)))
                    assert seen[-1] in ("cancelled", "returned"), (place, turns)
                    assert await settled(look, before) == before, (place, turns)
                    assert await at.vault.add(1, 2) == 3
        return seen

    seen = asyncio.run(main())
    assert seen.count("cancelled") >= len(seen) // len(TURNS)
    decided, over = bank.outcomes()
    assert (decided - over, over - decided) == (Counter(), Counter()), "as many ends as beginnings"


def test_connecting_and_closing_that_is_cancelled_anywhere_leaves_nothing(bank):
    """Who connects next has the audit log to itself: it was closed, too."""

    async def connected():
        async with caprpc.aio.connect(bank.running.address, **bank.side.directories) as peer:
            vault = await peer.root("vault", Vault)
            assert await vault.add(1, 2) == 3

    def look():
        ours = [thread.name for thread in threading.enumerate() if thread.name.startswith("caprpc-callback")]
        return len(asyncio.all_tasks()), bank.held(), len(bank.running.server._connections), ours

    async def main():
        seen = []
        await connected()
        gc.collect()
        before = (1, (0, []), 0, [])
        assert await settled(look, before) == before
        counting = Cancelled(connected())
        assert await ended(counting) == "returned"
        for turns in TURNS:
            for place in range(1, counting.count + 1):
                seen.append(await ended(Cancelled(connected(), place, turns)))
                assert seen[-1] in ("cancelled", "returned"), (place, turns)
                assert await settled(look, before) == before, (place, turns)
                await connected()
        return seen

    seen = asyncio.run(main())
    assert seen.count("cancelled") >= len(seen) // len(TURNS)
    decided, over = bank.outcomes()
    assert over - decided == Counter(), "no call has two ends"
    # One that had not begun when its connection ended never does.
    assert {question for _, question in decided - over} <= {1, 2}


class Suspending(Safe):
    """A method that suspends in many ways, and is cancelled, or has something done, at one of the places."""

    place, turns, do, counted = 0, 0, None, 0

    async def call_back(self, function):
        work = Cancelled(self._work(function), self.place, self.turns, self.do)
        try:
            return await work
        finally:
            self.counted = work.count

    async def _work(self, function):
        await asyncio.sleep(0)
        first = await function(1)
        both = await asyncio.gather(function(2), asyncio.to_thread(int))
        async with asyncio.timeout(5):
            last = await function(3)
        return first + sum(both) + last


@pytest.fixture
def suspending(world, driver, tmp_path):
    return Bank(world, driver, tmp_path / "state", Suspending())


@pytest.mark.parametrize("who", ["the method itself", "its caller"])
def test_a_method_that_is_cancelled_anywhere_leaves_nothing_and_is_answered_once(suspending, who):
    service = suspending.service

    async def main():
        seen = []
        async with caprpc.aio.connect(suspending.running.address, **suspending.side.directories) as peer:
            vault = await peer.root("vault", Vault)
            loop = asyncio.get_running_loop()

            async def called(place, turns):
                async def function(number):
                    await asyncio.sleep(0)
                    return number

                call = vault.call_back(function)
                service.place, service.turns = place, turns
                service.do = None if who == "the method itself" else lambda: loop.call_soon_threadsafe(call.cancel)
                return await call

            look, before = await at_rest(suspending, peer)
            assert await called(0, 0) == 6
            assert await settled(look, before) == before
            places = service.counted
            for turns in TURNS:
                for place in range(1, places + 1):
                    seen.append(await ended(called(place, turns)))
                    assert await settled(look, before) == before, (place, turns)
                    assert await vault.add(1, 2) == 3
        return seen

    seen = asyncio.run(main())
    assert len(seen) >= 4 * len(TURNS)
    refused = [one for one in seen if one not in ("returned", "cancelled")]
    assert {type(error) for error in refused} <= {caprpc.RemoteError, caprpc.CallCancelled}
    assert len(refused if who == "the method itself" else seen) >= len(seen) // 2
    decided, over = suspending.outcomes()
    assert (decided - over, over - decided) == (Counter(), Counter())


def test_stopping_a_server_that_is_cancelled_anywhere_closes_it_all_the_same(world):
    """The next server on the same audit log can begin, and nothing of the last one is left."""
    client = world.side("alice")
    text = SERVER.replace("@WHO@", '"spiffe://@DOMAIN@/alice"').replace("@ROOTS@", "")
    side = world.deployment.side("stopped", {"peers": text}, INTERFACES, spiffe=world.server_id)

    async def stopped(place, turns):
        server = caprpc.aio.Server({"vault": Safe()}, **side.directories)
        address = server.listen("127.0.0.1:0")
        await server.start()
        async with caprpc.aio.connect(address, **client.directories) as peer:
            vault = await peer.root("vault", Vault)
            running = [asyncio.ensure_future(vault.nap(30)), asyncio.ensure_future(vault.add(1, 2))]
            await running[1]
            stopping = Cancelled(server.stop(0.2), place, turns)
            how = await ended(stopping)
            await asyncio.wait(running)
        assert not server._connections
        return stopping.count, how

    async def main():
        places, how = await stopped(0, 0)
        assert (places > 1, how) == (True, "returned")
        seen = []
        for turns in TURNS:
            for place in range(1, places + 1):
                seen.append((await stopped(place, turns))[1])
                assert await settled(lambda: len(asyncio.all_tasks()), 1) == 1, (place, turns)
        return seen

    assert asyncio.run(main()).count("cancelled") > 1
