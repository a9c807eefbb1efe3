"""Interleavings: references released, sent again and closed at once; who calls. CAP-HD-10, CAP-CB-15, CAP-RU-06.

``CAPRPC_ATTACK_SCALE`` makes the long ones longer: the catalogue's measure is beside each.
"""

import asyncio
import random
import sys
import threading
from collections import deque
from contextlib import ExitStack

import pytest
from vault_service import SCALE, Safe, Vault

import caprpc
from caprpc.errors import RemoteProtocolError
from caprpc.policy import Facet
from caprpc.session import Announced, Exports, Imports
from caprpc.session.references import Export

STEPS = 1_000_000
"""As HD-10 asks."""
CALLS = int(5_000 * SCALE)
"""CB-15 asks for 10^5: scale 20."""
OPERATIONS = int(5_000 * SCALE)
"""RU-06 asks for 10^6: scale 200."""


class Shape:
    """A shape that takes anything."""

    def adapt(self, source):
        return source


class Thing:
    pass


ANNOUNCED = Announced(1, "Thing", frozenset(), 0)
FACET = Facet("Thing", "Thing", {})
SHAPE = Shape()


class Owner:
    """The owner of a few objects and their holder, with messages under way in both directions, and what must hold."""

    def __init__(self, seed):
        self.choose = random.Random(seed)
        self.exports = Exports(Export(0, None, None, SHAPE, FACET, None), 1_000)
        self.imports = Imports(1_000, "peer")
        self.objects = [Thing() for _ in range(4)]
        self.there = deque()
        self.back = deque()

    def step(self):
        self.choose.choice((self.send, self.send, self.receive, self.receive, self.drop, self.collect, self.release))()

    def send(self):
        if len(self.there) < 50:
            source = self.choose.choice(self.objects)
            self.there.append(self.exports.hand_over(source, SHAPE, FACET, ANNOUNCED, None).export_id)

    def receive(self):
        if self.there:
            self.imports.receive(self.there.popleft(), ANNOUNCED, None)

    def drop(self):
        live = self.imports.live()
        if live:
            self.imports.dropped.append(self.choose.choice(live))

    def collect(self):
        self.back.extend(self.imports.collect())

    def release(self):
        if self.back:
            self.exports.release(*self.back.popleft())

    def check(self):
        """Every count of the owner is under way, held, or on its way back; nothing that is held or sent is gone."""
        expected = {}
        for number in self.there:
            expected[number] = expected.get(number, 0) + 1
        for number, count in self.back:
            expected[number] = expected.get(number, 0) + count
        for imported in self.imports.live():
            expected[imported.export_id] = expected.get(imported.export_id, 0) + imported.count
        counted = {export.export_id: export.count for export in self.exports.live()}
        assert counted == expected
        assert all(export.source is not None for export in self.exports.live())

    def settle(self):
        while self.there:
            self.receive()
        self.imports.dropped.extend(self.imports.live())
        self.collect()
        while self.back:
            self.release()
        assert (len(self.exports), len(self.imports)) == (0, 0)


def test_a_release_that_crosses_a_reference_sent_again_loses_and_leaves_nothing():
    owner = Owner(8)
    for count in range(STEPS):
        owner.step()
        if not count % 100:
            owner.check()
    owner.settle()


def test_the_model_sees_a_count_too_many():
    owner = Owner(8)
    for _ in range(50):
        owner.step()
    owner.settle()
    owner.send()
    owner.receive()
    [imported] = owner.imports.live()
    with pytest.raises(RemoteProtocolError):
        owner.exports.release(imported.export_id, 2)


class Asking(Safe):
    """Looks who calls before, during and after it has waited, called back, and been on other threads."""

    def call_back(self, function):
        before = caprpc.current().principal
        function(1)
        after = caprpc.current().principal
        return 0 if before == after == self.expected(function) else 1

    def expected(self, function):
        return caprpc.holder(function)

    def caller(self):
        return caprpc.current().principal


class AskingCoroutine(Asking):
    async def call_back(self, function):
        before = caprpc.current().principal
        await asyncio.sleep(0)
        await function(1)
        await asyncio.sleep(0)
        return 0 if before == caprpc.current().principal == caprpc.holder(function) else 1


NAMES = [f"caller-{number}" for number in range(4)]


@pytest.mark.parametrize("kind", [Asking, AskingCoroutine])
def test_every_frame_of_many_calls_at_once_knows_its_own_caller(world, driver, kind):
    running = world.serve(driver, roots={"vault": kind()}, who=NAMES)
    wrong, errors, made = [], [], []

    def work(name, vault, seed):
        choose = random.Random(seed)
        own = f"spiffe://{world.deployment.trust_domain}/{name}"
        left = CALLS / (2 * len(NAMES))
        try:
            while left > 0:
                count = choose.randrange(1, 16)
                answers = [caprpc.submit(vault.caller) for _ in range(count)]
                wrong.extend(bad for bad in (vault.call_back(lambda number: number),) if bad)
                wrong.extend(who for who in (answer.result(20) for answer in answers) if who != own)
                left -= count + 1
                made.append(count + 1)
        except BaseException as exc:
            errors.append(exc)

    with ExitStack() as opened:
        sides = [world.side(name) for name in NAMES]
        peers = [opened.enter_context(caprpc.connect(running.address, **side.directories)) for side in sides]
        vaults = [peer.root("vault", Vault) for peer in peers]
        threads = [
            threading.Thread(target=work, args=(name, vault, f"{name}-{half}"))
            for name, vault in zip(NAMES, vaults, strict=True)
            for half in (1, 2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60 * max(1, SCALE))
        vaults.clear()
    assert (wrong, errors) == ([], [])
    assert sum(made) >= CALLS
    with pytest.raises(LookupError):
        caprpc.current()


def test_calls_releases_revocations_and_closing_at_once_leave_each_call_one_outcome(world, driver):
    """Threads that switch every microsecond; after ``revoke`` has returned, no call that begins later runs."""
    running = world.serve(driver)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    failures, ended = [], []
    allowed = (caprpc.ReferenceDead, caprpc.RemoteError, caprpc.ConnectionLost)
    try:
        rounds = OPERATIONS // 480
        for number in range(rounds):
            with caprpc.connect(running.address, **world.side("alice").directories) as peer:
                vault = peer.root("vault", Vault)
                handle = [vault.slip()]
                over = threading.Event()

                def use(handle=handle, over=over, vault=vault, seed=number):
                    choose = random.Random(seed)
                    for _ in range(120):
                        late = over.is_set()
                        try:
                            outcome = handle[0].text()
                        except allowed as exc:
                            outcome = type(exc).__name__
                        except BaseException as exc:
                            failures.append(exc)
                            return
                        ended.append(outcome)
                        if late and outcome == "slip":
                            failures.append(AssertionError("a call that began after the end has run"))
                        if choose.random() < 0.05:
                            vault.noop()

                threads = [threading.Thread(target=use) for _ in range(4)]
                for thread in threads:
                    thread.start()
                for _ in range(number % 7):
                    vault.noop()
                caprpc.release(handle[0])
                over.set()
                for thread in threads:
                    thread.join(30)
                assert not any(thread.is_alive() for thread in threads)
        assert failures == []
        assert len(ended) == rounds * 4 * 120
        assert set(ended) <= {"slip", *(kind.__name__ for kind in allowed)}
    finally:
        sys.setswitchinterval(before)
