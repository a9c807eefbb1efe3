"""A server process in a hostile environment, short of memory, or crashing. CAP-RU-11, CAP-RU-15, CAP-SI-09."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from vault_service import CANARY, INTERFACES, SCALE, SERVER

from caprpc.audit import Selection, select, verify

HERE = Path(__file__).parent
ACCEPTS = 0x10000
"""What ``/proc/net/unix`` says of a socket that listens: ``__SO_ACCEPTCON`` of ``linux/net.h``."""


class Child:
    """``caprpc serve`` in a process of its own."""

    def __init__(self, world, driver, *, flags=(), environment=None, umask=-1, shell="", stderr=None):
        self.directory = Path(tempfile.mkdtemp(prefix="c-"))
        text = SERVER.replace("@WHO@", '"spiffe://@DOMAIN@/mallory", "spiffe://@DOMAIN@/alice"').replace("@ROOTS@", "")
        self.side = world.deployment.side("child", {"peers": text}, INTERFACES, spiffe=world.server_id)
        self.socket = self.directory / "s"
        self.address = f"unix:{self.socket}"
        self.errors = self.directory / "errors"
        words = [sys.executable, *flags, "-m", "caprpc", "serve", "child_service:roots", "--listen", self.address]
        words += ["--identity", str(self.side.identity), "--policies", str(self.side.policies)]
        words += ["--audit", str(self.side.audit), *(["--aio"] if driver == "aio" else [])]
        if shell:
            words = ["/bin/sh", "-c", f'exec "$@" {shell}', "sh", *words]
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                words,
                cwd=HERE,
                env={**os.environ, **(environment or {})},
                umask=umask,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors if stderr is None else stderr,
            )
        end = time.monotonic() + 20
        while not self.listens() and time.monotonic() < end and self.process.poll() is None:
            time.sleep(0.01)
        assert self.listens(), self.errors.read_text()

    def listens(self):
        """Whether its socket can be connected to: its name is there a moment before."""
        return any(
            line.endswith(f" {self.socket}") and int(line.split()[3], 16) & ACCEPTS
            for line in Path("/proc/net/unix").read_text().splitlines()
        )

    def ended(self, timeout_s=10):
        """Wait for the end of the process; return its code and what it has said."""
        return self.process.wait(timeout_s), self.errors.read_text(errors="replace")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def close(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture
def serve(world, driver):
    children = []

    def start(**options):
        children.append(Child(world, driver, **options))
        return children[-1]

    yield start
    for child in children:
        child.close()


def behaves(world, child):
    """What every environment must leave as it is: calls, refusals, the audit log, the end."""
    peer = world.open(child)
    root = peer.root()
    assert peer.value(root, "add", [1, 2]) == 3
    assert peer.value(root, "echo", ["ä€\U0001f600"]) == "ä€\U0001f600"
    assert peer.ask(root, "hidden").code == "denied"
    assert peer.ask(root, "fail", ["value"]).code == "internal"
    assert peer.value(root, "add", [2, 2]) == 4
    code, said = child.stop()
    assert code == 0, said
    assert verify(child.side.audit).intact
    assert len(list(select(child.side.audit, Selection(decision="deny")))) == 1
    return said


def full_pipe():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    return reading, writing


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"CHILD_STACK": str(256 << 10)},
        {"HOME": "/nonexistent", "TMPDIR": "/nonexistent", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "0"},
    ],
    ids=["locale", "stacks", "nowhere"],
)
def test_no_environment_changes_what_a_server_does(world, serve, environment):
    behaves(world, serve(environment=environment))


def test_closed_standard_streams_are_taken_by_nothing_else(world, serve):
    """A descriptor below 3 that is free is what the next file gets, and what C code writes its complaints to."""
    child = serve(shell="<&- >&- 2>&-")
    taken = [os.readlink(f"/proc/{child.process.pid}/fd/{number}") for number in range(3)]
    assert taken == ["/dev/null"] * 3
    behaves(world, child)


def test_nobody_waits_for_a_reader_of_standard_error(world, serve):
    reading, writing = full_pipe()
    try:
        behaves(world, serve(stderr=writing))
    finally:
        os.close(reading)
        os.close(writing)


def test_files_are_private_under_any_umask(world, serve):
    child = serve(umask=0)
    socket_mode = stat.S_IMODE(child.socket.stat().st_mode)
    behaves(world, child)
    written = [path for path in child.side.audit.rglob("*") if path.is_file()]
    assert len(written) > 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}
    assert stat.S_IMODE(child.side.audit.stat().st_mode) == 0o700
    assert socket_mode == 0o600


def test_memory_that_runs_out_in_a_call_ends_that_call_alone(world, serve):
    child = serve()
    good, hungry = world.open(child, "alice"), world.open(child)
    root, target = good.root(), hungry.root()
    assert hungry.value(target, "echo", ["limit"]) == "limit"
    for _ in range(max(10, int(10 * SCALE))):
        assert hungry.ask(target, "blob", [1 << 30]).code == "internal"
        assert hungry.ask(target, "hidden").code == "denied"
        assert good.value(root, "add", [1, 2]) == 3
    code, said = child.stop()
    assert code == 0, said
    assert verify(child.side.audit).intact
    permitted = select(child.side.audit, Selection(decision="permit"))
    assert not [entry for entry in permitted if entry.record.text("member") == "hidden"]


@pytest.mark.parametrize("how", [2.0, 3.0], ids=["fault", "abort"])
def test_a_crash_shows_no_argument(world, serve, how):
    """``faulthandler`` says where each thread was, and not with what."""
    child = serve(flags=["-X", "dev", "-X", "faulthandler"])
    peer = world.open(child)
    root = peer.root()
    assert peer.value(root, "echo", [CANARY]) == CANARY
    peer.send(peer.call(root, "pay", [how, CANARY]))
    code, said = child.ended()
    assert code < 0
    assert "Fatal Python error" in said
    assert "child_service.py" in said
    assert CANARY not in said


def test_what_nobody_can_be_told_shows_no_argument(world, serve):
    """The hook for exceptions that cannot be raised names the finalizer, and not what was in it."""
    child = serve(flags=["-X", "dev"])
    peer = world.open(child)
    root = peer.root()
    assert peer.value(root, "pay", [4.0, CANARY]) == "paid"
    assert peer.ask(root, "fail", ["exit"]).code == "internal"
    code, said = child.stop()
    assert code == 0, said
    assert "ZeroDivisionError" in said
    assert CANARY not in said.replace(f"SystemExit: {CANARY}", "")
