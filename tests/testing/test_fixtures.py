"""The fixtures that services are tested with, and what stands behind them."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest

import caprpc
from caprpc import Denied, Interface, ReferenceDead, RemoteError, attribute, method
from caprpc.testing import Deployment, FakeClock, aio_connected, everything


class Entry(Interface):
    @method(effect="read")
    def text(self) -> str: ...


class Ledger(Interface):
    currency: str = attribute(writable=True)

    @method(effect="read")
    def entry(self) -> Entry: ...

    @method(effect="read")
    def rows(self) -> Iterator[int]: ...

    @method(effect="write")
    def each(self, function: Callable[[int], int]) -> int: ...

    @method(effect="read")
    def name_of(self, entry: Entry) -> str: ...

    @method(effect="read")
    def __len__(self) -> int: ...


class Row(Entry):
    def text(self):
        return "row"


class Book(Ledger):
    def __init__(self):
        self.currency = "EUR"
        self.row = Row()

    def entry(self):
        return self.row

    def rows(self):
        return iter(range(3))

    def each(self, function):
        return sum(function(n) for n in range(3))

    def name_of(self, entry):
        return entry.text()

    def __len__(self):
        return 3


class Vault(Interface):
    @method(effect="write")
    def opened(self) -> AbstractContextManager[Entry]: ...

    @method(effect="write")
    def locked(self) -> AbstractContextManager[int]: ...

    @method(effect="read")
    def entries(self) -> Iterator[Entry]: ...

    @method(effect="read")
    def maker(self) -> Callable[[int], Entry]: ...

    @method(effect="read")
    def found(self) -> Entry | None: ...

    @method(effect="read")
    def __getitem__(self, index: int) -> Entry: ...

    @method(effect="read")
    def __lt__(self, other: int) -> bool: ...


class Safe(Vault):
    @contextmanager
    def opened(self):
        yield Row()

    def locked(self):
        return nullcontext(3)

    def entries(self):
        return iter([Row(), Row()])

    def maker(self):
        return lambda number: Row()

    def found(self):
        return Row()

    def __getitem__(self, index):
        return Row()

    def __lt__(self, other):
        return other > 3


def test_what_contexts_iterators_functions_and_indexes_give_is_granted_too(caprpc_pair):
    vault = caprpc_pair({"vault": Safe()}).client.root("vault", Vault)
    with vault.opened() as entry:
        assert entry.text() == "row"
    with vault.locked() as number:
        assert number == 3
    assert [entry.text() for entry in vault.entries()] == ["row", "row"]
    given = [vault.maker()(1), vault.found(), vault[0]]
    assert [entry.text() for entry in given] == ["row"] * 3
    assert [vault < 3, vault < 4] == [False, True]


def use(ledger):
    """Use everything that the interface declares."""
    ledger.currency = "USD"
    assert ledger.currency == "USD"
    assert ledger.entry().text() == "row"
    assert list(ledger.rows()) == [0, 1, 2]
    assert ledger.each(lambda n: n * 2) == 6
    assert ledger.name_of(Row()) == "row"
    assert len(ledger) == 3


def test_pair_grants_all_that_the_interfaces_declare(caprpc_pair):
    use(caprpc_pair({"ledger": Book()}).client.root("ledger", Ledger))


def test_peer_grants_all_that_the_interfaces_declare(caprpc_peer):
    use(caprpc_peer({"ledger": Book()}).root("ledger", Ledger))


async def test_aio_peer_is_connected_over_a_pair(caprpc_sides):
    roots = {"ledger": Book()}
    async with aio_connected(roots, *caprpc_sides(roots)) as peer:
        ledger = await peer.root("ledger", Ledger)
        assert await (await ledger.entry()).text() == "row"


def test_factories_say_what_they_make(caprpc_pair):
    def make(_peer):
        return Book()

    assert caprpc_pair({"ledger": make}, [Ledger]).client.root("ledger", Ledger).currency == "EUR"


def test_factory_whose_result_is_annotated_says_it_by_itself(caprpc_pair):
    def make(_peer) -> Book:
        return Book()

    assert caprpc_pair({"ledger": make}).client.root("ledger", Ledger).currency == "EUR"


def test_factory_that_says_nothing_is_told_what_to_write():
    with pytest.raises(TypeError, match=r"annotate its result \(def ledger\(peer\) -> Implementation\)"):
        everything({"ledger": lambda _peer: Book()})


class Clocks(Interface):
    @method(effect="read")
    async def now(self) -> int: ...

    @method(effect="read")
    async def later(self) -> int: ...


class ClocksOfOurs(Clocks):
    async def now(self):
        return await self._seven()

    async def later(self):
        await asyncio.get_running_loop().create_future()

    async def _seven(self):
        return 7


class ClocksThatYield(ClocksOfOurs):
    async def later(self):
        await asyncio.sleep(0)


def test_async_method_that_waits_for_nothing_runs_in_a_pair(caprpc_pair):
    clocks = caprpc_pair({"clocks": ClocksOfOurs()}).client.root("clocks", Clocks)
    assert clocks.now() == 7
    assert caprpc.batch([(clocks.now, ()), (clocks.now, ())]) == [7, 7]


@pytest.mark.parametrize(
    ("ours", "says"),
    [(ClocksOfOurs, "no running event loop"), (ClocksThatYield, "has no loop: use aio_connected")],
    ids=["future", "yields"],
)
def test_async_method_that_waits_says_that_a_pair_has_no_loop(caprpc_pair, caplog, ours, says):
    clocks = caprpc_pair({"clocks": ours()}).client.root("clocks", Clocks)
    with pytest.raises(RemoteError):
        clocks.later()
    assert (
        "a connection in memory has no loop: use aio_connected" in caplog.text or "no running event loop" in caplog.text
    )


def test_root_without_an_interface_is_named():
    with pytest.raises(TypeError, match="root 'ledger': the class int implements no interface"):
        everything({"ledger": 5})


def test_policy_of_the_test_decides_when_there_is_one(caprpc_pair):
    offer = (
        '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/client"]\n[roots]\nledger = "Ledger"\n'
        '[offer.Ledger]\ninterface = "Ledger"\nlength = true\n'
    )
    ledger = caprpc_pair({"ledger": Book()}, offer=offer).client.root("ledger", Ledger)
    assert len(ledger) == 3
    with pytest.raises(Denied):
        ledger.rows()


def test_clock_of_a_pair_is_the_clock_of_the_test(caprpc_pair, caprpc_clock):
    pair = caprpc_pair({"ledger": Book()})
    before = caprpc_clock()
    pair.advance(5.0)
    assert caprpc_clock() == pair.now == before + 5.0


def test_silence_is_told_by_the_clock_alone(caprpc_pair):
    pair = caprpc_pair({"ledger": Book()})
    ledger = pair.client.root("ledger", Ledger)
    pair.server.ended = True  # it says nothing any more
    for _ in range(3):
        pair.advance(61.0)
    with pytest.raises(ReferenceDead):
        len(ledger)


def test_time_does_not_go_back():
    clock = FakeClock()
    assert clock.advance(2.5) == clock() == 1_002.5
    with pytest.raises(ValueError, match="time does not go back"):
        clock.advance(-1)


def test_deployment_has_keys_of_its_own(caprpc_deployment, caprpc_pki):
    assert isinstance(caprpc_deployment, Deployment)
    assert caprpc_pki.ca("other.example").fingerprint != caprpc_deployment.ca.fingerprint


def test_nothing_of_caprpc_needs_pytest():
    program = """
import sys
sys.modules["pytest"] = None
import caprpc, caprpc.aio, caprpc.testing, caprpc.cli
"""
    subprocess.run([sys.executable, "-c", program], check=True)
