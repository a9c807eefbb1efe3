"""``Server.health()`` in both drivers: what an operator learns of policies, log, certificates and connections."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from vault_service import CLIENT, SERVER, Vault

import caprpc
from caprpc.audit import AuditLog
from caprpc.errors import AuditError, ConfigurationError

NAMES = '"spiffe://@DOMAIN@/mallory", "spiffe://@DOMAIN@/alice"'


@pytest.fixture
def running(world, driver):
    return world.serve(driver)


def policy_text(extra: str = "") -> str:
    return SERVER.replace("@WHO@", NAMES).replace("@ROOTS@", "") + extra


def test_all_is_well_with_what_is_in_force(running):
    before = datetime.now(UTC)
    health = running.server.health()
    assert (health.state, health.problems) == ("ok", ())
    assert health.addresses == (running.address,)
    assert (health.policy.version, health.policy.policies) == (1, 1)
    assert health.policy.digest.startswith("sha256:")
    assert health.policy.failed_reload is None
    assert timedelta(0) <= before - health.policy.since < timedelta(seconds=60)
    assert health.audit.faults == ()
    assert {one.what.split(" of ")[0] for one in health.expiries} == {
        "our certificate",
        "the CA certificate",
        "the revocation list",
    }
    assert all(one.at > before for one in health.expiries)


def test_connections_are_counted_with_and_without_a_known_peer(world, running):
    assert (running.server.health().connections, running.server.health().peers) == (0, 0)
    side = world.side("alice", policies={"server": CLIENT})
    with caprpc.connect(running.address, **side.directories) as peer:
        peer.root("vault", Vault).noop()
        assert (running.server.health().connections, running.server.health().peers) == (1, 1)
    wait_until(lambda: running.server.health().connections == 0)
    assert running.server.health().peers == 0


def test_a_bad_reload_is_said_with_its_problem_until_a_good_one(world, running):
    good = running.server.health().policy
    world.deployment.rewrite(running.side, {"peers": policy_text("[limits]\nin_fligth = 3\n")}, 2)
    with pytest.raises(ConfigurationError):
        running.reload()
    bad = running.server.health()
    assert bad.state == "attention"
    assert (bad.policy.version, bad.policy.digest, bad.policy.since) == (good.version, good.digest, good.since)
    assert "did you mean 'in_flight'?" in bad.policy.failed_reload.problem
    assert "stays in force" in bad.problems[0]
    assert bad.policy.failed_reload.at >= good.since
    world.deployment.rewrite(running.side, {"peers": policy_text("[limits]\nin_flight = 3\n")}, 2)
    running.reload()
    mended = running.server.health()
    assert (mended.state, mended.policy.version, mended.policy.failed_reload) == ("ok", 2, None)
    assert mended.policy.since > good.since
    events = [(one["event"], one.get("policy")) for one in running.records(kind="policy") if one["event"] != "identity"]
    assert events == [("loaded", good.digest), ("refused", None), ("reloaded", mended.policy.digest)]


def test_a_log_that_takes_no_records_is_failing(running, monkeypatch):
    log = running.server._admission.log
    relation = log.general

    def full(_descriptor, _data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(relation._segment, "write", full)
    with pytest.raises(AuditError):
        relation.record("open", event="listening", address="x")
    health = running.server.health()
    assert health.state == "failing"
    assert "the last write to the audit log failed" in health.audit.faults[0]
    assert health.problems == health.audit.faults
    monkeypatch.undo()
    relation.record("open", event="listening", address="x")
    assert running.server.health().state == "ok"


def test_a_log_that_cannot_be_signed_is_failing(running, monkeypatch):
    def broken(_self, _now):
        raise AuditError("cannot sign")

    monkeypatch.setattr(AuditLog, "tick", broken)
    wait_until(lambda: running.server.health().state == "failing")
    assert running.server.health().audit.faults == ("cannot sign",)
    monkeypatch.undo()
    wait_until(lambda: running.server.health().state == "ok")


def test_a_revocation_list_that_is_missing_is_failing(running, monkeypatch):
    table = type(running.server._admission.epoch.identity.revocation)
    monkeypatch.setattr(table, "of", lambda _self, _name: None)
    health = running.server.health()
    assert health.state == "failing"
    [missing] = [one.what for one in health.expiries if one.at is None]
    assert f"{missing} is missing: its peers are refused" in health.problems


def test_what_ends_soon_asks_for_attention_and_what_has_ended_is_failing(running):
    admission = running.server._admission
    ends = min(one.at for one in running.server.health().expiries).timestamp()
    admission.wall = lambda: ends - 3600
    soon = running.server.health()
    assert soon.state == "attention"
    assert any("expires on" in problem for problem in soon.problems)
    admission.wall = lambda: ends + 1
    late = running.server.health()
    assert late.state == "failing"
    assert any("expired on" in problem for problem in late.problems)


def test_it_is_plain_json(world, running):
    world.deployment.rewrite(running.side, {"peers": "nonsense"}, 2)
    with pytest.raises(ConfigurationError):
        running.reload()
    plain = json.loads(json.dumps(running.server.health().as_json()))
    assert plain["state"] == "attention"
    assert datetime.fromisoformat(plain["policy"]["failed_reload"]["at"]).tzinfo is not None
    assert plain["policy"]["failed_reload"]["problem"]


def wait_until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
