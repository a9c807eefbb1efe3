"""Connections as they live and end: loss, drain, reload, concurrency; over every pairing."""

import asyncio
import os
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

import caprpc
import caprpc.aio
from caprpc import ConnectionLost, ConnectRefused, Denied
from caprpc.pki.certificates import Validity
from caprpc.testing.deployment import Deployment


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_blocking_method_does_not_stop_its_connection(pairing):
    async def scenario(face):
        service = await face.root()
        waiting = face.submit(service.wait)
        await face.pause(pairing.service.waiting.is_set)
        session = face.peer._connection.link.session
        assert await face(service.echo_int(5)) == 5
        assert session.asked.open
        pairing.service.gate.set()
        return await face.result(waiting)

    assert pairing.run(scenario) == "open"


def test_sixty_four_calls_in_flight(pairing):
    most = 64

    async def scenario(face):
        service = await face.root()
        waiting = [face.submit(service.wait) for _ in range(most)]
        await face.pause(pairing.service.waiting.is_set)
        session = face.peer._connection.link.session
        assert len(session.asked.open) == most
        assert not session.may_ask(None)
        pairing.service.gate.set()
        return [await face.result(future) for future in waiting]

    assert pairing.run(scenario) == ["open"] * most


def test_cancelled_call_that_waits_its_turn_does_not_run(pairing):
    async def scenario(face):
        service = await face.root()
        waiting = face.submit(service.wait)
        await face.pause(pairing.service.waiting.is_set)
        later = face.submit(service.same)
        later.cancel()
        pairing.service.gate.set()
        assert await face.result(waiting) == "open"
        await face(service.noop())
        session = face.peer._connection.link.session
        await face.pause(lambda: not session.asked.open and len(session.imports) == 1)

    pairing.run(scenario)


def test_connection_that_is_lost_ends_the_call(pairing):
    async def scenario(face):
        service = await face.root()
        waiting = face.submit(service.wait)
        await face.pause(pairing.service.waiting.is_set)
        stopper = threading.Thread(target=pairing.host.stop, args=(0.0,))
        stopper.start()
        with pytest.raises(ConnectionLost):
            await face.result(waiting)
        pairing.service.gate.set()
        with pytest.raises((ConnectionLost, caprpc.ReferenceDead)):
            await face(service.noop())
        if face.is_async:
            await asyncio.to_thread(stopper.join)
        else:
            stopper.join()

    pairing.serve()
    pairing.run(scenario)


def test_answer_that_is_late_is_given_back_and_the_connection_goes_on(pairing, scene, parts):
    if "hasty" not in scene.clients:
        policy = scene.client_policy + "[limits]\ncall_timeout_s = 0.1\n"
        scene.clients["hasty"] = scene.deployment.side(
            "hasty", {"server": policy}, parts.interfaces, spiffe="spiffe://test.example/alice"
        )

    async def scenario(face):
        service = await face.root()
        waiting = face.submit(service.wait_for_leaf)
        with pytest.raises(caprpc.DeadlineExceeded):
            await face(service.wait_for_leaf())
        pairing.service.gate.set()
        waiting.cancel()
        await face(service.noop())
        session = face.peer._connection.link.session
        await face.pause(lambda: not session.asked.open and len(session.imports) == 1)
        await face.pause(lambda: pairing.held_by_peers() == 1)

    pairing.run(scenario, side="hasty")


def test_stopping_server_lets_running_calls_end(pairing):
    async def scenario(face):
        service = await face.root()
        waiting = face.submit(service.wait)
        await face.pause(pairing.service.waiting.is_set)
        stopper = threading.Thread(target=pairing.host.stop, args=(10.0,))
        stopper.start()
        session = face.peer._connection.link.session
        await face.pause(lambda: session.state.value == "peer-draining")
        with pytest.raises(ConnectionLost) as caught:
            await face(service.noop())
        assert caught.value.code == "drain"
        pairing.service.gate.set()
        assert await face.result(waiting) == "open"
        if face.is_async:
            await asyncio.to_thread(stopper.join)
        else:
            stopper.join()

    pairing.serve()
    pairing.run(scenario)


