"""Calls and roots that are spelled wrong: what is said here, before anything is sent, and of what comes back."""

import pytest

import caprpc
import caprpc.aio
from caprpc import Interface, method
from caprpc.interface import ResultError
from caprpc.testing import aio_connected


class Ledger(Interface):
    @method(effect="read")
    def balance(self, account: str) -> int: ...


class Journal(Interface):
    @method(effect="read")
    def size(self) -> int: ...


class Both(Ledger, Journal):
    def balance(self, account):
        return 1

    def size(self):
        return 1


NO_PAIR = r"a batch holds pairs of a method and a tuple of its arguments"

OTHER = r"root ledger is not the declared Journal: expected Journal, got a reference to Ledger$"


@pytest.mark.parametrize("written", ["bare", "text", "lone"])
def test_a_batch_of_anything_but_pairs_says_how_it_is_written(caprpc_peer, written):
    ledger = caprpc_peer({"ledger": Both()}).root("ledger", Ledger)
    call = {"bare": ledger.balance, "text": (ledger.balance, "A"), "lone": (ledger.balance,)}[written]
    with pytest.raises(TypeError, match=NO_PAIR):
        caprpc.batch([call])
    assert caprpc.batch([(ledger.balance, ("A",)), (ledger.balance, ["A"])]) == [1, 1]


def test_a_root_of_another_interface_is_told_with_both(caprpc_peer):
    peer = caprpc_peer({"ledger": Both()}, [Journal])
    with pytest.raises(ResultError, match=OTHER):
        peer.root("ledger", Journal)


def test_a_call_on_a_closed_connection_says_so(caprpc_peer):
    peer = caprpc_peer({"ledger": Both()})
    peer.close()
    with pytest.raises(caprpc.ConnectionLost, match="the connection is closed"):
        peer.root("ledger", Ledger)


async def test_the_same_is_said_in_asyncio(caprpc_sides):
    roots = {"ledger": Both()}
    async with aio_connected(roots, *caprpc_sides(roots, [Journal])) as peer:
        ledger = await peer.root("ledger", Ledger)
        with pytest.raises(TypeError, match=NO_PAIR):
            await caprpc.aio.batch([ledger.balance])
        with pytest.raises(ResultError, match=OTHER):
            await peer.root("ledger", Journal)
    with pytest.raises(caprpc.ConnectionLost, match="the connection is closed"):
        await peer.root("ledger", Ledger)


@pytest.mark.parametrize("seconds", ["2", None], ids=["text", "nothing"])
@pytest.mark.parametrize("deadline", [caprpc.deadline, caprpc.aio.deadline], ids=["blocking", "aio"])
def test_a_deadline_that_is_no_number_says_what_it_takes(deadline, seconds):
    with pytest.raises(TypeError, match="a deadline takes seconds as an int or a float, got "):
        deadline(seconds)


def test_what_is_submitted_after_it_was_called_says_what_came(caprpc_peer):
    ledger = caprpc_peer({"ledger": Both()}).root("ledger", Ledger)
    with pytest.raises(TypeError, match=r"such as ref\.method without parentheses, got int$"):
        caprpc.submit(ledger.balance("A"))
