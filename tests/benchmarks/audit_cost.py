"""What a record of the audit log costs: by level and durability, in one process, without a connection.

Each number is the median of single writes; the rest of a call is not in it.
"""

import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from caprpc.audit import NO_EXTRA, AuditLog, extra
from caprpc.wire.codec import pack

PEER = "spiffe://org-b.example/treasury/feed"
CONNECTION = "5f0c2d3e4f5061728394a5b6c7d8e9f0"
WRITES = {"os": 20_000, "group": 400, "sync": 400}
THREADS = 8


def _template(relation, **fields):
    return relation.template(
        peer=PEER,
        connection=CONNECTION,
        facet="FeedLedger",
        operation="call",
        member="balance",
        policy="sha256:9c1e04d2a9b54bb1",
        **fields,
    )


def _median_us(work, count):
    taken = []
    for number in range(1, count + 1):
        begin = time.perf_counter_ns()
        work(number)
        taken.append(time.perf_counter_ns() - begin)
    return statistics.median(taken) / 1_000


def measure(log):
    """Return rows of level, durability, threads and median microseconds of what a call writes."""
    rows = [{"level": "deny", "durability": "any", "threads": 1, "median_us": 0.0}]
    plain = log.relation(PEER)
    decision = _template(plain, kind="decision", decision="permit", rule="org-b.toml:23")
    outcome = _template(plain, kind="outcome", outcome="ok")
    for durability, count in WRITES.items():
        relation = log.lasting(PEER, durability)

        def decide(number, relation=relation):
            relation.write([(decision, number, NO_EXTRA)])

        def both(number, relation=relation):
            relation.write([(decision, number, NO_EXTRA)])
            relation.append(outcome, number)

        rows.append(_row("decision", durability, 1, _median_us(decide, count)))
        rows.append(_row("outcome", durability, 1, _median_us(both, count // 2)))
        if durability != "os":
            rows.append(_row("decision", durability, THREADS, _crowd(decide, count // 4)))
    redactor = log.redactor

    def digest(number):
        shown = {"amount": redactor.digest(pack(10_000), CONNECTION, number, "amount")}
        plain.write([(decision, number, extra(args=shown))])

    rows.append(_row("decision, 1 digest", "os", 1, _median_us(digest, 5_000)))
    begin = time.thread_time_ns()
    log.tick(time.monotonic() + 1e6)
    signed = (time.thread_time_ns() - begin) / 1_000 / plain.written
    rows.append(_row("hashed and signed by the tick (CPU)", "off the path", 1, signed))
    return rows


def _row(level, durability, threads, median_us):
    return {"level": level, "durability": durability, "threads": threads, "median_us": round(median_us, 2)}


def _crowd(work, count):
    """Return the time of one write as all threads together make them."""
    barrier = threading.Barrier(THREADS + 1)

    def run():
        barrier.wait()
        for number in range(1, count + 1):
            work(number)

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    barrier.wait()
    begin = time.perf_counter_ns()
    for thread in threads:
        thread.join()
    return (time.perf_counter_ns() - begin) / 1_000 / (count * THREADS)


def main():
    """Print the table as Markdown, or as JSON with ``--json``."""
    with tempfile.TemporaryDirectory() as place:
        log = AuditLog.open(Path(place) / "audit", name="bench")
        rows = measure(log)
        log.close()
    if "--json" in sys.argv:
        print(json.dumps(rows, indent=1))
        return
    print("| level | durability | threads | µs |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['level']} | {row['durability']} | {row['threads']} | {row['median_us']:.1f} |")


if __name__ == "__main__":
    main()
