"""Attacks in which what must not happen is watched from inside: files, programs and modules, the wire, the clock."""

import ast
import gc
import sys
import threading
import time
from pathlib import Path

import pytest
from hostile_peer import HostileServer, welcome
from vault_service import Safe, Vault

import caprpc
from caprpc.ids import OP_ROOT
from caprpc.wire import messages as m
from caprpc.wire.codec import pack
from caprpc.wire.values import RemoteReference

PATHS = [
    *(
        "../../../etc/passwd",
        "/etc/passwd",
        "/etc/passwd\x00.txt",
        "\\\\host\\share",
        "~root/.ssh/id_rsa",
        "/proc/self/fd/1",
    ),
    *("file:///etc/passwd", "/dev/stdin", "|id", "os.path", "builtins", "__main__", "vault_service:Safe"),
]

_WATCHED = frozenset(
    {"exec", "compile", "import", "pickle.find_class", "marshal.loads", "subprocess.Popen", "os.system", "os.exec"}
    | {"os.posix_spawn", "ctypes.dlopen", "socket.connect", "object.__getattr__", "shutil.copyfile", "glob.glob"}
)


class Tripwire:
    """Notes what a process does while it is armed; an audit hook cannot be taken away again."""

    def __init__(self):
        self.armed = False
        self.events = []
        self._here = threading.get_ident()
        sys.addaudithook(self._note)

    def _note(self, event, args):
        if not self.armed or (event == "socket.connect" and threading.get_ident() == self._here):
            return
        if event in _WATCHED or (event == "open" and not str(args[0]).startswith(self.allowed)):
            self.events.append((event, str(args)[:200]))

    allowed: str


@pytest.fixture(scope="module")
def tripwire():
    return Tripwire()


def test_texts_of_a_peer_open_import_and_run_nothing(world, driver, tripwire, tmp_path):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    # What is imported and compiled at first use is so before the wire is armed.
    assert peer.value(vault, "echo", ["warm"]) == "warm"
    assert peer.ask(vault, "__class__").code == "denied"
    assert peer.ask(vault, "fail", ["value"]).code == "internal"
    tripwire.allowed, tripwire.events = str(tmp_path), []
    tripwire.armed = True
    try:
        for text in PATHS:
            assert peer.value(vault, "echo", [text]) == text
            assert peer.value(vault, "echo", [{"path": [text]}]) == {"path": [text]}
            assert isinstance(peer.ask(vault, "take", [text]), m.Raise)
            assert isinstance(peer.ask(vault, "pay", [1.0, text]), m.Return)
            assert isinstance(peer.ask(0, text, operation=OP_ROOT), m.Raise)
            assert isinstance(peer.ask(vault, text), m.Raise)
    finally:
        tripwire.armed = False
    assert tripwire.events == []


def test_the_tripwire_sees_what_it_is_for(tripwire, tmp_path):
    tripwire.allowed, tripwire.events = str(tmp_path), []
    tripwire.armed = True
    try:
        Path("/etc/hostname").exists()
        with open("/dev/null"):
            compile("1", "x", "eval")
        (tmp_path / "a").write_text("a")
    finally:
        tripwire.armed = False
    assert [event for event, _ in tripwire.events] == ["open", "compile"]


class Keeper(Safe):
    def __init__(self):
        super().__init__()
        self.held = {"list": [1, [2]], "set": {1}}

    def echo(self, value):
        return self.held if value == "held" else super().echo(value)


def test_containers_that_were_returned_are_copies(world, driver):
    service = Keeper()
    running = world.serve(driver, roots={"vault": service})
    with caprpc.connect(running.address, **world.side("alice").directories) as peer:
        vault = peer.root("vault", Vault)
        got = vault.echo("held")
        got["list"][1].append("mine")
        got["set"].clear()
        got.clear()
        assert vault.echo("held") == {"list": [1, [2]], "set": {1}}
    hostile = world.open(running)
    root = hostile.root()
    for name in ("append", "clear", "held", "pop", "update", "list"):
        assert hostile.ask(root, name, ["x"]).code == "denied"
    assert service.held == {"list": [1, [2]], "set": {1}}


