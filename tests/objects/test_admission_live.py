"""Admission while it runs: reloads act on live connections, refusals say what they may, expiries are foretold."""

import logging
from datetime import UTC, datetime, timedelta

import pytest

from caprpc import CallRefused, Interface, method
from caprpc.objects.admission import NOTE_PROBLEMS_S
from caprpc.pki.certificates import Validity
from caprpc.session import State
from caprpc.testing.deployment import Deployment
from caprpc.testing.pair import Pair
from caprpc.tls import Identity


class Till(Interface):
    @method(effect="read")
    def total(self) -> int: ...


class TillImpl(Till):
    def total(self):
        return 7


PEER = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{0}"]\n'
SERVER = PEER.format("client") + '[roots]\ntill = "Till"\n[offer.Till]\ninterface = "Till"\ncall = ["total"]\n'
OTHER = PEER.format("other") + '[accept.Till]\ncall = ["total"]\n'
CLIENT = PEER.format("server") + '[accept.Till]\ncall = ["total"]\n'


class Site:
    def __init__(self, path):
        self.deployment = Deployment(path)
        self.server = self.deployment.side("server", {"client": SERVER}, [Till])
        self.client = self.deployment.side("client", {"server": CLIENT}, [Till])
        self.path = path
        self.version = 1
        self.pair = None

    def open(self):
        self.pair = Pair(self.server, self.client, {"till": TillImpl()}, audit=self.path / "audit")
        return self.pair

    def rewrite(self, side, name, text):
        self.deployment.write_policy(side, name, text)
        self.version += 1
        self.deployment.write_index(side, [f'"{name}.toml"'], self.version)

    def general(self, name):
        return [
            line
            for path in sorted((self.path / "audit" / name).rglob("general*.jsonl"))
            for line in path.read_text().splitlines()
        ]


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    if made.pair is not None:
        made.pair.close()


def test_call_that_was_made_before_is_refused_once_our_own_policy_forbids_it(site):
    pair = site.open()
    till = pair.client.root("till", Till)
    assert till.total() == 7
    site.rewrite(site.client, "server", PEER.format("server"))
    pair.client.admission.reload()
    pair.run()
    with pytest.raises(CallRefused, match=r"\[accept.Till\]"):
        till.total()
    with pytest.raises(CallRefused):
        pair.client.batch([(till._caprpc_import, till._caprpc_shape.members[1, "total"], (), {})])
    assert not pair.client.session.wants_to_send


def test_reload_while_a_peer_is_being_admitted_narrows_it(site, monkeypatch):
    pair = site.open()
    admission = pair.server.admission
    relation = admission.log.relation

    def reload_first(principal):
        monkeypatch.setattr(admission.log, "relation", relation)
        site.rewrite(site.server, "client", SERVER + "[limits]\nin_flight = 3\n")
        admission.reload()
        return relation(principal)

    monkeypatch.setattr(admission.log, "relation", reload_first)
    pair.reconnect()
    guard = pair.server.link.admitted.guard
    assert guard.policy is admission.epoch.policies.policies[0]
    assert guard.limits.in_flight == 3


def test_peer_whose_policy_goes_while_it_is_admitted_is_refused(site, monkeypatch):
    pair = site.open()
    admission = pair.server.admission
    relation = admission.log.relation

    def reload_first(principal):
        monkeypatch.setattr(admission.log, "relation", relation)
        site.rewrite(site.server, "client", SERVER.replace("/client", "/somebody-else"))
        admission.reload()
        return relation(principal)

    monkeypatch.setattr(admission.log, "relation", reload_first)
    quotas = pair.server.link.admitted.quotas
    assert quotas._connections == 1
    pair.reconnect()
    assert pair.server.link.ended.code == "refused"
    assert quotas._connections == 0


def test_going_back_to_the_old_text_is_seen_as_a_reload(site):
    pair = site.open()
    admission = pair.server.admission
    site.rewrite(site.server, "client", SERVER + "[limits]\nin_flight = 3\n")
    admission.reload()
    site.rewrite(site.server, "client", SERVER)
    admission.reload()
    guard = pair.server.link.admitted.guard
    assert guard.policy is admission.epoch.policies.policies[0]
    assert guard.limits.in_flight == 3


