"""Bombs: small when they are sent, large when somebody inflates them. Nobody does. CAP-CO-11."""

import bz2
import gzip
import io
import ssl
import zipfile
import zlib
from pathlib import Path

import pytest
from hostile_peer import connect_socket

from caprpc.limits import DEFAULT_LIMITS, MIB
from caprpc.tls import Identity, client_context, server_context
from caprpc.wire import messages as m
from caprpc.wire.frame import frame

INFLATED = 64 * MIB
"""Sixty times what the largest message may take: one that was inflated would be seen."""


def zipped(data):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", data)
    return out.getvalue()


@pytest.fixture(scope="module")
def bombs():
    zeros = bytes(INFLATED)
    made = {"zlib": zlib.compress(zeros, 9), "gzip": gzip.compress(zeros), "bz2": bz2.compress(zeros)}
    made["zip"] = zipped(zeros)
    made["nested"] = zlib.compress(zlib.compress(zlib.compress(zeros, 9), 9), 9)
    assert all(len(bomb) < INFLATED // 900 for bomb in made.values())
    return made


class Peak:
    """How much more memory this process has taken at one time than it took at the beginning, in bytes."""

    def __enter__(self):
        Path("/proc/self/clear_refs").write_text("5")
        self._before = self._read("VmRSS")
        return self

    def __exit__(self, kind, value, trace):
        self.growth = self._read("VmHWM") - self._before

    def _read(self, name):
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024


def test_the_peak_is_seen(bombs):
    with Peak() as peak:
        zlib.decompress(bombs["zlib"])
    assert peak.growth > INFLATED // 2


def test_a_bomb_before_authentication_is_no_tls(world, driver, bombs):
    running = world.serve(driver)
    for body in (b"".join(bombs.values()), b"CONNECT\x00", bombs["nested"]):
        with connect_socket(running.address) as sock, Peak() as peak:
            sock.settimeout(5)
            sock.sendall(body)
            try:
                while sock.recv(4096):
                    pass
            except ConnectionError:
                pass
        assert peak.growth <= DEFAULT_LIMITS.max_frame_bytes
    assert world.open(running).root()


def test_a_bomb_as_a_frame_is_a_protocol_error(world, driver, bombs):
    running = world.serve(driver)
    for bomb in bombs.values():
        peer = world.open(running)
        with Peak() as peak:
            peer.send(frame(bomb))
            assert peer.rest()[-1].code == "protocol-error"
        assert peak.growth <= DEFAULT_LIMITS.max_frame_bytes


def test_a_bomb_as_a_value_stays_what_it_is(world, driver, bombs):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    for bomb in bombs.values():
        # What a message of this size takes anyway is taken before.
        assert peer.value(vault, "echo", [bytes(len(bomb))]) == bytes(len(bomb))
        with Peak() as peak:
            assert peer.value(vault, "echo", [bomb]) == bomb
        assert peak.growth <= DEFAULT_LIMITS.max_frame_bytes
    assert isinstance(peer.ask(vault, "noop", payload=bombs["zlib"]), m.Raise | m.GoAway | None)


def extensions(hello):
    """Return the numbers of the extensions of a ClientHello in one record."""
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2], "big")
    assert hello[at : at + 2] == b"\x01\x00", "no compression method but null"
    at += 2
    end = at + 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 2
    found = set()
    while at < end:
        found.add(int.from_bytes(hello[at : at + 2], "big"))
        at += 4 + int.from_bytes(hello[at + 2 : at + 4], "big")
    return found


def test_tls_offers_no_compression_of_anything(world):
    """Neither of records nor of certificates (RFC 8879, extension 27), which would be inflated of a stranger."""
    identity = Identity.load(world.side("alice").identity)
    context = client_context(identity)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    found = extensions(outgoing.read())
    assert 43 in found
    assert 27 not in found
    for made in (context, server_context(identity)):
        assert made.options & ssl.OP_NO_COMPRESSION
