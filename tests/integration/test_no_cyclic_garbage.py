"""What a call or a reference needs is freed when it ends, and does not wait for Python's cyclic garbage collector.

That would stop a server, and everybody on it, whenever a peer has had it make enough of it: 25 ms and more, measured
beside a peer that sends references.
"""

import gc
from collections import Counter

import pytest

import caprpc
import caprpc.aio
from caprpc import ReferenceDead, RemoteError
from tests.integration.conftest import LeafImpl, Rejected  # the classes that the conftest has made

TIMES = 40
FEW = TIMES // 4
"""So many objects may be garbage afterwards: what happens once, as at a first call."""


def api(face):
    return caprpc.aio if face.is_async else caprpc


async def plain(face, service):
    await face(service.noop())


async def values(face, service):
    await face(service.echo({"a": [1, 2.5, "x"], "b": (b"y", None)}))


async def declared_error(face, service):
    with pytest.raises(Rejected):
        await face(service.reject("no"))


async def other_error(face, service):
    with pytest.raises(RemoteError):
        await face(service.break_down("no"))


async def refused(face, service):
    with pytest.raises(RemoteError):
        await face(service.hidden())


async def refused_argument(face, service):
    with pytest.raises(RemoteError):
        await face(service.short("much too long"))


async def reference_back(face, service):
    await face((await face(service.same())).name())


async def reference_home(face, service):
    assert await face(service.is_own(await face(service.same())))


async def lent(face, service):
    assert await face(service.name_of(LeafImpl("mine"))) == "mine"


async def kept(face, service):
    await face(service.keep(LeafImpl("mine")))


async def callback(face, service):
    assert await face(service.apply(lambda value: value + 1, 1)) == 2


async def iterator_to_its_end(face, service):
    assert len(await face.list(await face(service.items(100)))) == 100


async def iterator_closed(face, service):
    items = await face(service.items(10_000))
    assert await face.next(items) == 0
    await face.close(items)


async def iterator_that_fails(face, service):
    with pytest.raises(RemoteError):
        await face.list(await face(service.failing_items(3)))


async def released(face, service):
    face.release(await face(service.same()))


async def dead_reference(face, service):
    leaf = await face(service.same())
    face.release(leaf)
    with pytest.raises(ReferenceDead):
        await face(leaf.name())


async def future(face, service):
    assert await face.result(face.submit(service.echo_int, 3)) == 3


async def future_that_fails(face, service):
    made = face.submit(service.reject, "no")
    try:
        with pytest.raises(Rejected):
            await face.result(made)
    finally:
        del made


async def cancelled(face, service):
    made = face.submit(service.items, 1)
    made.cancel()
    await face(service.noop())


async def batch(face, service):
    calls = [(service.echo_int, (1,)), (service.reject, ("no",)), (service.echo_int, (2,))]
    results = await face.batch(calls)
    assert (results[0], type(results[1]), results[2]) == (1, Rejected, 2)


async def pipeline(face, service):
    step = api(face).pipe(service).same().name()
    assert (await step if face.is_async else step.result()) == "own"


async def pipeline_that_fails(face, service):
    step = api(face).pipe(service).kept().name()
    try:
        with pytest.raises(RemoteError):
            await step if face.is_async else step.result()
    finally:
        del step


async def one_way(face, service):
    await face(api(face).oneway(service.note, 1))
    await face(service.noop())


async def in_time(face, service):
    with caprpc.deadline(30.0):
        await face(service.noop())


async def context(face, service):
    table = await face(service.table())
    if face.is_async:
        async with table:
            pass
    else:
        with table:
            pass


async def attenuated(face, service):
    leaf = await face(service.same())
    narrow = await face(api(face).attenuate(leaf, only=["name"]))
    assert await face(narrow.name())


async def revoked(face, service):
    own = LeafImpl("mine")
    await face(service.keep(own))
    await face(api(face).revoke(own))


DEEDS = [
    plain,
    values,
    declared_error,
    other_error,
    refused,
    refused_argument,
    reference_back,
    reference_home,
    lent,
    kept,
    callback,
    iterator_to_its_end,
    iterator_closed,
    iterator_that_fails,
    released,
    dead_reference,
    future,
    future_that_fails,
    cancelled,
    batch,
    pipeline,
    pipeline_that_fails,
    one_way,
    in_time,
    context,
    attenuated,
    revoked,
]


@pytest.mark.parametrize("deed", DEEDS)
def test_it_leaves_no_garbage_to_collect(deed, pairing):
    found = Counter()

    async def scenario(face):
        service = await face.root()
        for _ in range(5):
            await deed(face, service)
        gc.collect()
        gc.disable()
        try:
            for _ in range(TIMES):
                await deed(face, service)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()

            found.update(type(item).__name__ for item in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
            gc.collect()

    pairing.run(scenario)
    assert found.total() <= FEW, found.most_common(12)
