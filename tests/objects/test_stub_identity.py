"""One import may have several faces: each is kept while somebody holds it, and only the last one gives it back."""

import gc

from caprpc.objects.stubs import Flavor
from caprpc.objects.transfer import StubMaker


class Faces:
    """A caller as the drivers have it: one way to call for each flavor."""

    def call(self, *_args):
        raise AssertionError("nothing is called here")

    def call_async(self, *_args):
        raise AssertionError("nothing is called here")


def test_blocking_and_async_face_of_one_import_are_both_kept(world):
    w = world()
    client = w.sessions[0]
    real = w.node.same()
    imported, shape = real._caprpc_import, real._caprpc_shape
    maker = StubMaker(Faces())
    blocking = maker.stub(imported, shape, Flavor.BLOCKING)
    awaiting = maker.stub(imported, shape, Flavor.ASYNC)
    assert maker.stub(imported, shape, Flavor.BLOCKING) is blocking
    assert maker.stub(imported, shape, Flavor.ASYNC) is awaiting
    del real, awaiting
    gc.collect()
    w.pair.run()
    assert client.imports.get(imported.export_id) is imported
    assert maker.stub(imported, shape, Flavor.BLOCKING) is blocking
    del blocking
    gc.collect()
    w.pair.run()
    assert client.imports.get(imported.export_id) is None


def test_release_of_what_was_lent_for_a_call_does_not_outlive_the_call(world):
    """A RELEASE that left after the answer would break the protocol: the other side has forgotten the number."""
    w = world()

    def borrow(leaf):
        name = leaf.name()
        w.sessions[1].imports.release_now(leaf._caprpc_import)
        return name

    type(w.impl).borrow, old = (lambda _self, leaf: borrow(leaf)), type(w.impl).borrow
    try:
        assert w.node.borrow(w.Leaves("mine")) == "mine"
        w.pair.run()
    finally:
        type(w.impl).borrow = old
    assert w.pair.client.ended is None
    assert w.baseline()
