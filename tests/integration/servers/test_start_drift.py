"""Code that declares something else than what was reviewed: a server of either driver does not start, nor reload."""

import pytest
from vault_service import CLIENT, INTERFACES, QUICK, SERVER, Running, Vault

import caprpc
from caprpc.audit import Selection, select
from caprpc.errors import PolicyError

NAMES = '"spiffe://@DOMAIN@/alice"'
ADD = 'name = "add"\neffect = "read"\n'
ADD_MEMBER = f'\n[[interface.Vault.member]]\noperation = "call"\n{ADD}'
MORE = '\n[[interface.Vault.member]]\noperation = "call"\nname = "more"\neffect = "read"\nreturns = "None"\n'


class Reviewed:
    """The side of a server whose reviewed contracts can be made to say something else than the code."""

    def __init__(self, world):
        self.world = world
        self.policy = SERVER.replace("@WHO@", NAMES).replace("@ROOTS@", "")
        self.side = world.deployment.side("server", {"peers": self.policy}, INTERFACES)

    def declare(self, old, new):
        file = self.side.policies / "contracts.toml"
        text = file.read_text(encoding="utf-8")
        assert text.count(old) == 1
        file.write_text(text.replace(old, new), encoding="utf-8")

    def grant(self, old, new, version):
        assert self.policy.count(old) == 1
        self.world.deployment.rewrite(self.side, {"peers": self.policy.replace(old, new)}, version)

    def start(self, driver):
        return Running(driver, {"vault": self.world.service}, self.side, QUICK)


@pytest.fixture
def reviewed(world):
    return Reviewed(world)


def test_a_granted_member_that_was_changed_stops_the_start(reviewed, driver):
    reviewed.declare(ADD, ADD.replace("read", "write"))
    with pytest.raises(PolicyError) as caught:
        reviewed.start(driver)
    (problem,) = caught.value.problems
    assert problem.message == ("call 'add' of interface Vault has changed in the code: the effect was write, is read")
    assert (problem.code, problem.where.partition(":")[0]) == ("contract-drift", "peers.toml")
    assert "caprpc policy contracts MODULE --write" in problem.hint


def test_a_granted_member_that_is_gone_from_the_code_stops_the_start(reviewed, driver):
    reviewed.declare(ADD_MEMBER, MORE + ADD_MEMBER)
    reviewed.start(driver).stop()
    reviewed.grant('"add", ', '"add", "more", ', 2)
    with pytest.raises(PolicyError, match="call 'more' of interface Vault is gone from the code"):
        reviewed.start(driver)


def test_drift_that_a_reload_meets_leaves_what_is_in_force(reviewed, driver, world):
    running = reviewed.start(driver)
    try:
        client = world.deployment.side("alice", {"server": CLIENT}, INTERFACES)
        reviewed.declare(ADD, ADD.replace("read", "write"))
        reviewed.grant('"add", ', '"add", ', 2)
        with pytest.raises(PolicyError, match="'add' of interface Vault has changed"):
            running.reload()
        assert "has changed in the code" in running.server.health().policy.failed_reload.problem
        with caprpc.connect(running.address, **client.directories) as peer:
            assert peer.root("vault", Vault).add(1, 2) == 3
    finally:
        running.stop()
    events = [entry.record.text("event") for entry in select(reviewed.side.audit, Selection(kind="policy"))]
    assert events[:2] == ["loaded", "refused"]