def test_language_operations_on_a_stub_send_nothing(world, driver):
    """Equality and hash are of the reference itself; whatever else no interface lists is refused here."""
    running = world.serve(driver)
    with caprpc.connect(running.address, **world.side("alice").directories) as peer:
        vault = peer.root("vault", Vault)
        slips = vault.slips(3)
        asked = peer._connection.link.session.asked
        before = asked.count
        slip = slips[0]
        assert slip == slip
        assert slip != slips[1]
        assert slip != 1
        assert slip in slips
        assert slips.index(slips[2]) == 2
        assert {slip: 1}[slip] == 1
        assert len({*slips, *slips}) == 3
        assert bool(slip)
        for refused in (len, iter, next, int, float, sorted, abs, list, bytes, memoryview, round, open, reversed):
            with pytest.raises((TypeError, OSError)):
                refused([slip, slips[1]] if refused is sorted else slip)
        for refused in ("slip < other", "slip + other", "slip[0]", "1 in slip", "slip()", "+slip", "slip @ other"):
            tree = ast.parse(refused, mode="eval")
            with pytest.raises(TypeError):
                _Evaluated({"slip": slip, "other": slips[1]}).visit(tree.body)
        assert asked.count == before


class _Evaluated(ast.NodeVisitor):
    """Does what a few expressions say."""

    def __init__(self, names):
        self.names = names

    def visit_Name(self, node):
        return self.names[node.id]

    def visit_Constant(self, node):
        return node.value

    def visit_Compare(self, node):
        left, right = self.visit(node.left), self.visit(node.comparators[0])
        return left in right if isinstance(node.ops[0], ast.In) else left < right

    def visit_BinOp(self, node):
        left, right = self.visit(node.left), self.visit(node.right)
        return left + right if isinstance(node.op, ast.Add) else left @ right

    def visit_Subscript(self, node):
        return self.visit(node.value)[self.visit(node.slice)]

    def visit_UnaryOp(self, node):
        return +self.visit(node.operand)

    def visit_Call(self, node):
        return self.visit(node.func)()


def test_collecting_garbage_at_every_allocation_neither_deadlocks_nor_loses_anything(world, driver):
    """Finalizers only queue: they run in the middle of anything, on any thread, while any lock is held."""
    running = world.serve(driver)
    failures = []
    with caprpc.connect(running.address, **world.side("alice").directories) as peer:
        vault = peer.root("vault", Vault)
        threshold = gc.get_threshold()
        gc.set_threshold(1)
        try:
            threads = [threading.Thread(target=_make_cycles, args=(vault, failures)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        finally:
            gc.set_threshold(*threshold)
        assert not any(thread.is_alive() for thread in threads)
        assert failures == []
        gc.collect()
        assert vault.add(1, 2) == 3
        end = time.monotonic() + 5
        while len(peer._connection.link.session.imports) > 1 and time.monotonic() < end:
            vault.noop()
        assert len(peer._connection.link.session.imports) == 1


def _make_cycles(vault, failures):
    try:
        for _ in range(30):
            cycle = [vault.slip(), *vault.slips(2)]
            cycle.append(cycle)
            assert cycle[0].text() == "slip"
            assert vault.call_back(lambda number: number + 1) == 2
    except BaseException as exc:  # shown by the test
        failures.append(exc)


@pytest.mark.parametrize("step_s", [86_400.0, -86_400.0])
def test_a_step_of_the_wall_clock_moves_no_deadline(world, monkeypatch, step_s):
    def script(peer):
        welcome(peer)
        call = peer.next_call()
        peer.send(m.Facet(1, "Vault", [(1, "noop"), (1, "add")], 0))
        peer.send(m.Return(call.question, pack(RemoteReference(1, 1))))
        call = peer.next_call()
        peer.send(m.Return(call.question, pack(3)))
        peer.rest(8)

    with HostileServer(world.deployment.side("hostile", {}, spiffe=world.server_id), script) as server:
        with caprpc.connect(server.address, **world.side("alice").directories) as peer:
            vault = peer.root("vault", Vault)
            real = time.time
            monkeypatch.setattr(time, "time", lambda: real() + step_s)
            assert vault.add(1, 2) == 3
            started = time.monotonic()
            with pytest.raises(caprpc.DeadlineExceeded), caprpc.deadline(0.3):
                vault.noop()
            assert 0.25 <= time.monotonic() - started < 0.8
