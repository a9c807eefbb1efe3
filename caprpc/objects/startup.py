"""What a process has made to come up is not looked at over and over by Python's garbage collector."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def startup_frozen() -> Iterator[None]:
    """Have full collections pass over everything that exists now; for whoever has the process to himself.

    Modules, policies and certificates are some 40,000 objects. To look at them all stops every thread for 15 to 40 ms,
    several times a second while a peer sends much that lives for a moment.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