def test_nobody_listens_there(pairing):
    host = pairing.serve()
    host.stop()
    with pytest.raises(ConnectRefused):
        pairing.run(None)


def test_nothing_is_left_behind(pairing):
    async def scenario(face):
        service = await face.root()
        await face(service.noop())
        return await face(service.apply(lambda n: n + 1, 1))

    pairing.serve()
    pairing.run(scenario)
    before = descriptors()
    for _ in range(3):
        assert pairing.run(scenario) == 2
    end = time.monotonic() + 10
    while descriptors() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert descriptors() <= before


@pytest.mark.parametrize("kind", ["blocking", "aio"])
def test_many_threads_share_one_connection(kind, scene, tmp_path, parts, request):
    from contextlib import ExitStack

    service = parts.methods()
    with ExitStack() as stack:
        pairing = request.getfixturevalue("make_pairing")(kind, "blocking", service)
        host = pairing.serve()
        peer = stack.enter_context(
            caprpc.connect(host.address, **scene.clients["alice"].directories, audit=tmp_path / "c")
        )
        root = peer.root("service", parts.service)
        wrong = []

        def work(thread):
            for n in range(200):
                value = thread * 1_000 + n
                try:
                    got = root.apply(lambda x: x + 1, value) if n % 10 == 0 else root.echo_int(value) + 1
                except Exception as exc:
                    wrong.append(exc)
                    return
                if got != value + 1:
                    wrong.append((value, got))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(peer._connection.link.session.exports) == 0


@pytest.mark.parametrize("kind", ["blocking", "aio"])
def test_two_hundred_tasks_share_one_connection(kind, parts, make_pairing):
    pairing = make_pairing(kind, "aio", parts.methods())

    async def scenario(face):
        service = await face.root()

        async def work(n):
            if n % 10 == 0:
                return await service.apply(lambda x: x, n)
            if n % 10 == 1:
                leaf = await service.same()
                return n if await leaf.name() == "own" else -1
            return await service.echo_int(n)

        return await asyncio.gather(*(work(n) for n in range(200)))

    assert pairing.run(scenario) == list(range(200))


@pytest.fixture
def own_scene(tmp_path, scene):
    """Directories that a test may change."""
    made = type(scene).__new__(type(scene))
    type(scene).__init__(made, tmp_path / "sides")
    return made


@pytest.fixture
def make_pairing(scene, tmp_path):
    """Return a maker of pairings that are closed in the end."""
    made = []

    def make(server_kind, client_kind, service, directories=None):
        pairing = pairing_class(scene)(server_kind, client_kind, directories or scene, tmp_path / str(len(made)))
        pairing.service = service
        made.append(pairing)
        return pairing

    yield make
    for pairing in made:
        pairing.close()


def pairing_class(scene):
    return scene.pairing


KINDS = [("blocking", "aio"), ("aio", "blocking")]


@pytest.mark.parametrize("kinds", KINDS, ids=str)
def test_reload_narrows_references_that_are_out_at_once(kinds, own_scene, make_pairing, parts):
    pairing = make_pairing(*kinds, parts.methods(), own_scene)

    async def scenario(face):
        service = await face.root()
        assert await face(service.echo_int(1)) == 1
        narrowed = own_scene.policies["alice"].replace('"echo_int", ', "")
        own_scene.rewrite({"alice": narrowed, "bob": own_scene.policies["bob"]}, 2)
        await asyncio.to_thread(pairing.host.reload) if face.is_async else pairing.host.reload()
        with pytest.raises(Denied):
            await face(service.echo_int(1))
        assert await face(service.echo_str("x")) == "x"

    pairing.serve()
    pairing.run(scenario)


