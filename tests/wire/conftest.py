"""What the tests of the wire share."""

import threading

import pytest
from hypothesis import settings

SMALL_STACK_BYTES = 256 * 1024

# A busy machine is not a finding: time is tested where time is the point.
settings.register_profile("caprpc", deadline=None)
settings.load_profile("caprpc")


@pytest.fixture
def small_stack():
    """Return a function that calls another one on a thread with a small C stack and hands back how it ended."""

    def run(function, *args):
        ended = []

        def target():
            try:
                ended.append((function(*args), None))
            except Exception as exc:
                ended.append((None, exc))

        before = threading.stack_size(SMALL_STACK_BYTES)
        try:
            thread = threading.Thread(target=target)
            thread.start()
        finally:
            threading.stack_size(before)
        thread.join()
        result, error = ended[0]
        if error is not None:
            raise error
        return result

    return run
