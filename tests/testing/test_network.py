"""A network in memory: many parties and connections in one thread, each party with one identity."""

from collections.abc import Iterator
from itertools import pairwise

import pytest

from caprpc import ConnectionLost, Interface, ReferenceDead, RemoteError, method
from caprpc.errors import ConfigurationError
from caprpc.testing import Pair, Stalled, everything


class Bell(Interface):
    @method(effect="write")
    def ring(self) -> int: ...


class Ring(Bell):
    """Rings itself, or the bell behind it."""

    def __init__(self, behind=None):
        self.behind = behind
        self.rung = 0

    def ring(self):
        self.rung += 1
        return self.rung if self.behind is None else self.behind.ring()


class Street:
    """Houses that stand in a row, each of which lets the next one ring."""

    def __init__(self, deployment, network, names):
        self.network, self.connections = network, []
        self.bells = {name: Ring() for name in names}
        self.parties = {}
        for at, name in enumerate(names):
            policies = {}
            roots = {"bell": self.bells[name]}
            if at:
                policies["before"] = everything(roots, server=names[at - 1], client=name)[1]
            if at + 1 < len(names):
                policies["after"] = everything(roots, server=name, client=names[at + 1])[0]
            side = deployment.side(name, policies, [Bell])
            self.parties[name] = network.party(side, roots if at + 1 < len(names) else None)
        for before, after in pairwise(names):
            self.connections.append(network.connect(self.parties[after], self.parties[before]))
            self.bells[after].behind = self.connections[-1].client.root("bell", Bell)


@pytest.fixture
def street(caprpc_deployment, caprpc_network):
    return Street(caprpc_deployment, caprpc_network, ["anna", "boris", "clara", "doris"])


def test_call_goes_as_far_as_methods_carry_it(street):
    last = street.bells["doris"].behind
    assert [last.ring() for _ in range(3)] == [1, 2, 3]
    assert {name: bell.rung for name, bell in street.bells.items()} == {"anna": 3, "boris": 3, "clara": 3, "doris": 0}


def test_party_has_one_log_whatever_it_accepts_and_dials(street):
    street.bells["doris"].behind.ring()
    street.network.close()
    text = "".join(path.read_text() for path in street.parties["boris"].side.audit.rglob("*.jsonl"))
    assert "spiffe://test.example/anna" in text
    assert "spiffe://test.example/clara" in text


def test_roots_are_for_those_who_dial(street):
    upstream = street.connections[1]
    with pytest.raises(RemoteError):
        upstream.server.root("bell", Bell)


def test_lost_connection_ends_what_waits_and_leaves_others_alone(street):
    first, second, third = street.connections
    second.lose()
    with pytest.raises(RemoteError):
        street.bells["doris"].behind.ring()
    with pytest.raises((ConnectionLost, ReferenceDead)):
        street.bells["clara"].behind.ring()
    assert street.bells["boris"].behind.ring() == 1
    second.reconnect()
    street.bells["clara"].behind = second.client.root("bell", Bell)
    assert street.bells["doris"].behind.ring() == 2
    assert first.client.ended is third.client.ended is None


def test_revoking_a_principal_ends_its_connections_and_no_others(street):
    boris = street.parties["boris"]
    assert boris.revoke("spiffe://test.example/nobody") == 0
    assert boris.revoke("spiffe://test.example/clara") == 1
    assert boris.revoke("spiffe://test.example/clara") == 0
    street.network.run()
    assert street.connections[1].client.ended.code == "revoked"
    assert street.bells["boris"].behind.ring() == 1


def test_call_that_stalls_is_given_up(street):
    street.connections[0].server.holds = True
    with pytest.raises(Stalled):
        street.bells["boris"].behind.ring()
    street.connections[0].server.holds = False
    street.network.run()
    assert street.bells["anna"].rung == 0
    assert not street.connections[0].client.session.asked.open


def test_network_is_empty_once_nobody_holds_anything(street):
    assert not street.network.empty
    for bell in street.bells.values():
        bell.behind = None
    street.network.run()
    assert street.network.empty


def test_closed_connection_is_forgotten(street):
    street.connections[0].close()
    street.connections[0].close()
    assert street.network.connections == street.connections[1:]
    assert street.connections[0].client.ended.code == "closed"


def test_reload_narrows_those_that_were_dialed_and_those_that_have_dialed(street, caprpc_deployment):
    boris = street.parties["boris"]
    _, accept = everything({"bell": Ring()}, server="anna", client="boris")
    caprpc_deployment.rewrite(boris.side, {"before": accept.replace('"ring"', "")}, 2)
    with pytest.raises(ConfigurationError):
        boris.reload()
    assert street.bells["doris"].behind.ring() == 1
    caprpc_deployment.rewrite(boris.side, {"before": accept}, 3)
    boris.reload()
    with pytest.raises(RemoteError):
        street.bells["doris"].behind.ring()
    assert street.bells["boris"].behind.ring() == 2


def test_generator_that_is_let_go_of_is_closed_in_a_pair(caprpc_sides):
    closed = []

    class Tap(Interface):
        @method(effect="read")
        def drops(self) -> Iterator[int]: ...

    class Dripping(Tap):
        def drops(self):
            def drip():
                try:
                    yield from range(1_000_000)
                finally:
                    closed.append(True)

            return drip()

    roots = {"tap": Dripping()}
    with Pair(*caprpc_sides(roots), roots) as pair:
        drops = pair.client.root("tap", Tap).drops()
        assert next(drops) == 0
        assert not closed
        pair.run()
        del drops
        pair.run()
        assert closed
