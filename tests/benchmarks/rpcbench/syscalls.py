"""System calls of a process for each operation, counted by ``strace``."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

_ATTACH_S: Final = 10.0
_ROWS: Final = 8


def available() -> bool:
    """Whether system calls can be counted here."""
    return shutil.which("strace") is not None


@contextmanager
def counting(pid: int, destination: Path) -> Iterator[None]:
    """Count the system calls of a process and its threads meanwhile; write the table at the end."""
    tracer = subprocess.Popen(
        ["strace", "-f", "-c", "-U", "calls,name", "-p", str(pid), "-o", str(destination)], stderr=subprocess.PIPE
    )
    try:
        if tracer.stderr is not None:
            # It says when it has attached.
            tracer.stderr.readline()
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=_ATTACH_S)


def parse(table: str) -> dict[str, int]:
    """Return how often each system call was made, from what ``strace -c -U calls,name`` writes."""
    rows = (line.split() for line in table.splitlines())
    return {row[1]: int(row[0]) for row in rows if len(row) == 2 and row[0].isdigit() and row[1] != "total"}


def print_counts(path: Path, title: str, operations: int, out: TextIO) -> None:
    """Print the most frequent system calls, for each operation."""
    counts = sorted(parse(path.read_text(encoding="ascii")).items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {count / operations:.2f}" for name, count in counts[:_ROWS])
    out.write(f"\n{title}: system calls for each of {operations} operations (warm-up is in it)\n  {shown}\n")
