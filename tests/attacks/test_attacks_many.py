"""CAP-RE-21: many principals, each below its own limits; what they hold together is capped by refusal."""

import time
from collections import Counter
from dataclasses import replace

from hostile_peer import until
from vault_service import QUICK, SCALE

from caprpc.limits import KIB
from caprpc.wire import messages as m

PRINCIPALS = min(1_000, int(12 * SCALE))
"""A part of RE-21, which asks for 1,000: with these all methods that block have a worker, and no call waits for one."""
CALLS = 4
HEAVY = bytes(60 * KIB)
SLO_S = 1.0
"""Of every answer, while nothing that takes room ends: who waits for room, waits until the test opens the gate."""


def timed(peer, vault, value):
    """Return the answer to an echo, and the seconds that it took."""
    start = time.perf_counter()
    answer = peer.ask(vault, "echo", [value])
    return answer, time.perf_counter() - start


def test_many_principals_below_their_limits_are_refused_and_never_kept_waiting(world, driver):
    names = tuple(f"peer-{number}" for number in range(PRINCIPALS))
    budget = PRINCIPALS * CALLS * len(HEAVY) // 2
    alone = world.serve_alone(driver, limits=replace(QUICK, argument_bytes=budget), who=names)
    peers = []
    for name in names:
        peer = world.open(alone, name)
        peers.append((peer, peer.root()))
    told, times = Counter(), []
    for peer, vault in peers:
        calls = [peer.call(vault, "hold", [HEAVY]) for _ in range(CALLS)]
        start = time.perf_counter()
        for call in calls:
            peer.send(call)
        assert peer.value(vault, "echo", [1]) == 1
        times.append(time.perf_counter() - start)
        told.update(peer._answers[call.question].code for call in calls if call.question in peer._answers)
    assert set(told) == {"limit"}
    assert 0.4 * PRINCIPALS * CALLS <= told["limit"] <= 0.6 * PRINCIPALS * CALLS
    assert 0.9 * budget <= alone.ask().held <= budget
    for _ in range(3):
        for peer, vault in peers:
            answer, seconds = timed(peer, vault, "x" * 500)
            assert isinstance(answer, m.Return)
            times.append(seconds)
            answer, seconds = timed(peer, vault, HEAVY)
            assert isinstance(answer, m.Raise)
            assert answer.code == "limit"
            times.append(seconds)
    times.sort()
    middle, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    print(f"{driver}, {PRINCIPALS} principals: p50 {middle * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms")
    assert p99 <= SLO_S
    alone.ask("open")
    until(lambda: alone.ask().held == 0, 20.0)
    for peer, vault in peers:
        assert isinstance(timed(peer, vault, HEAVY)[0], m.Return)