@pytest.mark.parametrize("kinds", KINDS, ids=str)
def test_policy_that_is_taken_away_ends_the_connection(kinds, own_scene, make_pairing, parts):
    pairing = make_pairing(*kinds, parts.methods(), own_scene)

    async def scenario(face):
        service = await face.root()
        own_scene.rewrite({"bob": own_scene.policies["bob"]}, 2)
        await asyncio.to_thread(pairing.host.reload) if face.is_async else pairing.host.reload()
        session = face.peer._connection.link.session
        with suppress(ConnectionLost, caprpc.ReferenceDead):
            for _ in range(100):
                await face(service.noop())
        assert session.state.value == "closed"

    pairing.serve()
    pairing.run(scenario)
    with pytest.raises(ConnectRefused):
        pairing.run(None)


@pytest.mark.parametrize("kinds", KINDS, ids=str)
def test_wrong_policy_is_refused_and_the_last_good_one_stays(kinds, own_scene, make_pairing, parts):
    pairing = make_pairing(*kinds, parts.methods(), own_scene)

    async def scenario(face):
        service = await face.root()
        own_scene.rewrite(
            {"alice": own_scene.policies["alice"] + "\nnonsense = 1\n", "bob": own_scene.policies["bob"]}, 2
        )
        with pytest.raises(caprpc.ConfigurationError):
            await asyncio.to_thread(pairing.host.reload) if face.is_async else pairing.host.reload()
        return await face(service.echo_int(3))

    pairing.serve()
    assert pairing.run(scenario) == 3


@pytest.mark.parametrize("kinds", KINDS, ids=str)
def test_revoked_certificate_ends_its_connection_at_the_reload(kinds, own_scene, make_pairing, parts):
    pairing = make_pairing(*kinds, parts.methods(), own_scene)

    async def scenario(face):
        service = await face.root()
        own_scene.deployment.revoke("alice", own_scene.server)
        await asyncio.to_thread(pairing.host.reload) if face.is_async else pairing.host.reload()
        with suppress(ConnectionLost, caprpc.ReferenceDead):
            for _ in range(100):
                await face(service.noop())
        assert face.peer._connection.link.session.state.value == "closed"

    pairing.serve()
    pairing.run(scenario)
    with pytest.raises(ConnectRefused):
        pairing.run(None)
    assert pairing.run(_principal, side="bob") == "spiffe://test.example/bob"


async def _principal(face):
    return await face((await face.root()).principal())


EVERY_PAIRING = [*KINDS, ("blocking", "blocking"), ("aio", "aio")]
REVOKED_WITHIN_S = 10.0
"""A bound for a loaded machine; the list is looked at once a second."""


@pytest.fixture
def revoked(own_scene):
    side = own_scene.server
    path = side.policies.parent / "REVOKED"
    path.write_text("# nobody\n")
    path.chmod(0o600)
    index = side.policies / "caprpc.toml"
    index.write_text(index.read_text().replace("version = 1\n", 'version = 2\nrevoked = "../REVOKED"\n'))
    return path


async def _pause(face, seconds):
    if face.is_async:
        await asyncio.sleep(seconds)
    else:
        time.sleep(seconds)


@pytest.mark.parametrize("damage", ["listed", "unreadable"])
@pytest.mark.parametrize("kinds", EVERY_PAIRING, ids=str)
def test_whoever_is_put_on_the_list_is_out_soon_and_stays_out(kinds, damage, own_scene, make_pairing, parts, revoked):
    pairing = make_pairing(*kinds, parts.methods(), own_scene)

    async def scenario(face):
        service = await face.root()
        await face(service.noop())
        if damage == "listed":
            revoked.write_text("spiffe://test.example/alice\n")
        else:
            revoked.unlink()
        end = time.monotonic() + REVOKED_WITHIN_S
        with suppress(ConnectionLost, caprpc.ReferenceDead, caprpc.Denied):
            while time.monotonic() < end:
                await face(service.noop())
                await _pause(face, 0.02)
        while face.peer._connection.link.session.state.value != "closed" and time.monotonic() < end:
            await _pause(face, 0.02)
        assert face.peer._connection.link.session.state.value == "closed"

    pairing.serve()
    pairing.run(scenario)
    with pytest.raises(ConnectRefused):
        pairing.run(None)
    if damage == "listed":
        assert pairing.run(_principal, side="bob") == "spiffe://test.example/bob"
    else:
        with pytest.raises(ConnectRefused):
            pairing.run(None, side="bob")
    facts = pairing.host.records()
    event = "revoked-read" if damage == "listed" else "revoked-unreadable"
    assert [fact["event"] for fact in facts if fact["kind"] == "revoke" and "event" in fact] == [event]
    assert any(fact["kind"] == "close" and fact["reason"] == "revoked" for fact in facts)
    assert any(fact["kind"] == "reject" and fact["reason"] == "revoked-list" for fact in facts)


