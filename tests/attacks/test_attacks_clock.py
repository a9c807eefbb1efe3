"""The wall clock jumps by a day while calls wait for their time: they end when it is over, not before. CAP-RU-14."""

import asyncio
import threading
import time

import pytest
from vault_service import Safe, Vault

import caprpc
import caprpc.aio

GIVEN_S = 0.3
LATE_S = 0.1
"""As RU-14 asks."""
ATTEMPTS = 8
"""A machine with other work to do is late by itself; a deadline by the wall clock would be so every time."""
DAY_S = 86_400.0


class Sleeper(Safe):
    """Waits, and takes note of when it is told to stop."""

    told = None

    async def wait(self):
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            self.told = time.monotonic()
            raise


class Wall:
    """The wall clock of this process, which a test may step."""

    def __init__(self, monkeypatch):
        self.offset_s = 0.0
        real, real_ns = time.time, time.time_ns
        monkeypatch.setattr(time, "time", lambda: real() + self.offset_s)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + int(self.offset_s * 1e9))

    def step(self, step_s):
        self.offset_s += step_s


@pytest.fixture
def wall(monkeypatch):
    return Wall(monkeypatch)


@pytest.fixture
def sleeper():
    return Sleeper()


def by_deadline(vault, _future):
    with pytest.raises(caprpc.DeadlineExceeded), caprpc.deadline(GIVEN_S):
        vault.wait()


def by_deadline_of_a_future(vault, _future):
    with caprpc.deadline(GIVEN_S):
        future = caprpc.submit(vault.wait)
    with pytest.raises(caprpc.DeadlineExceeded):
        future.result()


def by_patience(vault, keep):
    future = keep(caprpc.submit(vault.wait))
    with pytest.raises(TimeoutError):
        future.result(GIVEN_S)
    future.cancel()


def in_blocking(way, wall, step_s, world, running):
    with caprpc.connect(running.address, **world.side("alice").directories) as peer:
        vault = peer.root("vault", Vault)

        def attempt():
            timer = threading.Timer(GIVEN_S / 3, wall.step, (step_s,))
            timer.start()
            began = time.monotonic()
            way(vault, lambda future: future)
            ended = time.monotonic()
            timer.join()
            assert vault.add(1, 2) == 3
            return began, ended

        yield attempt


async def awaits_deadline(vault):
    with caprpc.aio.deadline(GIVEN_S):
        with pytest.raises(caprpc.DeadlineExceeded):
            await vault.wait()


async def awaits_timeout(vault):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(GIVEN_S):
            await vault.wait()


def in_asyncio(way, wall, step_s, world, running):
    with asyncio.Runner() as runner:

        async def connect():
            peer = await caprpc.aio.connect(running.address, **world.side("alice").directories)
            return peer, await peer.root("vault", Vault)

        peer, vault = runner.run(connect())

        async def tried():
            asyncio.get_running_loop().call_later(GIVEN_S / 3, wall.step, step_s)
            began = time.monotonic()
            await way(vault)
            ended = time.monotonic()
            assert await vault.add(1, 2) == 3
            return began, ended

        yield lambda: runner.run(tried())
        runner.run(peer.close())


WAYS = [
    *((in_blocking, way) for way in (by_deadline, by_deadline_of_a_future, by_patience)),
    *((in_asyncio, way) for way in (awaits_deadline, awaits_timeout)),
]


@pytest.mark.parametrize("step_s", [DAY_S, -DAY_S])
@pytest.mark.parametrize(("face", "way"), WAYS, ids=lambda part: part.__name__)
def test_deadlines_are_met_while_the_wall_clock_jumps(world, driver, wall, sleeper, face, way, step_s):
    running = world.serve(driver, roots={"vault": sleeper})
    late = {"caller": [], "method": []}
    for attempt in face(way, wall, step_s, world, running):
        for _ in range(ATTEMPTS):
            sleeper.told, before = None, wall.offset_s
            began, ended = attempt()
            assert wall.offset_s == before + step_s, "it jumped meanwhile"
            until = time.monotonic() + 5
            while sleeper.told is None and time.monotonic() < until:
                time.sleep(0.005)
            late["caller"].append(ended - began - GIVEN_S)
            late["method"].append(sleeper.told - began - GIVEN_S)
            if all(min(seen) < LATE_S for seen in late.values()):
                break
    for seen in late.values():
        assert min(seen) > -0.001, "never before its time"
        assert min(seen) < LATE_S, seen
