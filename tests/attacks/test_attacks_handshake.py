"""The door: peers without a certificate, with a wrong one, and with something else than TLS. CAP-HS, CAP-SI-06."""

import ssl
from contextlib import suppress

import pytest
from hostile_peer import NONCE, HostileServer, connect_socket, welcome
from vault_service import CLIENT, INTERFACES

import caprpc
from caprpc.audit import Selection, select
from caprpc.ids import OP_ROOT
from caprpc.pki.certificates import key_pem
from caprpc.testing.pki import ThrowawayPki
from caprpc.tls import Identity, TlsRefused
from caprpc.wire import messages as m
from caprpc.wire.codec import encode_message, pack

CALLS = b"".join(
    encode_message(message)
    for message in (
        m.Hello([1], NONCE, m.PeerLimits(1 << 20, 64, 64, 32), []),
        m.Call(1, 0, OP_ROOT, "vault", None, pack([[], {}])),
        m.Call(2, 1, 1, "noop", None, pack([[], {}])),
    )
)


class Stranger:
    """A TLS client made of plain ``ssl`` objects, with or without a certificate; sends calls with its own flight."""

    def __init__(self, address, context):
        self.sock = connect_socket(address)
        self.sock.settimeout(3)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)
        self.heard = b""
        """Plaintext."""
        self.alert = ""

    def bait(self, plain):
        """Shake hands, and send plaintext in the same packet as our last handshake message; read until the end."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                if not self._exchange():
                    self.sock.close()
                    return self
                continue
            except ssl.SSLError as exc:
                self.alert = exc.reason
                self.sock.close()
                return self
            break
        self.tls.write(plain)
        while self._exchange():
            try:
                self.heard += self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as exc:
                self.alert = exc.reason
                break
        self.sock.close()
        return self

    def _exchange(self):
        data = self.outgoing.read()
        try:
            if data:
                self.sock.sendall(data)
            received = self.sock.recv(1 << 16)
        except OSError:
            received = b""
        self.incoming.write(received)
        return bool(received)


def context_of(tmp_path, leaf=None, alpn=("caprpc/1",)):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if leaf is not None:
        path = tmp_path / "stranger.pem"
        path.write_bytes(leaf.chain_pem + key_pem(leaf.key))
        context.load_cert_chain(path)
    return context


def self_signed(world):
    return (
        ThrowawayPki()
        .ca("self", path_length=0)
        .leaf(f"spiffe://{world.deployment.trust_domain}/mallory", role="client")
    )


def assert_turned_away(world, running, stranger):
    """Nothing ran, nothing was said but GOAWAY or an alert, and there is exactly one record of it."""
    assert len(stranger.heard) < 100
    assert b"test.example" not in stranger.heard
    assert world.service.ran == []
    rejects = running.records(kind="reject")
    assert len(rejects) == 1
    assert running.records(kind="open", peer="mallory") == []


@pytest.mark.parametrize("case", ["none", "self-signed", "other-ca", "server-only", "no-policy"])
def test_a_stranger_who_sends_calls_with_its_own_flight_is_turned_away(world, driver, case, tmp_path):
    running = world.serve(driver, who=("alice",) if case == "no-policy" else ("mallory",))
    ca = world.deployment.ca
    name = f"spiffe://{world.deployment.trust_domain}/mallory"
    leaf = {
        "none": lambda: None,
        "self-signed": lambda: self_signed(world),
        "other-ca": lambda: ThrowawayPki().ca(world.deployment.trust_domain).leaf(name, role="client"),
        "server-only": lambda: ca.leaf(name, role="server"),
        "no-policy": lambda: ca.leaf(name, role="client"),
    }[case]()
    stranger = Stranger(running.address, context_of(tmp_path, leaf)).bait(CALLS)
    assert stranger.alert or stranger.heard
    assert_turned_away(world, running, stranger)


@pytest.mark.parametrize(
    "alpn", [(), ("http/1.1",), ("h2", "http/1.1"), ("caprpc/2",), tuple(f"p{n}" for n in range(1000))]
)
def test_other_application_protocols_are_turned_away(world, driver, alpn, tmp_path):
    running = world.serve(driver)
    leaf = world.deployment.ca.leaf(f"spiffe://{world.deployment.trust_domain}/mallory", role="client")
    stranger = Stranger(running.address, context_of(tmp_path, leaf, alpn)).bait(CALLS)
    assert stranger.heard == b""
    assert_turned_away(world, running, stranger)


FOREIGN = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.0\r\n",
    "plain calls": CALLS,
    "pickle": b"\x80\x04\x95" + b"x" * 100,
    "random": bytes(range(1, 256)) * 8,
    "zeros": bytes(4096),
    "old tls": b"\x16\x03\x00\x00\x05\x01\x00\x00\x01\x00",
    "half a hello": b"\x16\x03\x01\x02\x00\x01",
}


@pytest.mark.parametrize("last", ["close", "stay"])
def test_other_protocols_on_the_port_are_closed_without_a_word(world, driver, last):
    running = world.serve(driver)
    for name, data in FOREIGN.items():
        sock = connect_socket(running.address)
        sock.settimeout(5)
        sock.sendall(data)
        if last == "stay" and name != "half a hello":
            answer = b""
            while True:
                try:
                    chunk = sock.recv(4096)
                except ConnectionError:
                    break
                if not chunk:
                    break
                answer += chunk
            assert len(answer) <= 16, name
            assert not answer or answer[0] == 0x15, name
        sock.close()
    peer = world.open(running, "alice")
    assert peer.value(peer.root(), "noop") is None
    assert world.service.ran == ["noop"]
    assert len(running.records(kind="reject")) >= len(FOREIGN) - 1


def test_a_server_says_nothing_of_itself_before_it_knows_who_is_there(world, driver, tmp_path):
    running = world.serve(driver)
    sock = connect_socket(running.address)
    sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    sock.close()
    context = context_of(tmp_path)
    requested = []
    context._msg_callback = lambda _conn, _way, _version, _kind, _type, data: requested.append(bytes(data))
    stranger = Stranger(running.address, context).bait(b"")
    request = next((data for data in requested if data[:1] == b"\x0d"), b"")
    assert world.deployment.trust_domain.encode() not in request
    assert stranger.heard == b""


def test_a_stranger_who_stays_silent_costs_a_good_peer_nothing(world, driver):
    running = world.serve(driver)
    silent = [connect_socket(running.address) for _ in range(20)]
    peer = world.open(running)
    assert peer.value(peer.root(), "noop") is None
    for sock in silent:
        sock.close()


def connect(world, address, **more):
    side = world.side("alice")
    return caprpc.connect(address, **side.directories, timeout_s=5, **more)


def impostor(world, case):
    ca, domain = world.deployment.ca, world.deployment.trust_domain
    server = f"spiffe://{domain}/server"
    return {
        "wrong-host": lambda: ca.leaf(server, role="server", addresses=("192.0.2.1",)),
        "other-principal": lambda: ca.leaf(f"spiffe://{domain}/mallory", role="server", dns_names=("localhost",)),
        "other-ca": lambda: ThrowawayPki().ca(domain).leaf(server, role="server", dns_names=("localhost",)),
    }[case]()


@pytest.mark.parametrize("case", ["wrong-host", "other-principal", "other-ca"])
def test_a_client_says_nothing_to_an_impostor(world, case, tmp_path):
    leaf = impostor(world, case)
    directory = world.deployment.pki.write_identity(tmp_path / "impostor", leaf, trust=[world.deployment.ca])
    heard = []

    def script(peer):
        peer.send(m.Welcome([1], NONCE, m.PeerLimits(1 << 20, 64, 64, 32), []))
        heard.extend(peer.rest())

    server = HostileServer(None, script, identity=Identity.load(directory))
    try:
        with pytest.raises(caprpc.ConnectRefused):
            connect(world, server.address.replace("localhost", "127.0.0.1"))
    finally:
        with suppress(TlsRefused):
            server.close()
    assert not any(isinstance(message, m.Hello | m.Call) for message in heard)


def test_a_client_that_expects_one_principal_takes_no_other(world):
    side = world.deployment.side("server-2", {"peers": CLIENT}, INTERFACES, spiffe=world.server_id)
    heard = []

    def script(peer):
        peer.try_to_send(m.Welcome([1], NONCE, m.PeerLimits(1 << 20, 64, 64, 32), []))
        heard.extend(peer.rest())

    with HostileServer(side, script) as server:
        with pytest.raises(caprpc.ConnectRefused):
            connect(world, server.address, peer=f"spiffe://{world.deployment.trust_domain}/ledger")
    assert not any(isinstance(message, m.Hello) for message in heard)


@pytest.mark.parametrize("change", ["version", "feature", "limits", "call first", "nothing"])
def test_a_client_takes_no_other_welcome(world, change):
    side = world.deployment.side("server-2", {"peers": CLIENT}, INTERFACES, spiffe=world.server_id)
    limits = m.PeerLimits(1 << 20, 64, 64, 32)
    first = {
        "version": m.Welcome([2, 3], NONCE, limits, []),
        "feature": m.Welcome([1], NONCE, limits, ["deadline", "deadline"]),
        "limits": m.Welcome([1], NONCE, m.PeerLimits(1, 0, 0, 0), []),
        "call first": m.Call(1, 0, OP_ROOT, "vault", None, pack([[], {}])),
        "nothing": m.GoAway("refused", "", "R-AAAAAAAAAAAA"),
    }[change]
    heard = []

    def script(peer):
        peer.send(first)
        heard.extend(peer.rest())

    with HostileServer(side, script) as server:
        with pytest.raises(caprpc.ConnectRefused):
            connect(world, server.address)
    assert not any(isinstance(message, m.Hello | m.Call) for message in heard)


def test_the_same_script_lets_a_good_client_in(world):
    side = world.deployment.side("server-2", {"peers": CLIENT}, INTERFACES, spiffe=world.server_id)

    def script(peer):
        welcome(peer)
        peer.rest()

    with HostileServer(side, script) as server, connect(world, server.address) as peer:
        assert peer.principal == world.server_id


def test_a_flood_of_strangers_is_counted_in_the_log_and_each_number_is_found(world, driver):
    running = world.serve(driver)
    for _ in range(300):
        stranger = connect_socket(running.address)
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with suppress(ConnectionError):
            stranger.recv(1)
        stranger.close()
    records = running.records(kind="reject")
    assert sum(record.get("count", 1) for record in records) == 300
    assert len(records) < 50
    number = next(record["references"] for record in records if "count" in record).split()[3]
    (found,) = select(running.side.audit, Selection(reference=number))
    assert found.record.fields["reason"] == "foreign"
