"""A policy that changes under load: each call is decided under exactly one version, and none under an old one."""

import threading
from collections import Counter

from hostile_peer import dial
from vault_service import SERVER

from caprpc.audit import Selection, select, verify
from caprpc.wire import messages as m

NO_ADD = SERVER.replace('"add", ', "")
RELOADS = 40


class Editor:
    """Writes one of two policies, and has the server read it."""

    def __init__(self, world, running):
        self.version = 1
        self._world = world
        self._running = running

    def write(self, text):
        world, running = self._world, self._running
        names = f'"spiffe://{world.deployment.trust_domain}/alice", "spiffe://{world.deployment.trust_domain}/mallory"'
        self.version += 1
        world.deployment.write_policy(running.side, "peers", text.replace("@WHO@", names).replace("@ROOTS@", ""))
        world.deployment.write_index(running.side, ['"peers.toml"'], self.version)
        running.reload()


def test_no_call_is_decided_under_a_version_that_was_replaced(world, driver):
    running = world.serve(driver)
    editor = Editor(world, running)
    load = Load(running, world.side("alice"))
    kept = world.open(running)
    vault = kept.root()
    assert kept.value(vault, "add", [1, 2]) == 3
    with load:
        for _ in range(RELOADS):
            editor.write(NO_ADD)
            # Acknowledged: from here on nobody gets it, on an old connection or on a new one.
            assert kept.ask(vault, "add", [1, 2]).code == "denied"
            assert load.once() == "denied"
            editor.write(SERVER)
            assert load.once() == "ran"
            kept.close()
            kept = world.open(running)
            vault = kept.root()
    assert load.failures == []
    assert load.counts["ran"] > RELOADS
    assert load.counts["denied"] > RELOADS
    _check_log(running)


class Load:
    """Threads that connect, call, and note how it went, until told to stop."""

    def __init__(self, running, side):
        self.failures = []
        self.counts = Counter()
        self._running = running
        self._side = side
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]

    def once(self, calls=1):
        """Make calls on a new connection; return how the last one went."""
        peer = dial(self._running.address, self._side).open()
        try:
            vault = peer.root()
            said = ""
            for _ in range(calls):
                answer = peer.ask(vault, "add", [1, 2])
                said = "ran" if isinstance(answer, m.Return) else answer.code
                self.counts[said] += 1
            return said
        finally:
            peer.close()

    def _run(self):
        try:
            while not self._stop.is_set():
                self.once(10)
        except BaseException as exc:  # shown by the test
            self.failures.append(exc)

    def __enter__(self):
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_exc):
        self._stop.set()
        for thread in self._threads:
            thread.join(20)


def _check_log(running):
    running.stop()
    assert verify(running.side.audit).intact
    verdicts = {}
    for entry in select(running.side.audit, Selection()):
        fields = entry.record.fields
        if fields.get("member") == "add" and fields["kind"] == "decision":
            verdicts.setdefault(fields["policy"], set()).add(fields["decision"])
    # The text at start and the one written again permit it; the other never. A narrowed connection refuses under each.
    assert sorted("permit" in seen for seen in verdicts.values()) == [False, True, True]
