"""CAP-RE-03: who begins handshakes at full rate and resets them, from one address or a few, keeps no other out."""

import os
import socket
import time

import pytest
from handshake_flood import Flood, hello_of
from hostile_peer import RawPeer
from vault_service import SCALE

from caprpc.address import Address
from caprpc.limits import ServerLimits
from caprpc.tls import Identity, TlsChannel, client_context
from caprpc.wire import messages as m

FLOOD_S = 2.0 * SCALE
ADMITTED_S = 5.0
GOOD = "127.0.9.9"


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
