"""Threads for what may block."""

import threading

import pytest

from caprpc.objects.workers import Workers


def test_a_thread_that_cannot_be_started_counts_for_nothing(monkeypatch):
    """As when memory or the number of threads is short; the next work finds one."""
    workers, ran = Workers(1, "test"), threading.Event()
    with monkeypatch.context() as patch:

        def start(_thread):
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError):
            workers.submit(ran.set)
    workers.submit(ran.set)
    assert ran.wait(10.0)
    assert workers.close(10.0)


def test_nothing_waits_for_work_that_does_not_end():
    workers, gate, began = Workers(1, "test"), threading.Event(), threading.Event()

    def work():
        began.set()
        gate.wait(20.0)

    workers.submit(work)
    assert began.wait(10.0)
    (thread,) = workers._threads
    assert not workers.close(0.0)
    # The interpreter does not join it when it ends.
    assert thread.daemon
    gate.set()
    thread.join(10.0)
    assert not thread.is_alive()
