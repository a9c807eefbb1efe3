"""What an application is told of its connections; over every pairing, and where it concerns one driver over that."""

import functools
import logging
import threading
from contextlib import suppress

import pytest

import caprpc
from caprpc import ConfigurationError, ConnectionLost, ConnectRefused, ReferenceDead, RemoteError

WAIT_S = 10.0


class Diary:
    """Hooks that note what they are told."""

    def __init__(self):
        self.came, self.went = [], []
        self.gone = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.threads = set()

    def on_connect(self, peer):
        self.threads.add(threading.current_thread().name)
        assert self.gate.wait(WAIT_S)
        self.came.append(peer)

    def on_disconnect(self, peer, reason):
        self.threads.add(threading.current_thread().name)
        self.went.append((peer, reason))
        self.gone.set()

    @property
    def hooks(self):
        return {"on_connect": self.on_connect, "on_disconnect": self.on_disconnect}


@pytest.fixture
def diary():
    return Diary()


async def use(face):
    await face((await face.root()).noop())


def test_hooks_are_told_once_with_the_peer_of_the_connection(pairing, diary, parts):
    made = []

    class Desk(parts.methods):
        def __init__(self, peer):
            super().__init__()
            made.append(peer)

    pairing.serve({"service": Desk}, **diary.hooks)
    pairing.run(use)
    assert diary.gone.wait(WAIT_S)
    pairing.host.stop()
    assert [peer.principal for peer in diary.came] == ["spiffe://test.example/alice"]
    assert len(diary.went) == 1
    peer, reason = diary.went[0]
    assert peer is diary.came[0] is made[0]
    assert isinstance(reason, ConnectionLost)
    assert reason.code == "closed"
    assert all(name.startswith("caprpc-hook") for name in diary.threads)


def test_hooks_may_be_coroutines(pairing, diary):
    async def on_connect(peer):
        diary.came.append(peer)

    async def on_disconnect(prefix, peer, reason):
        diary.went.append((prefix, peer, reason.code))
        diary.gone.set()

    pairing.serve(on_connect=on_connect, on_disconnect=functools.partial(on_disconnect, "left"))
    pairing.run(use)
    assert diary.gone.wait(WAIT_S)
    assert len(diary.came) == 1
    assert diary.went == [("left", diary.came[0], "closed")]


def test_failed_handshake_calls_neither_hook(pairing, diary, scene):
    if "stranger" not in scene.clients:
        scene.add_stranger()
    pairing.serve(**diary.hooks)
    with pytest.raises(ConnectRefused):
        pairing.run(use, side="stranger")
    pairing.host.stop()
    assert not diary.came
    assert not diary.went


def test_hook_that_raises_keeps_the_peer_out_and_nobody_is_said_to_leave(pairing, diary, caplog):
    def refuse(_peer):
        raise KeyError("no desk is open")

    pairing.serve(on_connect=refuse, on_disconnect=diary.on_disconnect)
    with caplog.at_level(logging.CRITICAL, "caprpc"), pytest.raises(ConnectionLost) as caught:
        pairing.run(use)
    pairing.host.stop()
    assert caught.value.code == "refused"
    assert caught.value.reference.startswith("R-")
    assert "desk" not in str(caught.value)
    assert not diary.went
    closes = [record for record in pairing.host.records() if record["kind"] == "close"]
    assert [(r["reason"], r["detail"], r["reference"]) for r in closes] == [
        ("refused", "on_connect raised KeyError", caught.value.reference)
    ]


def test_call_of_a_peer_that_is_not_let_in_has_not_run_and_says_so(both, diary):
    """It is there when the hook raises: nobody has to wonder whether to make it again."""
    diary.gate.clear()

    def refuse(peer):
        diary.on_connect(peer)
        raise KeyError("no desk is open")

    both.serve(on_connect=refuse)

    async def scenario(face):
        asked = face.peer._connection.link.session.asked
        threading.Timer(0.05, diary.gate.set).start()
        with pytest.raises(ConnectionLost, match="the call has not run") as caught:
            await face.root()
        return caught.value, asked.count

    error, asked = both.run(scenario)
    assert (error.code, error.may_have_run, asked) == ("refused", False, 1)


def test_calls_wait_until_the_peer_was_let_in(both, diary):
    diary.gate.clear()
    both.serve(**diary.hooks)

    async def scenario(face):
        root = face.peer._connection.caller
        assert root is not None
        threading.Timer(0.05, diary.gate.set).start()
        service = await face.root()
        # Whoever got the root got it after the hook had returned.
        assert diary.came
        await face(service.note(1))
        return await face(service.noted())

    assert both.run(scenario) == [1]


def test_slow_hook_of_one_peer_does_not_keep_others_waiting(pairing, diary):
    def on_connect(peer):
        if peer.principal.endswith("bob"):
            assert diary.gate.wait(WAIT_S)

    diary.gate.clear()
    pairing.serve(on_connect=on_connect)

    def bob():
        # The server stops as soon as the other one has been served.
        with suppress(ConnectionLost, ReferenceDead, RemoteError):
            pairing.run(use, side="bob")

    waiting = threading.Thread(target=bob)
    waiting.start()
    try:
        pairing.run(use)
    finally:
        diary.gate.set()
        pairing.host.stop(0.0)
        waiting.join()


def test_stop_tells_of_every_peer_that_is_still_there(pairing, diary):
    pairing.serve(**diary.hooks)

    async def scenario(face):
        await use(face)
        stopper = threading.Thread(target=pairing.host.stop, args=(0.0,))
        stopper.start()
        await face.pause(lambda: diary.went)
        if face.is_async:
            await face.pause(lambda: not stopper.is_alive())
        stopper.join()

    pairing.run(scenario)
    assert [(peer is diary.came[0], reason.code) for peer, reason in diary.went] == [(True, "closed")]


def test_connection_that_breaks_is_told_as_lost(pairing, diary):
    pairing.serve(**diary.hooks)

    async def scenario(face):
        await use(face)
        pairing.host.sever()
        await face.pause(diary.gone.is_set)

    pairing.run(scenario)
    pairing.host.stop()
    assert [reason.code for _, reason in diary.went] == ["lost"]


def test_connection_that_ends_while_its_hook_runs_is_told_of_after_it(pairing, diary):
    diary.gate.clear()
    pairing.serve(**diary.hooks)

    async def scenario(face):
        await face.pause(lambda: diary.threads)

    pairing.run(scenario)
    assert not diary.went
    diary.gate.set()
    assert diary.gone.wait(WAIT_S)
    pairing.host.stop()
    assert len(diary.came) == len(diary.went) == 1


def test_hook_that_fails_to_say_goodbye_is_logged_and_nothing_else_ends(pairing, caplog):
    def on_disconnect(_peer, _reason):
        raise RuntimeError("the other system is down")

    pairing.serve(on_disconnect=on_disconnect)
    with caplog.at_level(logging.ERROR, "caprpc"):
        pairing.run(use)
        pairing.run(use)
        pairing.host.stop()
    assert [r.message for r in caplog.records if "on_disconnect" in r.message] == [
        "on_disconnect failed for spiffe://test.example/alice"
    ] * 2


@pytest.mark.parametrize("name", ["on_connect", "on_disconnect"])
def test_hook_that_cannot_be_called_is_refused_before_anything_listens(scene, tmp_path, name, parts):
    with pytest.raises(ConfigurationError, match=f"{name}: {name} is a str"):
        caprpc.Server(
            {"service": parts.methods()}, **scene.server.directories, audit=tmp_path / "audit", **{name: "print"}
        )
