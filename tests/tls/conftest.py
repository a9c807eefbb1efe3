"""A small world of fresh keys: acme runs the server, org-b the client, and each trusts both CAs."""

import itertools
import ssl
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from caprpc.pki.certificates import key_pem
from caprpc.testing.pki import ThrowawayLeaf, ThrowawayPki
from caprpc.tls import Identity, TlsChannel, client_context, server_context, verify_peer

SERVER = "spiffe://acme.example/ledger"
CLIENT = "spiffe://org-b.example/treasury/feed"
HOST = "ledger.acme.example"


class World:
    """Two organizations with a CA each; makes identities, channels and proofs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pki = ThrowawayPki()
        self.acme = self.pki.ca("Acme CA")
        self.org_b = self.pki.ca("Org B CA")
        self.anchors = {
            self.acme.fingerprint: frozenset({"acme.example"}),
            self.org_b.fingerprint: frozenset({"org-b.example"}),
        }
        self._numbers = itertools.count()
        self.server = self.identity(self.acme.leaf(SERVER, role="server", dns_names=[HOST]))
        self.client = self.identity(self.org_b.leaf(CLIENT, role="client"))
        self.server_context = server_context(self.server)
        self.client_context = client_context(self.client)

    def identity_directory(self, leaf: ThrowawayLeaf, *, trust=None, crls=None) -> Path:
        directory = self.directory / f"identity-{next(self._numbers)}"
        return self.pki.write_identity(directory, leaf, trust=trust or [self.acme, self.org_b], crls=crls)

    def identity(self, leaf: ThrowawayLeaf, *, trust=None, crls=None) -> Identity:
        return Identity.load(self.identity_directory(leaf, trust=trust, crls=crls))

    def server_channel(self, context: ssl.SSLContext | None = None) -> TlsChannel:
        return TlsChannel(context or self.server_context, server_side=True)

    def client_channel(self, context: ssl.SSLContext | None = None) -> TlsChannel:
        return TlsChannel(context or self.client_context, server_side=False, server_hostname=HOST)

    def pair(self) -> tuple[TlsChannel, TlsChannel]:
        """Return a server's and a client's channel that have shaken hands."""
        server, client = self.server_channel(), self.client_channel()
        pump(server, client)
        assert server.handshake_done
        assert client.handshake_done
        return server, client

    def hostile_context(self, leaf: ThrowawayLeaf | None, *, alpn=("caprpc/1",)) -> ssl.SSLContext:
        """Return a client context with no scruples: any leaf, no checks of ours, weak keys too."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if leaf is not None:
            load_leaf(context, leaf, self.directory / f"hostile-{next(self._numbers)}.pem")
        return context

    def hostile_server_context(self, leaf: ThrowawayLeaf, *, alpn=("caprpc/1",)) -> ssl.SSLContext:
        """Return a server context that asks for no certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        load_leaf(context, leaf, self.directory / f"hostile-{next(self._numbers)}.pem")
        return context

    def verify(self, channel: TlsChannel, **changes):
        """Prove the peer of a channel as the driver would."""
        values = {
            "identity": self.server if channel.server_side else self.client,
            "anchors": self.anchors,
            "hostname": None if channel.server_side else HOST,
            "now": time.time(),
            "address": "memory",
        }
        return verify_peer(channel, **(values | changes))


class RawPeer:
    """A peer made of plain ``ssl`` objects, for bytes that our channel would not send or not accept."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool = False) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server_side)
        self.done = False

    def step(self, data: bytes = b"") -> bytes:
        """Take bytes of the other side, go on, return what is to be sent."""
        self.incoming.write(data)
        if not self.done:
            try:
                self.tls.do_handshake()
                self.done = True
            except ssl.SSLWantReadError:
                pass
        return self.outgoing.read()

    def shake_hands(self, channel: TlsChannel) -> None:
        """Shake hands with a channel of ours; its refusal is raised."""
        data = self.step()
        for _ in range(6):
            if data:
                channel.receive_data(data)
            data = self.step(channel.data_to_send())


class RecordForge:
    """Makes any TLS 1.3 record of a client whose traffic secret it knows (TLS_AES_256_GCM_SHA384; RFC 8446, 5.2)."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._set_keys()

    def _set_keys(self) -> None:
        self._aead = AESGCM(_expand_label(self._secret, b"key", 32))
        self._iv = int.from_bytes(_expand_label(self._secret, b"iv", 12))
        self._sequence = itertools.count()

    def record(self, content: bytes, content_type: int) -> bytes:
        inner = content + bytes([content_type])
        header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2)
        nonce = (self._iv ^ next(self._sequence)).to_bytes(12)
        return header + self._aead.encrypt(nonce, inner, header)

    def application_data(self, content: bytes) -> bytes:
        return self.record(content, 23)

    def handshake_message(self, kind: int, body: bytes) -> bytes:
        return self.record(bytes([kind]) + len(body).to_bytes(3) + body, 22)

    def key_update(self, *, requested: bool = False) -> bytes:
        message = self.handshake_message(24, bytes([requested]))
        self._secret = _expand_label(self._secret, b"traffic upd", 48)
        self._set_keys()
        return message


def _expand_label(secret: bytes, label: bytes, length: int) -> bytes:
    full = b"tls13 " + label
    info = length.to_bytes(2) + bytes([len(full)]) + full + b"\x00"
    return HKDFExpand(SHA384(), length, info).derive(secret)


def load_leaf(context: ssl.SSLContext, leaf: ThrowawayLeaf, path: Path) -> None:
    path.write_bytes(leaf.chain_pem + key_pem(leaf.key))
    context.load_cert_chain(path)


def pump(server: TlsChannel, client: TlsChannel) -> None:
    """Carry bytes both ways until both sides are silent."""
    while server.pending_out or client.pending_out:
        for source, target in ((client, server), (server, client)):
            data = source.data_to_send()
            if data:
                target.receive_data(data)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("tls-world"))


@pytest.fixture(scope="session")
def carry():
    """The pump."""
    return pump


@pytest.fixture(scope="session")
def raw_peer() -> type[RawPeer]:
    return RawPeer


@pytest.fixture
def forge(world: World, tmp_path: Path):
    """An open server channel and a forge of the records of its authenticated client."""
    key_log = tmp_path / "keys"
    context = world.hostile_context(world.org_b.leaf(CLIENT, role="client"))
    context.keylog_filename = str(key_log)
    channel = world.server_channel()
    RawPeer(context).shake_hands(channel)
    assert channel.handshake_done
    secrets = dict(line.split()[0::2] for line in key_log.read_text().splitlines() if not line.startswith("#"))
    return channel, RecordForge(bytes.fromhex(secrets["CLIENT_TRAFFIC_SECRET_0"]))
