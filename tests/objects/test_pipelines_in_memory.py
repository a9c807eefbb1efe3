"""``caprpc.pipe`` over an in-memory pair, as tests of services use it."""

import gc

import pytest

import caprpc


def test_steps_run_and_leave_nothing(world):
    w = world()
    assert caprpc.pipe(w.node).fresh().name().result() == "fresh"
    gc.collect()
    assert w.baseline()
    assert not w.pair.server.session.kept


def test_error_of_a_step_is_that_of_its_promise(world):
    w = world()
    step = caprpc.pipe(w.node).kept().name()
    with pytest.raises(caprpc.RemoteError) as caught:
        step.result()
    assert any("the step kept of a pipeline has failed" in note for note in caught.value.__notes__)


def test_result_of_a_promise_is_a_reference(world):
    w = world()
    leaf = caprpc.pipe(w.node, lambda node: node.same()).result()
    assert leaf.name() == "same"
