"""Clients that connect again after a loss; over every pairing."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

import caprpc
from caprpc import ConnectionLost, ConnectRefused, Interface, Reconnect, ReferenceDead, method
from caprpc.testing.deployment import Deployment

WAIT_S = 10.0
SOON = Reconnect(first_s=0.005, most_s=0.05)
PEER = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{}"]\n'
CALLS = '["balance", "post", "slow_balance", "slow_post", "account", "walk"]'
OFFER = f"""
[offer.Ledger]
interface = "Ledger"
call = {CALLS}
[offer.Ledger.returns]
account = "Account"
[offer.Account]
interface = "Account"
call = ["name"]
[accept.Callable]
invoke = true
"""
BOTH = PEER.format("alice") + '[roots]\nledger = "Ledger"\nspare = "Ledger"\n' + OFFER
ONE = PEER.format("alice") + '[roots]\nledger = "Ledger"\n' + OFFER
NOBODY = PEER.format("bob") + '[roots]\nledger = "Ledger"\n' + OFFER
CLIENT = (
    PEER.format("server")
    + f"""
[accept.Ledger]
call = {CALLS}
[accept.Account]
call = ["name"]
[offer.Step]
interface = "Callable"
invoke = true
[[lend]]
to = "Ledger.walk"
param = "step"
as = "Step"
lifetime = "call"
"""
)


class Account(Interface):
    @method(effect="read")
    def name(self) -> str: ...


class Ledger(Interface):
    @method(effect="read", idempotent=True)
    def balance(self) -> int: ...

    @method(effect="write")
    def post(self, amount: int) -> int: ...

    @method(effect="read", idempotent=True, blocking=True)
    def slow_balance(self) -> int: ...

    @method(effect="write", blocking=True)
    def slow_post(self, amount: int) -> int: ...

    @method(effect="read", idempotent=True)
    def account(self) -> Account: ...

    @method(effect="read", idempotent=True, blocking=True)
    def walk(self, step: Callable[[], None]) -> int: ...


class AccountImpl(Account):
    def name(self):
        return "A-1"


class Book(Ledger):
    """Counts what runs; slow members wait for ``gate`` and say that they do."""

    def __init__(self):
        self.ran = []
        self.arrived = threading.Semaphore(0)
        self.gate = threading.Event()
        self.total = 0

    def balance(self):
        self.ran.append("balance")
        return self.total

    def post(self, amount):
        self.ran.append("post")
        self.total += amount
        return self.total

    def _wait(self, name):
        self.ran.append(name)
        self.arrived.release()
        assert self.gate.wait(WAIT_S)

    def slow_balance(self):
        self._wait("slow_balance")
        return self.total

    def slow_post(self, amount):
        self._wait("slow_post")
        return self.post(amount)

    def account(self):
        return AccountImpl()

    def walk(self, step):
        self._wait("walk")
        return 0


class Bank:
    def __init__(self, root):
        self.deployment = Deployment(root)
        self.server = self.deployment.side("server", {"alice": BOTH}, [Ledger])
        self.clients = {"alice": self.deployment.side("alice", {"server": CLIENT}, [Ledger])}
        self.version = 1

    def grant(self, policy, name="alice"):
        self.version += 1
        self.deployment.rewrite(self.server, {name: policy}, self.version)


def open_bank(pairing, tmp_path):
    bank = pairing.deployment = Bank(tmp_path / "bank")
    bank.book = Book()
    bank.roots = {"ledger": bank.book, "spare": Book()}
    bank.address = pairing.serve(bank.roots).address
    bank.again = lambda: pairing.serve(bank.roots, address=bank.address.removeprefix("caprpc://"))
    return bank


@pytest.fixture
def bank(pairing, tmp_path):
    bank = open_bank(pairing, tmp_path)
    yield bank
    bank.book.gate.set()


async def arrived(face, book, number=1):
    """Wait until so many slow members run."""
    for _ in range(number):
        await face.pause(lambda: book.arrived.acquire(blocking=False))


async def stop(face, host):
    """Stop the server, and wait until the client knows: a call that it sends before may have run."""
    link = face.peer._connection.link
    host.stop(0.0)
    await face.pause(lambda: link.ended is not None)


def test_root_is_the_same_object_on_the_next_connection(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        assert await face(ledger.post(5)) == 5
        before = face.peer.connection_id
        pairing.host.sever()
        await face.pause(lambda: face.peer._connection.link.ended is None and face.peer.connection_id != before)
        assert await face.root("ledger", Ledger) is ledger
        return await face(ledger.balance())

    assert pairing.run(scenario, reconnect=SOON) == 5


def test_calls_made_while_nobody_is_there_wait_and_run_once(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        await face(ledger.balance())
        await stop(face, pairing.host)
        threading.Timer(0.1, bank.again).start()
        return await face(ledger.post(7))

    assert pairing.run(scenario, reconnect=SOON) == 7
    assert bank.book.ran == ["balance", "post"]


def test_idempotent_call_under_way_is_made_again(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)

        def cut():
            assert bank.book.arrived.acquire(timeout=WAIT_S)
            pairing.host.sever()
            assert bank.book.arrived.acquire(timeout=WAIT_S)
            bank.book.gate.set()

        cutter = threading.Thread(target=cut)
        cutter.start()
        assert await face(ledger.slow_balance()) == 0
        cutter.join()

    pairing.run(scenario, reconnect=SOON)
    assert bank.book.ran == ["slow_balance", "slow_balance"]


def test_other_call_under_way_is_not_and_its_caller_is_told(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        cutter = threading.Thread(target=lambda: (bank.book.arrived.acquire(timeout=WAIT_S), pairing.host.sever()))
        cutter.start()
        with pytest.raises(ConnectionLost, match="may or may not have run") as caught:
            await face(ledger.slow_post(3))
        cutter.join()
        assert caught.value.may_have_run
        bank.book.gate.set()
        assert await face(ledger.balance()) in (0, 3)

    pairing.run(scenario, reconnect=SOON)
    assert bank.book.ran.count("slow_post") == 1


def test_idempotent_call_is_made_again_no_more_often_than_said(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)

        def cut():
            for _ in range(2):
                assert bank.book.arrived.acquire(timeout=WAIT_S)
                pairing.host.sever()

        cutter = threading.Thread(target=cut)
        cutter.start()
        with pytest.raises(ConnectionLost) as caught:
            await face(ledger.slow_balance())
        cutter.join()
        assert "made again 1 times after a loss (Reconnect.retries)" in caught.value.__notes__

    pairing.run(scenario, reconnect=SOON)
    bank.book.gate.set()
    assert bank.book.ran == ["slow_balance"] * 2


def test_call_that_lends_something_is_not_made_again(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        cutter = threading.Thread(target=lambda: (bank.book.arrived.acquire(timeout=WAIT_S), pairing.host.sever()))
        cutter.start()
        with pytest.raises(ConnectionLost, match="may or may not have run"):
            await face(ledger.walk(lambda: None))
        cutter.join()

    pairing.run(scenario, reconnect=SOON)
    bank.book.gate.set()
    assert bank.book.ran == ["walk"]


def test_reference_that_is_no_root_dies_and_says_what_to_do(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        account = await face(ledger.account())
        pairing.host.sever()
        await face(ledger.balance())
        with pytest.raises(ReferenceDead, match="get it anew from the root it came from"):
            await face(account.name())
        return await face((await face(ledger.account())).name())

    assert pairing.run(scenario, reconnect=SOON) == "A-1"


def test_refused_identity_is_not_tried_again(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        await stop(face, pairing.host)
        bank.grant(NOBODY, "bob")
        bank.again()
        with pytest.raises(ConnectionLost) as caught:
            await face(ledger.balance())
        assert caught.value.code == "refused"
        with pytest.raises(ConnectionLost) as again:
            await face(ledger.post(1))
        assert (again.value.code, again.value.reference) == ("refused", caught.value.reference)
        assert caught.value.reference

    pairing.run(scenario, reconnect=SOON)
    rejects = [record for record in pairing.host.records() if record["kind"] == "reject"]
    assert len(rejects) == 1
    assert bank.book.ran == []


def test_root_that_is_granted_no_more_says_so_and_the_others_go_on(pairing, bank):
    async def scenario(face):
        ledger, spare = await face.root("ledger", Ledger), await face.root("spare", Ledger)
        await stop(face, pairing.host)
        bank.grant(ONE)
        bank.again()
        assert await face(ledger.balance()) == 0
        with pytest.raises(ReferenceDead, match="root 'spare' was not given again after reconnecting"):
            await face(spare.balance())

    pairing.run(scenario, reconnect=SOON)


def test_attempts_end(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        await stop(face, pairing.host)
        with pytest.raises(ConnectionLost, match=r"not connected again after 2 attempts \(Reconnect.attempts\)"):
            await face(ledger.balance())

    pairing.run(scenario, reconnect=Reconnect(first_s=0.001, most_s=0.002, attempts=2))


def test_close_while_nobody_is_there_ends_those_who_wait(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        await stop(face, pairing.host)
        if face.is_async:
            waiting = asyncio.ensure_future(ledger.balance())
            await asyncio.sleep(0)
            await face.peer.close()
            with pytest.raises(ConnectionLost, match="was closed"):
                await waiting
        else:
            threading.Timer(0.05, face.peer.close).start()
            with pytest.raises(ConnectionLost, match="was closed"):
                ledger.balance()

    pairing.run(scenario, reconnect=Reconnect(first_s=20.0))


def test_everybody_who_waits_goes_on(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        await stop(face, pairing.host)
        if face.is_async:
            waiting = [ledger.post(1) for _ in range(20)]
            bank.again()
            return await asyncio.gather(*waiting)
        results = []
        threads = [threading.Thread(target=lambda: results.append(ledger.post(1))) for _ in range(20)]
        for thread in threads:
            thread.start()
        bank.again()
        for thread in threads:
            thread.join()
        return results

    assert sorted(pairing.run(scenario, reconnect=SOON)) == list(range(1, 21))


def test_hooks_are_told_of_each_connection(pairing, bank):
    said = []

    def came(peer):
        said.append(("came", peer.principal))

    async def went(peer, reason):
        said.append(("went", reason.code))

    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        pairing.host.sever()
        await face(ledger.balance())

    pairing.run(scenario, reconnect=SOON, on_connect=came, on_disconnect=went)
    server = ("came", "spiffe://test.example/server")
    assert said == [server, ("went", "lost"), server, ("went", "closed")]


def test_hook_of_a_client_that_raises_is_raised_by_connect(pairing, bank):
    def refuse(_peer):
        raise KeyError("not today")

    async def scenario(face):
        raise AssertionError("was connected")

    with pytest.raises(KeyError, match="not today"):
        pairing.run(scenario, on_connect=refuse)


def test_first_connection_is_not_tried_again(pairing, bank):
    pairing.host.stop(0.0)

    async def scenario(face):
        raise AssertionError("was connected")

    started = time.monotonic()
    with pytest.raises(ConnectRefused):
        pairing.run(scenario, reconnect=Reconnect(first_s=20.0))
    assert time.monotonic() - started < WAIT_S


def test_released_root_is_not_asked_for_again(pairing, bank):
    async def scenario(face):
        ledger, spare = await face.root("ledger", Ledger), await face.root("spare", Ledger)
        face.release(spare)
        pairing.host.sever()
        assert await face(ledger.balance()) == 0
        with pytest.raises(ReferenceDead):
            await face(spare.balance())

    pairing.run(scenario, reconnect=SOON)
    asked = [r["member"] for r in pairing.host.records() if r.get("operation") == "root"]
    assert sorted(asked) == ["ledger", "ledger", "spare"]


def test_batch_waits_for_the_next_connection(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        pairing.host.sever()
        await face.pause(lambda: not ledger._caprpc_import.alive or bank.book.ran)
        return await face.batch([(ledger.post, (1,)), (ledger.post, (2,))])

    assert pairing.run(scenario, reconnect=SOON) == [1, 3]


async def send_one_way(face, reference, *args):
    if face.is_async:
        await caprpc.aio.oneway(reference, *args)
    else:
        caprpc.oneway(reference, *args)


async def end_of(face, future):
    """Return what a pipeline ends with."""
    return await future if face.is_async else future.result()


def pipe_of(face):
    return caprpc.aio.pipe if face.is_async else caprpc.pipe


def test_one_way_call_waits_for_the_next_connection(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        await stop(face, pairing.host)
        threading.Timer(0.1, bank.again).start()
        await send_one_way(face, ledger.post, 4)
        # Calls start in order; this one may still run, in a thread of its own, when a later one is answered.
        await face.pause(lambda: bank.book.total == 4)
        await face(ledger.balance())
        assert face.peer.one_way_failures == 0

    pairing.run(scenario, reconnect=SOON)
    assert bank.book.ran == ["post", "balance"]


def test_one_way_call_under_way_is_not_made_again_and_counted(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        await send_one_way(face, ledger.slow_balance)
        await arrived(face, bank.book)
        pairing.host.sever()
        await face(ledger.balance())
        await face.pause(lambda: face.peer.one_way_failures == 1)

    pairing.run(scenario, reconnect=SOON)
    bank.book.gate.set()
    assert bank.book.ran.count("slow_balance") == 1


def test_one_way_call_of_a_live_reference_dies_with_its_connection(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        account = await face(ledger.account())
        pairing.host.sever()
        await face(ledger.balance())
        with pytest.raises(ReferenceDead, match="get it anew from the root it came from"):
            await send_one_way(face, account.name)

    pairing.run(scenario, reconnect=SOON)


def test_pipeline_that_begins_without_a_connection_waits_for_the_next(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        await stop(face, pairing.host)
        threading.Timer(0.1, bank.again).start()
        assert await end_of(face, pipe_of(face)(ledger).account().name()) == "A-1"
        return await end_of(face, pipe_of(face)(ledger).account().name())

    assert pairing.run(scenario, reconnect=SOON) == "A-1"


def test_call_that_may_be_made_again_can_be_piped(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        if face.is_async:
            return await caprpc.aio.pipe(ledger.account()).name()
        return caprpc.pipe(ledger, lambda one: one.account().name()).result()

    assert pairing.run(scenario, reconnect=SOON) == "A-1"


def test_promise_dies_with_its_connection(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        account = pipe_of(face)(ledger).account()
        await end_of(face, account.name())
        pairing.host.sever()
        await face(ledger.balance())
        with pytest.raises((ConnectionLost, ReferenceDead)):
            await end_of(face, account.name())

    pairing.run(scenario, reconnect=SOON)


def test_pipeline_gives_up_when_there_is_no_connection_in_time(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        await stop(face, pairing.host)
        with pytest.raises(ConnectionLost):
            await end_of(face, pipe_of(face)(ledger).account().name())

    pairing.run(scenario, reconnect=Reconnect(first_s=0.005, most_s=0.01, attempts=3))


def test_without_reconnect_a_lost_connection_stays_lost(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        pairing.host.sever()
        await face.pause(lambda: face.peer._connection.link.ended is not None)
        with pytest.raises((ConnectionLost, ReferenceDead)):
            await face(ledger.balance())

    pairing.run(scenario)
    assert caprpc.Reconnect is Reconnect


def test_sturdy_reference_is_restored_again(pairing, bank, tmp_path):
    pairing.host.stop(0.0)
    bank.grant(BOTH + '[restore.spare]\nas = "Ledger"\n')
    (tmp_path / "state").mkdir(mode=0o700)
    address = bank.address.removeprefix("caprpc://")
    grants = [caprpc.Grants(tmp_path / "state" / "grants.db") for _ in range(2)]
    host = pairing.serve(bank.roots, address=address, grants=grants.pop())
    uri = host.server.grant("spare", to="spiffe://test.example/alice")
    if pairing.server_kind == "aio":
        uri = asyncio.run_coroutine_threadsafe(uri, host._loop).result(WAIT_S)

    async def scenario(face):
        spare = await face(face.peer.restore(uri, Ledger))
        assert await face(spare.post(4)) == 4
        await stop(face, pairing.host)
        pairing.serve(bank.roots, address=address, grants=grants.pop())
        assert await face(spare.post(4)) == 8
        assert await face(face.peer.restore(uri, Ledger)) is spare

    pairing.run(scenario, reconnect=SOON)
