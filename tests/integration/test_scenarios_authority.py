"""Lesser references, their end, and who is told, over every pairing."""

import time

import pytest

import caprpc
from caprpc import ConnectionLost, Denied, ReferenceDead, RemoteError
from caprpc.session import Exports

BOUND_S = 1.0
"""From the call of ``revoke`` to the refusal of the next use, over a connection that is alive (SECURITY.md)."""


def attenuate(face, *args, **terms):
    """Derive with the words of the face's driver."""
    return face((caprpc.aio if face.is_async else caprpc).attenuate(*args, **terms))


def revoke(face, reference):
    return face((caprpc.aio if face.is_async else caprpc).revoke(reference))


def test_lesser_reference_is_enforced_where_the_object_is(pairing):
    async def scenario(face):
        service = await face.root()
        less = await attenuate(
            face, service, only=["echo_int", "same"], args={"echo_int": {"value": {"max": 9}}}, uses=3
        )
        assert await face(less.echo_int(9)) == 9
        with pytest.raises(RemoteError):
            await face(less.echo_int(10))
        with pytest.raises(Denied):
            await face(less.noop())
        leaf = await face(less.same())
        with pytest.raises(Denied):
            await face(leaf.name())
        await face(service.noop())

    pairing.run(scenario)


def test_revoked_reference_and_what_was_obtained_are_refused_within_a_second(pairing):
    async def scenario(face):
        service = await face.root()
        less = await attenuate(face, service)
        leaf, numbers = await face(less.same()), await face(less.items(100_000))
        await face.next(numbers)
        started = time.perf_counter()
        await revoke(face, less)
        with pytest.raises(ReferenceDead, match="revoked"):
            await face(leaf.name())
        took = time.perf_counter() - started
        with pytest.raises(ReferenceDead):
            await face(less.noop())
        with pytest.raises(ReferenceDead):
            await face.list(numbers)
        await face(service.noop())
        return took

    assert pairing.run(scenario) < BOUND_S


def test_ending_one_reference_looks_at_no_other(pairing, monkeypatch):
    """Else revoking one of the peer's references takes the longer, the more of them it holds."""

    def of_all(_exports):
        raise AssertionError("every export was looked at")

    async def scenario(face):
        service = await face.root()
        less = await attenuate(face, service)
        leaf, other = await face(less.same()), await face(service.same())
        with monkeypatch.context() as patched:
            patched.setattr(Exports, "live", of_all)
            await revoke(face, less)
        with pytest.raises(ReferenceDead, match="revoked"):
            await face(leaf.name())
        assert await face(other.name())

    pairing.run(scenario)


def test_revoking_an_object_reaches_its_holder_within_a_second(both, parts):
    """Our side revokes while the peer holds: the next use there is refused."""

    async def scenario(face):
        service = await face.root()
        leaf = parts.leaf("mine")
        await face(service.keep(leaf))
        held = both.service.held
        started = time.perf_counter()
        await revoke(face, leaf)
        while caprpc.describe(held).alive is not False:
            await face(service.noop())
            assert time.perf_counter() - started < BOUND_S
        session = face.peer._connection.link.session
        await face.pause(lambda: len(session.exports) == 0)

    both.run(scenario)


def test_lent_for_a_block(both, parts):
    async def scenario(face):
        service = await face.root()
        if face.is_async:
            async with caprpc.aio.lend(parts.leaf("mine")) as ref:
                await service.keep(ref)
                assert await service.name_of(ref) == "mine"
        else:
            with caprpc.lend(parts.leaf("mine")) as ref:
                service.keep(ref)
                assert service.name_of(ref) == "mine"
        session = face.peer._connection.link.session
        await face.pause(lambda: len(session.exports) == 0)
        assert "(revoked)" in repr(both.service.held)

    both.run(scenario)


def test_principal_loses_everything_at_once(pairing):
    async def scenario(face):
        service = await face.root()
        await face(service.noop())
        (principal,) = {connection.principal for connection in pairing.host.server._connections}
        assert pairing.host.on_loop(lambda: pairing.host.server.revoke("spiffe://test.example/somebody")) == 0
        started = time.perf_counter()
        assert pairing.host.on_loop(lambda: pairing.host.server.revoke(principal)) == 1
        with pytest.raises((ReferenceDead, ConnectionLost)):
            while True:
                await face(service.noop())
        assert time.perf_counter() - started < BOUND_S

    pairing.run(scenario)
    assert any(
        '"kind":"revoke"' in line
        for path in pairing.host.audit.rglob("*.jsonl")
        for line in path.read_text().splitlines()
    )
