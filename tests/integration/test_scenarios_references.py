"""References, iteration and callbacks, over every pairing."""

import asyncio
import gc

import pytest

import caprpc.aio
from caprpc import LimitExceeded, ReferenceDead, RemoteError
from caprpc.limits import DEFAULT_LIMITS


def test_ten_thousand_items(pairing):
    async def scenario(face):
        service = await face.root()
        return await face.list(await face(service.items(10_000)))

    assert pairing.run(scenario) == list(range(10_000))


def test_iterators_end_where_they_end(pairing):
    async def scenario(face):
        service = await face.root()
        for n in (0, 1, 31, 32, 33, 100):
            assert await face.list(await face(service.items(n))) == list(range(n))
        half = await face(service.items(50))
        taken = [await face.next(half) for _ in range(20)]
        assert taken + await face.list(half) == list(range(50))
        assert await face.next(half) is face.END

    pairing.run(scenario)


def test_error_of_a_source_comes_after_the_items_before_it(both):
    async def scenario(face):
        service = await face.root()
        iterator = await face(service.failing_items(100))
        got = [await face.next(iterator) for _ in range(100)]
        with pytest.raises(RemoteError) as caught:
            await face.next(iterator)
        assert caught.value.code == "internal"
        return got

    assert both.run(scenario) == list(range(100))


def test_closing_early_closes_the_generator(pairing):
    async def scenario(face):
        service = await face.root()
        iterator = await face(service.generated())
        assert [await face.next(iterator) for _ in range(3)] == [0, 1, 2]
        await face.close(iterator)
        await face.close(iterator)

    pairing.run(scenario)
    assert pairing.service.closed.wait(5)


def test_dropped_iterator_is_released(pairing):
    async def scenario(face):
        service = await face.root()
        for _ in range(20):
            await face(service.items(1))
        gc.collect()
        await face(service.noop())
        session = face.peer._connection.link.session
        await face.pause(lambda: len(session.imports) == 1)

    pairing.run(scenario)


def test_result_that_nobody_asks_for_is_given_back(pairing):
    async def scenario(face):
        service = await face.root()
        for _ in range(5):
            face.submit(service.table)
        await face(service.noop())
        gc.collect()
        await face(service.noop())
        await face.pause(lambda: pairing.held_by_peers() == 1)
        assert len(face.peer._connection.link.session.imports) == 1

    pairing.run(scenario)


def nested(face, service, depths):
    """Return a callback that calls the peer, which calls it again."""
    if not face.is_async:

        def down(value):
            depths.append(value)
            return value if value == 0 else service.apply(down, value - 1)

        return down

    async def down(value):
        depths.append(value)
        return value if value == 0 else await service.apply(down, value - 1)

    return down


