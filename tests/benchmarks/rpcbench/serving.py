"""The server process: ``python -m rpcbench.serving PEER SITE [--core N] [--profile FILE]``."""

import argparse
import os
import signal
import sys
from pathlib import Path

from rpcbench import processes, profiling
from rpcbench.peers import registry
from rpcbench.site import Site


def main() -> None:
    """Announce the port, then serve until the coordinator ends us."""
    parser = argparse.ArgumentParser()
    parser.add_argument("peer")
    parser.add_argument("site", type=Path)
    parser.add_argument("--core", type=int)
    parser.add_argument("--profile", type=Path)
    options = parser.parse_args()
    reply = processes.begin(options.core)
    serve = registry.load(options.peer).serve
    if options.profile is None:
        serve(Site(options.site), lambda port: reply({"port": port}))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with profiling.all_threads(options.profile):
        serve(Site(options.site), lambda port: reply({"port": port}))
    os._exit(0)


if __name__ == "__main__":
    main()