def test_connection_id_is_of_the_certificate_that_the_channel_was_made_with(site, monkeypatch):
    pair = site.open()
    before = pair.client.admission.epoch.identity.leaf_key
    made = Pair.run
    monkeypatch.setattr(Pair, "run", lambda _pair: None)
    pair.reconnect()
    site.deployment.reissue("client", site.client)
    pair.client.admission.reload()
    assert pair.client.admission.epoch.identity.leaf_key != before
    monkeypatch.setattr(Pair, "run", made)
    pair.run()
    assert pair.client.session.opening.connection_id == pair.server.session.opening.connection_id != ""


def plain_of(link, ciphertext):
    """Return what an end decrypts, without its taking it."""
    link.channel.receive_data(ciphertext)
    return link.channel.read()


def shake_hands(pair, monkeypatch):
    """Make a fresh connection and move bytes until the client has been heard twice."""
    monkeypatch.setattr(Pair, "run", lambda _pair: None)
    pair.reconnect()
    client, server = pair.client.link, pair.server.link
    for data in list(client.data_to_send()):
        server.channel.receive_data(data)
    hello = server.channel.data_to_send()
    return client, server, hello


def test_client_that_refuses_a_server_sends_it_no_byte(site, monkeypatch):
    pair = site.open()
    site.rewrite(site.client, "server", PEER.format("another-server") + '[accept.Till]\ncall = ["total"]\n')
    pair.client.admission.reload()
    client, server, hello = shake_hands(pair, monkeypatch)
    client.receive(hello, pair.now)
    assert client.ended.code == "refused"
    answer = b"".join(client.data_to_send())
    assert plain_of(server, answer) == b""
    assert server.channel.state.value == "ended"


def test_server_tells_a_client_that_it_refuses_under_which_number(site):
    pair = site.open()
    site.rewrite(site.server, "client", SERVER.replace("/client", "/somebody-else"))
    pair.server.admission.reload()
    pair.reconnect()
    assert (pair.client.ended.code, pair.client.ended.by_peer) == ("refused", True)
    assert pair.client.ended.reference == pair.server.ended.reference
    assert any(pair.client.ended.reference in line for line in site.general("server"))


def test_what_expires_soon_is_recorded_at_start_at_reload_and_hourly(site, caplog):
    site.deployment.reissue("server", site.server, Validity.of_days(2))
    leaf = Identity.load(site.server.identity).leaf
    caplog.set_level(logging.WARNING, "caprpc")
    pair = site.open()
    admission = pair.server.admission
    said = [line for line in site.general("server") if '"event":"identity"' in line]
    assert any("our certificate expires" in line for line in said)
    assert "our certificate expires" in caplog.text
    assert leaf.not_after - admission.wall() < 7 * 86_400
    site.rewrite(site.server, "client", SERVER)
    admission.reload()
    again = [line for line in site.general("server") if '"event":"identity"' in line]
    assert len(again) == 2 * len(said)
    due = admission.vitals.note_at
    admission.tick(due - 1.0)
    assert len([line for line in site.general("server") if '"event":"identity"' in line]) == len(again)
    admission.tick(due)
    admission.tick(due + NOTE_PROBLEMS_S / 2)
    assert len([line for line in site.general("server") if '"event":"identity"' in line]) == 3 * len(said)


def test_connection_whose_keys_are_worn_drains_and_closes(site, monkeypatch):
    pair = site.open()
    till = pair.client.root("till", Till)
    pair.server.link.channel.received_bytes = 2**40
    pair.server.holds = True
    pending = pair.client.start(till._caprpc_import, till._caprpc_shape.members[1, "total"], (), {})
    pair.run()
    pair.advance(1.0)
    assert pair.server.session.state is State.DRAINING
    pair.server.holds = False
    assert pending.result() == 7
    pair.advance(1.0)
    assert pair.server.ended.code == pair.client.ended.code == "closed"


def test_newer_policy_that_ends_earlier_ends_a_live_connection(site):
    pair = site.open()
    soon = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    site.rewrite(site.server, "client", f"not_after = {soon}\n" + SERVER)
    pair.server.admission.reload()
    admitted = pair.server.link.admitted
    assert pair.server.admission.check_still_valid(admitted) is None
    later = pair.server.admission.wall() + 3700
    pair.server.admission.wall = lambda: later
    assert pair.server.admission.check_still_valid(admitted).code == "expired"


def test_relations_of_all_principals_are_open_before_they_come(site):
    pair = site.open()
    assert "spiffe://test.example/client" in pair.server.admission.log._opened
    assert pair.server.admission._quotas.keys() == {"spiffe://test.example/client"}
