"""Large values over TLS, however the ciphertext is cut: the same values, in order, and nothing kept behind them."""

import random
from collections.abc import Iterator

import pytest

from caprpc import Interface, method
from caprpc.limits import KIB, MIB
from caprpc.testing.deployment import Deployment
from caprpc.testing.pair import Pair
from caprpc.wire.frame import SPARE_S

LARGE = random.Random(1).randbytes(MIB)


class Store(Interface):
    @method(effect="read")
    def echo(self, data: bytes) -> bytes: ...

    @method(effect="read")
    def pieces(self, sizes: list[int]) -> Iterator[bytes]: ...

    @method(effect="read")
    def size(self, name: str, data: bytes) -> int: ...


class StoreImpl(Store):
    def echo(self, data):
        return data

    def pieces(self, sizes):
        return (LARGE[:size] for size in sizes)

    def size(self, name, data):
        return len(name) + len(data)


MEMBERS = 'call = ["echo", "pieces", "size"]\niterate = true\n'
SERVER = f"""
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/client"]
[roots]
store = "Store"
[offer.Store]
interface = "Store"
{MEMBERS}
"""
CLIENT = f"""
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Store]
{MEMBERS}
"""


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    deployment = Deployment(tmp_path_factory.mktemp("bulk"))
    return (
        deployment.side("server", {"client": SERVER}, [Store], spiffe="spiffe://test.example/server"),
        deployment.side("client", {"server": CLIENT}, [Store], spiffe="spiffe://test.example/client"),
    )


@pytest.fixture
def pair(sides, tmp_path):
    with Pair(*sides, {"store": StoreImpl()}, audit=tmp_path) as pair:
        yield pair


def cut(end, sizes):
    """Have an end receive its ciphertext in pieces of random sizes."""
    whole = type(end).receive
    rng = random.Random(7)

    def receive(data):
        position = 0
        while position < len(data):
            size = rng.choice(sizes)
            whole(end, data[position : position + size])
            position += size

    end.receive = receive


@pytest.mark.parametrize("sizes", [(MIB,), (256 * KIB,), (16 * KIB, 3, 100), (1000, 50_000, 17_000)])
def test_large_values_survive_any_cut(pair, sizes):
    store = pair.client.root("store", Store)
    cut(pair.client, sizes)
    cut(pair.server, sizes)
    assert store.echo(LARGE) == LARGE
    assert store.echo(b"small") == b"small"
    assert store.size("four", LARGE[: 100 * KIB]) == 100 * KIB + 4
    lengths = [MIB, 70 * KIB, 64 * KIB, 64 * KIB + 1, 5, MIB, 300_000]
    assert [len(piece) for piece in store.pieces(lengths)] == lengths
    assert store.echo(LARGE) == LARGE


def test_results_that_are_kept_are_not_written_over_by_the_next(pair):
    store = pair.client.root("store", Store)
    kept = [store.echo(LARGE[shift:] + LARGE[:shift]) for shift in range(3)]
    assert kept == [LARGE[shift:] + LARGE[:shift] for shift in range(3)]


def test_calls_in_one_flight_with_large_ones_are_answered_in_order(pair):
    store = pair.client.root("store", Store)
    member = type(store).echo.__caprpc_member__
    values = [b"a", LARGE, b"b", LARGE[::-1], LARGE[:-1], b"c"]
    pending = [pair.client.start(store._caprpc_import, member, (value,), {}) for value in values]
    assert [each.result() for each in pending] == values


def test_memory_of_a_large_frame_is_let_go_soon(pair):
    store = pair.client.root("store", Store)
    store.echo(LARGE)
    frames = [end.session.frames for end in (pair.client, pair.server)]
    assert all(each.spare is not None for each in frames)
    assert pair.client.link.deadline() <= pair.now + SPARE_S
    pair.advance(SPARE_S)
    assert [each.spare for each in frames] == [None, None]


def test_broken_record_inside_a_large_frame_ends_the_connection(pair):
    store = pair.client.root("store", Store)
    member = type(store).echo.__caprpc_member__
    pair.client.ask(store._caprpc_import, member, (LARGE,), {})
    first, second, *_ = pair.client.link.data_to_send()
    pair.server.receive(first)
    assert pair.server.session.frames.awaits_bulk
    pair.server.receive(bytes([second[0] ^ 1]) + second[1:])
    assert pair.server.ended is not None