@pytest.mark.parametrize("kinds", KINDS, ids=str)
def test_expired_certificate_is_refused(kinds, own_scene, make_pairing, parts):
    pairing = make_pairing(*kinds, parts.methods(), own_scene)
    now = datetime.now(UTC)
    own_scene.deployment.reissue(
        "alice", own_scene.clients["alice"], Validity(now - timedelta(days=2), now - timedelta(hours=1))
    )
    pairing.serve()
    with pytest.raises((ConnectRefused, caprpc.ConfigurationError)):
        pairing.run(None)


@pytest.mark.parametrize("kinds", KINDS, ids=str)
def test_peer_of_another_authority_is_refused_with_a_number(kinds, own_scene, make_pairing, parts, tmp_path):
    pairing = make_pairing(*kinds, parts.methods(), own_scene)
    other = Deployment(tmp_path / "other")
    other.trust(own_scene.deployment)
    policies = {"server": own_scene.client_policy.replace("@CA@", own_scene.deployment.ca.fingerprint)}
    own_scene.clients["mallory"] = other.side(
        "mallory", policies, parts.interfaces, spiffe="spiffe://test.example/alice"
    )
    pairing.serve()
    with pytest.raises(ConnectRefused):
        pairing.run(None, side="mallory")
    end = time.monotonic() + 10
    while not (rejects := [r for r in pairing.host.records() if r["kind"] == "reject"]) and time.monotonic() < end:
        time.sleep(0.01)
    assert len(rejects) == 1


@pytest.mark.parametrize("kinds", KINDS, ids=str)
def test_peer_without_a_policy_is_refused_with_a_number_that_the_log_explains(kinds, own_scene, make_pairing, parts):
    pairing = make_pairing(*kinds, parts.methods(), own_scene)
    own_scene.add_stranger()
    pairing.serve()
    with pytest.raises(ConnectRefused) as caught:
        pairing.run(None, side="stranger")
    (reject,) = [record for record in pairing.host.records() if record["kind"] == "reject"]
    assert (reject["reason"], reject["reference"]) == ("no-policy", caught.value.reference)


@pytest.mark.parametrize("kind", ["blocking", "aio"])
def test_result_that_many_threads_ask_for_is_counted_once(kind, parts, make_pairing):
    pairing = make_pairing(kind, "blocking", parts.methods())

    async def scenario(face):
        service = await face.root()
        for _ in range(20):
            future = face.submit(service.table)
            got = []
            threads = [threading.Thread(target=lambda f=future, g=got: g.append(f.result(10))) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len({id(table) for table in got}) == 1
            assert got[0]._caprpc_import.count == pairing.held_by_peers() - 1 == 1
            del future, got, threads, thread
            await face(service.noop())
            await face.pause(lambda: pairing.held_by_peers() == 1)

    pairing.run(scenario)


def test_peer_says_who_and_where_it_is(pairing):
    async def scenario(face):
        return repr(face.peer), face.peer

    text, peer = pairing.run(scenario)
    assert text == repr(peer) == f"<peer spiffe://test.example/server at {pairing.host.address}>"
