"""CAP-RE-03: who begins handshakes at full rate and resets them, from one address or a few, keeps no other out."""

import os
import resource
import socket
import struct
import threading
import time
from contextlib import suppress

import pytest
from hostile_peer import RawPeer
from vault_service import SCALE

from caprpc.address import Address
from caprpc.limits import ServerLimits
from caprpc.sockets import is_gone
from caprpc.tls import Identity, TlsChannel, client_context
from caprpc.wire import messages as m

FLOOD_S = 2.0 * SCALE
ADMITTED_S = 5.0
GOOD = "127.0.9.9"
MOST = min(3_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 3)
"""Sockets of a flood at a time: more than a listening socket holds."""
RESET = struct.pack("ii", 1, 0)


class Flood:
    """Connects from some addresses as fast as it can, says the beginning of a handshake, and resets after a while."""

    def __init__(self, address, hello, sources, keep_s):
        where = Address.parse(address)
        self._where = (where.host, where.port)
        self._hello = hello
        self._sources = sources
        self._keep_s = keep_s
        self._ends = threading.Event()
        self.begun = 0
        self._thread = threading.Thread(target=self._run, name="flood")
        self._thread.start()

    def _run(self):
        waiting = []
        try:
            while not self._ends.is_set():
                now = time.monotonic()
                for _ in range(32):
                    sock = socket.socket()
                    sock.setblocking(False)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
                    with suppress(OSError):
                        sock.bind((self._sources[self.begun % len(self._sources)], 0))
                        sock.connect_ex(self._where)
                        self.begun += 1
                    waiting.append((now, sock))
                time.sleep(0)
                for _, sock in waiting[-32:]:
                    with suppress(OSError):
                        sock.send(self._hello)
                while waiting and waiting[0][0] + self._keep_s < now:
                    waiting.pop(0)[1].close()
                while len(waiting) >= MOST and not self._ends.is_set():
                    self._drop_closed(waiting)
        finally:
            for _, sock in waiting:
                sock.close()

    def _drop_closed(self, waiting):
        """Close those that the server has closed, or whose time is over; wait a moment if there are none."""
        now = time.monotonic()
        left = [one for one in waiting if one[0] + self._keep_s >= now and not is_gone(one[1])]
        for one in set(waiting).difference(left):
            one[1].close()
        if len(left) == len(waiting):
            time.sleep(0.02)
        waiting[:] = left

    def stop(self):
        self._ends.set()
        self._thread.join(10)


def hello_of(side):
    """Return what a client says first."""
    channel = TlsChannel(client_context(Identity.load(side.identity)), server_side=False, server_hostname="127.0.0.1")
    return channel.data_to_send()


def admitted(running, side):
    """Connect a good client from an address of its own; return how long it took to be let in."""
    where = Address.parse(running.address)
    start = time.monotonic()
    sock = socket.create_connection((where.host, where.port), timeout=ADMITTED_S, source_address=(GOOD, 0))
    channel = TlsChannel(client_context(Identity.load(side.identity)), server_side=False, server_hostname=where.host)
    peer = RawPeer(sock, channel, timeout_s=ADMITTED_S)
    try:
        peer.open()
    finally:
        peer.close()
    return time.monotonic() - start


FLOODS = {
    "reset at once, one address": (["127.0.0.2"], 0.0),
    "reset after a while, one address": (["127.0.0.2"], 2.0),
    "kept, one address": (["127.0.0.2"], 60.0),
    "kept, six addresses": ([f"127.0.0.{number}" for number in range(2, 8)], 60.0),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_good_peer_of_another_address_is_admitted_beside_a_flood(world, driver, flood):
    """With the limits of every server, when the burst is spent."""
    running = world.serve(driver, limits=ServerLimits())
    side = world.side("alice")
    established = world.open(running)
    vault = established.root()
    sources, keep_s = FLOODS[flood]
    attack = Flood(running.address, hello_of(world.side("mallory")), sources, keep_s)
    try:
        time.sleep(1.0)
        took, served, end = [], [], time.monotonic() + FLOOD_S
        while time.monotonic() < end:
            took.append(admitted(running, side))
            start = time.monotonic()
            assert isinstance(established.ask(vault, "noop"), m.Return)
            served.append(time.monotonic() - start)
            world.service.ran.clear()
    finally:
        attack.stop()
    if "CAPRPC_ATTACK_SCALE" in os.environ:
        rate = attack.begun / (FLOOD_S + 1.0)
        print(f"\n{driver}, {flood}: {rate:.0f}/s; {len(took)} admitted, at most {max(took):.2f} s")
    assert max(took) <= ADMITTED_S, took
    assert attack.begun > 200, "too slow to be a flood"
