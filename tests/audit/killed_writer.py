"""A writer as servers are: one thread appends as fast as it can, another ticks once a second. It is killed."""

import os
import sys
import threading
import time
from pathlib import Path

from caprpc.audit import AuditLog

PEER = "spiffe://org-b.example/treasury/feed"


def main() -> None:
    log = AuditLog.open(Path(sys.argv[1]), name="server")
    relation = log.relation(PEER)
    template = relation.template(kind="decision", peer=PEER, operation="call", member="post", decision="permit")

    def tick() -> None:
        while True:
            time.sleep(1.0)
            log.tick(time.monotonic())
            os.write(1, b"ticked\n")

    threading.Thread(target=tick, daemon=True).start()
    question = 0
    while True:
        question += 1
        relation.append(template, question)
        # What is read here was written before: none of it may be missing.
        os.write(1, b"%d\n" % question)
        time.sleep(0.001)


if __name__ == "__main__":
    main()