def test_callbacks_nest_to_the_limit_and_not_beyond(both):
    most = DEFAULT_LIMITS.callback_depth

    async def scenario(face):
        service = await face.root()
        depths = []
        down = nested(face, service, depths)
        # A call and its callback are two floors of nesting; the first call is floor 0.
        assert await face(service.apply(down, most // 2 - 1)) == 0
        assert depths == list(range(most // 2 - 1, -1, -1))
        with pytest.raises((RemoteError, LimitExceeded)):
            await face(service.apply(down, most // 2 + 1))
        assert await face(service.apply(down, 2)) == 0

    both.run(scenario)


def test_error_of_a_callback_is_internal_to_the_peer_and_to_us(both):
    def function(value):
        raise ValueError("a secret of the client")

    async def scenario(face):
        service = await face.root()
        with pytest.raises(RemoteError) as caught:
            await face(service.apply(function, 1))
        return str(caught.value)

    assert "secret" not in both.run(scenario)


def test_lent_file_is_dead_after_the_call_on_both_sides(both, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("a\nb\n", encoding="utf-8")

    async def scenario(face):
        service = await face.root()
        with text.open(encoding="utf-8") as file:
            await face(service.keep_file(file))
            with pytest.raises(RemoteError):
                await face(service.read_kept_file())
            assert file.readline() == "a\n"
        session = face.peer._connection.link.session
        assert len(session.exports) == 0

    both.run(scenario)
    assert "(dead)" in repr(both.service.file)


def test_object_lent_for_the_connection_lives_until_it_is_let_go(both, parts):
    async def scenario(face):
        service = await face.root()
        leaf = parts.leaf("mine")
        await face(service.keep(leaf))
        assert await face(service.kept()) is leaf
        assert await face(service.name_of(leaf)) == "mine"
        session = face.peer._connection.link.session
        assert len(session.exports) == 1
        both.service.held = None
        gc.collect()
        await face(service.noop())
        await face.pause(lambda: len(session.exports) == 0)

    both.run(scenario)


def test_own_object_comes_home_as_itself_and_theirs_goes_home_as_itself(pairing, parts):
    async def scenario(face):
        service = await face.root()
        theirs = await face(service.same())
        assert await face(service.same()) is theirs
        assert await face(service.is_own(theirs)) is True
        assert await face(theirs.name()) == "own"

    pairing.run(scenario)


def test_released_reference_is_dead(pairing):
    async def scenario(face):
        service = await face.root()
        leaf = await face(service.same())
        face.release(leaf)
        with pytest.raises(ReferenceDead):
            await face(leaf.name())
        again = await face(service.same())
        assert again is not leaf
        assert await face(again.name()) == "own"

    pairing.run(scenario)


def test_references_are_dead_after_the_connection(pairing):
    async def scenario(face):
        service = await face.root()
        return service, await face(service.same())

    service, leaf = pairing.run(scenario)
    for reference, call in ((service, "noop"), (leaf, "name")):
        assert "(dead)" in repr(reference)
        with pytest.raises((ReferenceDead, RuntimeError)):
            getattr(reference, call)()


def test_indexing_length_containment_and_contexts(pairing):
    async def scenario(face):
        table = await face((await face.root()).table())
        assert await face(table["a"]) == 1
        if face.is_async:
            assert await caprpc.aio.length(table) == 2
            assert await caprpc.aio.contains(table, "a")
            assert not await caprpc.aio.contains(table, "z")
            await caprpc.aio.set_item(table, "z", 26)
            assert await table["z"] == 26
            async with table as entered:
                assert entered == 7
            with pytest.raises(ValueError, match="of ours"):
                async with table:
                    raise ValueError("of ours")
            assert [key async for key in table] == ["a", "b", "z"]
        else:
            assert len(table) == 2
            assert "a" in table
            assert "z" not in table
            table["z"] = 26
            assert table["z"] == 26
            with table as entered:
                assert entered == 7
            with pytest.raises(ValueError, match="of ours"), table:
                raise ValueError("of ours")
            assert list(table) == ["a", "b", "z"]
        with pytest.raises(RemoteError):
            await face(table["absent"])

    pairing.run(scenario)
    assert pairing.service.tables.inside == ["enter", "exit", "enter", "failed"]


def test_stub_shows_its_members_and_sends_nothing_for_looking(pairing):
    import copy
    import pickle

    async def scenario(face):
        service = await face.root()
        sent = face.peer._connection.link.session.asked.count
        assert "noop" in dir(service)
        assert "hidden" not in dir(service)
        assert service == service
        assert service
        assert "reference to Service" in repr(service)
        for refused in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                refused(service)
        with pytest.raises(AttributeError):
            service.no_such_member
        assert face.peer._connection.link.session.asked.count == sent

    pairing.run(scenario)


def test_coalesced_calls_are_sent_together(scene, tmp_path, parts):
    from contextlib import ExitStack

    with ExitStack() as stack:
        server = caprpc.Server({"service": parts.methods()}, **scene.server.directories, audit=tmp_path / "s")
        address = server.listen("127.0.0.1:0")
        stack.enter_context(server)
        peer = stack.enter_context(caprpc.connect(address, **scene.clients["alice"].directories, audit=tmp_path / "c"))
        service = peer.root("service", parts.service)
        with peer.coalesce():
            futures = [caprpc.submit(service.echo_int, n) for n in range(50)]
            assert peer._connection.link.session.wants_to_send
        assert [future.result(5) for future in futures] == list(range(50))


def test_callback_that_the_answer_overtakes_still_runs_and_is_answered(make_hurried):
    """The peer calls us and answers without waiting for what it called."""
    pairing, heard = make_hurried
    pairing.run(_hurry(heard))
    assert heard == [7] * 10


def _hurry(heard):
    async def scenario(face):
        service = await face.root()
        for _ in range(10):
            await face(service.apply(lambda n: heard.append(n) or n, 7))
        await face(service.noop())
        session = face.peer._connection.link.session
        await face.pause(lambda: not session.answers)

    return scenario


@pytest.fixture(params=[("blocking", "blocking"), ("aio", "blocking"), ("aio", "aio")], ids=str)
def make_hurried(request, scene, tmp_path, parts):
    """Return a pairing whose server calls back and does not wait."""

    class Hurried(parts.coroutines):
        async def apply(self, function, value):
            # Sent, and kept until it has ended; the answer goes out before.
            self.calling = asyncio.ensure_future(function(value))
            await asyncio.sleep(0)
            return 0

    pairing = scene.pairing(*request.param, scene, tmp_path, Hurried)
    yield pairing, []
    pairing.close()
