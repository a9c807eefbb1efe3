"""What a peer may do with chunks, from either end: too long, empty for ever, given up, or more than fits."""

import pytest

from caprpc import ConnectionLost, IteratorBusy, ReferenceDead, prefetch
from caprpc.errors import RemoteProtocolError
from caprpc.ids import OP_NEXT
from caprpc.interface.iteration import ItemsLost, IteratorServer
from caprpc.objects.chunks import keep_for_later
from caprpc.objects.iteration import EMPTY_CHUNKS


def served(world):
    """Return the iterator that the server has exported."""
    return world.sessions[1].exports.live()[-1].obj


@pytest.mark.parametrize("items", [33, 5000])
def test_a_chunk_longer_than_asked_for_ends_the_connection(world, monkeypatch, items):
    here = world()
    iterator = prefetch(here.node.count(10), items=32)
    monkeypatch.setattr(IteratorServer, "_deliver", lambda _self, _items, _bytes: ([0] * items, False))
    with pytest.raises(RemoteProtocolError, match=f"{items} items, 32 asked for"):
        next(iterator)
    here.pair.advance(1)
    assert here.pair.client.ended.code == "protocol-error"
    with pytest.raises((ConnectionLost, ReferenceDead)):
        here.node.same()


def test_empty_chunks_without_end_end_the_connection(world, monkeypatch):
    here = world()
    iterator = here.node.count(10)
    pulls = []
    monkeypatch.setattr(IteratorServer, "_deliver", lambda _self, *caps: pulls.append(caps) or ([], False))
    with pytest.raises(RemoteProtocolError, match="empty chunks"):
        next(iterator)
    assert len(pulls) == EMPTY_CHUNKS + 1
    here.pair.advance(1)
    assert here.pair.client.ended.code == "protocol-error"


def test_a_few_empty_chunks_are_nothing(world, monkeypatch):
    here = world()
    iterator = here.node.count(3)
    deliver, left = IteratorServer._deliver, [EMPTY_CHUNKS]

    def sometimes(self, *caps):
        left[0] -= 1
        return ([], False) if left[0] >= 0 else deliver(self, *caps)

    monkeypatch.setattr(IteratorServer, "_deliver", sometimes)
    assert list(iterator) == [0, 1, 2]


@pytest.mark.parametrize(("items", "size"), [(0, 10), (10, 0), (-1, 10), (10, -(2**53))])
def test_sizes_below_one_are_refused_as_arguments(world, items, size):
    here = world()
    iterator = here.node.count(10)
    member = iterator._caprpc_shape.members[OP_NEXT, ""]
    question = here.pair.client.ask(iterator._caprpc_import, member, (items, size), {})
    here.pair.run()
    assert question.outcome.code == "invalid-arguments"
    assert "at least 1" in question.outcome.text
    assert list(iterator) == list(range(10))


def test_choosing_is_for_iterators_of_peers_and_for_sizes(world):
    here = world()
    iterator = here.node.count(10)
    with pytest.raises(TypeError, match="iterator of a peer"):
        prefetch(iter([1]))
    for wrong in (0, -1, True, 1.5):
        with pytest.raises(ValueError, match="at least 1"):
            prefetch(iterator, items=wrong)
        with pytest.raises(ValueError, match="at least 1"):
            prefetch(iterator, bytes=wrong)


def test_a_chunk_pulled_for_a_call_that_is_over_is_given_again(world):
    here = world()
    iterator = here.node.count(10)
    here.pair.server.holds = True
    member = iterator._caprpc_shape.members[OP_NEXT, ""]
    question = here.pair.client.ask(iterator._caprpc_import, member, (4, 1000), {})
    here.pair.run()
    # Its time is over while it runs: nobody gets what it returns.
    here.pair.server.session.answers.pop(question.question_id)
    here.pair.server.run_job(here.pair.server.jobs.popleft())
    here.pair.server.holds = False
    assert list(iterator) == list(range(10))


def test_a_chunk_that_cannot_be_given_back_is_not_passed_over():
    server = IteratorServer(iter(range(10)))
    chunk = server.pull(4, 1000)
    with server._turn:
        with pytest.raises(IteratorBusy):
            server.put_back(chunk[0])
        keep_for_later(server, chunk)
    with pytest.raises(ItemsLost):
        server.pull(4, 1000)


def test_ten_iterators_that_nobody_pulls_hold_nothing_but_their_exports(world):
    here = world()
    held = [here.node.count(1_000_000) for _ in range(10)]
    assert len(here.sessions[1].exports) == 11
    assert all(export.obj._pending == [] for export in here.sessions[1].exports.live() if hasattr(export.obj, "pull"))
    held.clear()
    here.pair.run()
    assert here.baseline()
