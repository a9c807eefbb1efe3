"""Revocation from both ends: what a peer says it has revoked, and what it presents after it has lost it."""

import time

import pytest
from hostile_peer import own

from caprpc.ids import OP_ATTENUATE, OP_REVOKE
from caprpc.session.imports import Imports
from caprpc.wire import messages as m


def derived(peer, vault, for_s=None):
    slip = peer.value(vault, "slip").export
    return peer.value(slip, "", [None, None, None, for_s, None, None], operation=OP_ATTENUATE).export


def test_a_reference_that_has_expired_is_no_argument_either(world, driver):
    """It stands for the object as long as it is good for calls, and not until somebody sweeps."""
    peer = world.open(world.serve(driver))
    vault = peer.root()
    short = derived(peer, vault, for_s=0.2)
    assert peer.value(vault, "take", [own(short)]) == "taken"
    time.sleep(0.25)
    assert peer.ask(vault, "take", [own(short)]).code == "invalid-arguments"
    assert world.service.ran.count("take") == 1


def test_a_reference_that_was_revoked_is_no_argument_either(world, driver):
    peer = world.open(world.serve(driver))
    vault = peer.root()
    ended = derived(peer, vault)
    assert peer.value(vault, "take", [own(ended)]) == "taken"
    revoke = peer.call(ended, "", [False], operation=OP_REVOKE)
    take = peer.call(vault, "take", [own(ended)])
    peer.send(revoke, take)
    assert isinstance(peer.answer(revoke.question), m.Return)
    peer.answer(take.question)
    assert peer.ask(vault, "take", [own(ended)]).code == "invalid-arguments"


def test_time_for_a_list_of_revoked_numbers_is_linear():
    """One message may name 65,536 of them; nobody else is served while it is looked at."""
    imports = Imports(4_096, "spiffe://test.example/mallory")
    started = time.process_time()
    for first in range(1, 4 * 65_536, 65_536):
        imports.revoke(range(first, first + 65_536))
    assert time.process_time() - started < 0.5


def test_time_for_one_more_revoked_number_does_not_grow_with_those_before():
    """A peer revokes as often as it likes, over a connection that stays; what it said long ago is forgotten."""
    imports = Imports(65_536, "spiffe://test.example/mallory")
    imports.revoke(range(1, 65_537))
    started = time.process_time()
    for number in range(65_537, 66_037):
        imports.revoke([number])
    assert time.process_time() - started < 0.25
    assert len(imports._revoked) <= 2 * 65_536


def test_a_long_list_of_revoked_numbers_keeps_nobody_waiting(world, driver):
    running = world.serve(driver)
    peer, other = world.open(running), world.open(running, "alice")
    peer.root()
    vault = other.root()
    assert other.value(vault, "add", [1, 2]) == 3
    peer.send(m.Revoked(list(range(1, 65_536))))
    started = time.monotonic()
    assert other.value(vault, "add", [1, 2]) == 3
    assert time.monotonic() - started < 0.5


@pytest.mark.parametrize("numbers", [[7], list(range(1, 100))])
def test_saying_again_that_something_was_revoked_spends_the_budget(world, driver, numbers):
    peer = world.open(world.serve(driver, connection="glitch_burst = 20\nglitch_per_s = 0.1"))
    vault = peer.root()
    peer.send(m.Revoked(numbers), *(m.Revoked(numbers) for _ in range(15)))
    assert peer.value(vault, "add", [1, 2]) == 3
    peer.try_to_send(*(m.Revoked(numbers) for _ in range(15)))
    assert [message.code for message in peer.rest()] == ["protocol-error"]


def test_revoking_many_one_by_one_costs_nothing(world, driver):
    peer = world.open(world.serve(driver, connection="glitch_burst = 20\nglitch_per_s = 0.1"))
    vault = peer.root()
    peer.send(*(m.Revoked([number]) for number in range(1, 500)))
    assert peer.value(vault, "add", [1, 2]) == 3
