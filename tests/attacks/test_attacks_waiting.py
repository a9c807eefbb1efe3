"""Methods that wait for a peer only sometimes: nobody can teach a server that they are fast, to the harm of others."""

import pytest
from hostile_peer import reference
from vault_service import CLIENT, Safe, Vault

import caprpc
from caprpc.ids import OP_INVOKE
from caprpc.wire import messages as m
from caprpc.wire.codec import pack

LENT = 'param = "function"\nas = "InvokeOnly"\nlifetime = '
CONNECTION = CLIENT.replace(LENT + '"call"', LENT + '"connection"')


class Listeners(Safe):
    """Keeps one function for each of its callers."""

    def __init__(self):
        super().__init__()
        self.functions = {}

    def keep(self, function):
        self.functions[caprpc.current().principal] = function

    def call_kept(self):
        return self.functions[caprpc.current().principal](1)


class Quiet(Listeners):
    def call_kept(self):
        function = self.functions.get(caprpc.current().principal)
        return 0 if function is None else function(1)


def refused(peer, vault):
    return isinstance(peer.ask(vault, "call_kept"), m.Raise)


def test_failing_fast_does_not_bring_a_method_to_where_it_cannot_wait(world, driver):
    running = world.serve(driver, roots={"vault": Listeners()})
    side = world.side("alice", policies={"server": CONNECTION})
    mallory = world.open(running)
    vault = mallory.root()
    assert all(refused(mallory, vault) for _ in range(20))
    with caprpc.connect(running.address, **side.directories) as alice:
        root = alice.root("vault", Vault)
        root.keep(lambda number: number + 41)
        assert root.call_kept() == 42
        assert all(refused(mallory, vault) for _ in range(20))
        assert root.call_kept() == 42


def test_a_method_that_has_waited_once_stays_where_it_can(world, driver):
    """It has proved fast before for a peer that gave it nothing to wait for: the first that does pays for it."""
    running = world.serve(driver, roots={"vault": Quiet()})
    side = world.side("alice", policies={"server": CONNECTION})
    mallory = world.open(running)
    vault = mallory.root()
    assert [mallory.value(vault, "call_kept") for _ in range(20)] == [0] * 20
    with caprpc.connect(running.address, **side.directories) as alice:
        root = alice.root("vault", Vault)
        root.keep(lambda number: number + 41)
        if driver == "aio":
            with pytest.raises(caprpc.RemoteError):
                root.call_kept()
        for _ in range(3):
            assert root.call_kept() == 42
            assert [mallory.value(vault, "call_kept") for _ in range(20)] == [0] * 20


def test_what_stands_beside_it_in_a_batch_is_not_sent_away_with_it(world):
    running = world.serve("aio", roots={"vault": Quiet()})
    mallory = world.open(running)
    vault = mallory.root()
    mallory.send(m.Facet(1, "Callable", [(OP_INVOKE, "")], 0))
    for _ in range(20):
        mallory.value(vault, "noop")
        mallory.value(vault, "call_kept")
    assert mallory.value(vault, "keep", [reference(1, 1)]) is None
    runs = [m.Run(vault, 1, name, 1, pack([[[], {}]])) for name in ("noop", "call_kept")]
    batch = m.Batch(mallory.next_question(), None, runs)
    mallory.send(batch)
    assert len(mallory.answer(batch.question).failures) == 1
    runner = running.server.runner
    assert [member.name for member, left in runner._proofs_left.items() if left == float("inf")] == []
