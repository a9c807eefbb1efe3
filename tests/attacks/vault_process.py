"""The vault in a process of its own, so that what it takes is nobody else's: what its memory is, and how it dies.

``python vault_process.py blocking|aio IDENTITY POLICIES LIMITS``, the limits as JSON. Prints where it listens; for each
line that it reads it prints a line of JSON about itself, and for ``open`` it opens the gate first.
"""

import gc
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

from vault_service import QUICK, Running, Safe

from caprpc.limits import ServerLimits

START_S = 20


class Served(Safe):
    """The vault, with a coroutine function among its methods."""

    async def caller(self):
        return super().caller()


class Alone:
    """Such a process, from outside."""

    def __init__(self, driver, side, limits=QUICK):
        self.side = side
        arguments = [driver, str(side.identity), str(side.policies), json.dumps(asdict(limits))]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.address = self.process.stdout.readline().strip()
        if not self.address:
            self.stop()
            raise RuntimeError("it did not start; standard error says why")

    def ask(self, what="look"):
        """Return what the process says about itself."""
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return SimpleNamespace(**json.loads(self.process.stdout.readline()))

    def stop(self):
        """End it in order, if it lives."""
        with self.process:
            self.process.stdin.close()
            self.process.wait(START_S)


def look(running):
    gc.collect()
    server = running.server
    return {
        "rss": int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        "held": server._admission._quotas.arguments.held,
        "connections": server.health().connections,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "tasks": len(getattr(server, "_tasks", ())),
        "objects": len(gc.get_objects()),
    }


def main(driver, identity, policies, limits):
    side = SimpleNamespace(directories={"identity": identity, "policies": policies})
    vault = Served()
    running = Running(driver, {"vault": vault}, side, ServerLimits(**json.loads(limits)))
    print(running.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "open":
            vault.gate.set()
        # What ran is of no interest here, and would be kept for ever.
        vault.ran.clear()
        print(json.dumps(look(running)), flush=True)
    vault.gate.set()
    running.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
