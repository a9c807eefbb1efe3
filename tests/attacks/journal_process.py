"""A service that writes down what it does, in a process of its own that is killed.

``python journal_process.py blocking|aio IDENTITY POLICIES ADDRESS JOURNAL``; prints where it listens.
"""

import os
import sys
from types import SimpleNamespace

from vault_service import QUICK, Running

from caprpc import Interface, method


class Journal(Interface):
    @method(effect="write")
    def put(self, number: int) -> int: ...


class WrittenJournal(Journal):
    """Each entry is with the kernel before its caller is answered: the death of the process does not take it back."""

    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def put(self, number):
        os.write(self._file, b"%d\n" % number)
        return number


def main(driver, identity, policies, address, journal):
    side = SimpleNamespace(directories={"identity": identity, "policies": policies})
    running = Running(driver, {"journal": WrittenJournal(journal)}, side, QUICK, listen=address)
    print(running.address, flush=True)
    sys.stdin.read()
    running.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
