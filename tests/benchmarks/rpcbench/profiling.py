"""Where the time goes: cProfile on every thread of a process, and a table of both sides."""

import cProfile
import pstats
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final, TextIO

from rpcbench.groups import by_group

_ROWS: Final = 30


@contextmanager
def all_threads(destination: Path) -> Iterator[None]:
    """Profile the calling thread, and every thread started meanwhile; write their merged statistics at the end.

    From Python 3.12 on one profile covers all threads by itself, and a second one is refused.
    """
    profiles = [_profile()]

    def begin(frame: FrameType, event: str, argument: object) -> None:
        sys.setprofile(None)
        profile = _profile()
        profiles.append(profile)
        profile.enable()

    if sys.version_info < (3, 12):
        threading.setprofile(begin)
    profiles[0].enable()
    try:
        yield
    finally:
        profiles[0].disable()
        threading.setprofile(None)
        merged = pstats.Stats(profiles[0])
        for profile in profiles[1:]:
            profile.create_stats()
            if profile.stats:
                merged.add(profile)
        merged.dump_stats(destination)


def _profile() -> cProfile.Profile:
    """A profile of CPU time where it has a thread to itself: waiting for the other side is not work."""
    if sys.version_info < (3, 12):
        return cProfile.Profile(time.thread_time_ns, 1e-9)
    else:
        return cProfile.Profile()


def print_profile(path: Path, title: str, operations: int, out: TextIO) -> None:
    """Print the groups of functions, and the functions that took most time themselves, in microseconds an operation."""
    stats = pstats.Stats(str(path))
    places = stats.stats.items()  # type: ignore[attr-defined]
    rows = sorted(((own, total, calls, place) for place, (_, calls, own, total, _) in places), reverse=True)
    out.write(f"\n{title}: microseconds for each of {operations} operations\n")
    out.write("(warm-up and the profiler's own cost are in it)\n")
    out.write(f"{'own':>9} {'calls/op':>9}  group\n")
    for own, calls, group in by_group((place, own, calls) for own, _, calls, place in rows):
        out.write(f"{own / operations * 1e6:9.2f} {calls / operations:9.2f}  {group}\n")
    out.write(f"{'own':>9} {'with callees':>13} {'calls/op':>9}  function\n")
    for own, total, calls, (file, line, name) in rows[:_ROWS]:
        place = name if file == "~" else f"{'/'.join(Path(file).parts[-2:])}:{line} {name}"
        out.write(
            f"{own / operations * 1e6:9.2f} {total / operations * 1e6:13.2f} {calls / operations:9.2f}  {place}\n"
        )
