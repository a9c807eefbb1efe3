"""What is written verifies, whatever the order of records, commits, rotations and restarts."""

import os
import threading

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caprpc.audit import NO_EXTRA, duration, extra
from caprpc.audit.record import leaf_hash
from tests.audit.conftest import PEER, Logs

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 2**64 - 1)),
        st.tuples(st.just("append"), st.integers(0, 2**64 - 1)),
        st.tuples(st.just("deny"), st.integers(1, 150)),
        st.tuples(st.just("commit"), st.just(0)),
        st.tuples(st.just("record"), st.just(0)),
        st.tuples(st.just("step clock"), st.integers(-3600, 3600)),
        st.tuples(st.just("tick"), st.just(0)),
        st.tuples(st.just("reopen"), st.just(0)),
        st.tuples(st.just("kill"), st.just(0)),
    ),
    max_size=40,
)


def run(logs, steps, decision, refusal):
    """Do the steps; return how many facts were written, refusals counted one by one."""
    log, facts, added = logs.open(max_segment_bytes=4_000), 0, 0
    for step, value in steps:
        relation = log.relation(PEER)
        if step == "add":
            relation.add(relation.template(**decision), value)
            added += 1
        elif step == "append":
            relation.append(relation.template(**decision), value, duration(3))
            facts += 1
        elif step == "deny":
            template = relation.template(**refusal)
            for i in range(value):
                relation.add(template, i, extra(reference="R-7KQ2M9XW4HTA"))
            relation.commit()
            facts, added = facts + value + added, 0
        elif step == "commit":
            relation.commit()
            facts, added = facts + added, 0
        elif step == "record":
            relation.record("open", peer=PEER, address="10.0.0.1:999")
            facts += 1
        elif step == "step clock":
            logs.clock.wall += value * 10**9
            logs.clock.monotonic += abs(value) * 10**9
            # A log that runs is ticked each second: records a minute behind the last checkpoint are none of it.
            log.tick(logs.clock.monotonic / 1e9)
        elif step == "tick":
            log.tick(logs.clock.monotonic / 1e9)
        elif step in {"reopen", "kill"}:
            if step == "kill":
                # Counts of refusals that no record holds yet are lost with the process, and only they.
                for held in (one.relation for one in log._opened.values()):
                    held._end_floods(float("inf"))
                logs.abandon(log)
            else:
                log.close()
                logs.opened.remove(log)
            log, added = logs.open(max_segment_bytes=4_000), 0
    log.close()
    return facts


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_whatever_happened_the_log_verifies_and_holds_every_fact(tmp_path_factory, decision, refusal, steps):
    logs = Logs(tmp_path_factory.mktemp("log") / "audit")
    facts = run(logs, steps, decision, refusal)
    report = logs.verify()
    assert report.intact, report
    lines = logs.lines() if logs.files() else []
    records = logs.records() if lines else []
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    assert [record["prev"] for record in records[1:]] == [leaf_hash(line) for line in lines[:-1]]
    assert sum(record.get("count", 1) for record in records if record["kind"] != "segment") == facts


def test_sequence_and_monotonic_time_keep_order_when_the_wall_clock_steps_back(logs):
    relation = logs.open().relation(PEER)
    for step in (0, -86_400, 2 * 86_400, -1):
        logs.clock.wall += step * 10**9
        logs.clock.monotonic += 1_000
        relation.record("open", peer=PEER)
    seconds = [(record["seq"], record["mono"]) for record in logs.records()]
    assert seconds == sorted(seconds)
    assert logs.problem() is None


def test_time_is_rfc_3339_in_utc_with_microseconds(logs):
    logs.open().relation(PEER).record("open", peer=PEER)
    assert logs.records()[-1]["time"] == "2026-05-28T20:26:40.123456Z"


def test_chain_goes_on_over_segments(logs, decision):
    log = logs.open(max_segment_bytes=2_000)
    relation = log.relation(PEER)
    template = relation.template(**decision)
    for question in range(30):
        relation.append(template, question)
    log.close()
    assert len(logs.files()) > 3
    events = [(r["segment"], r["event"]) for r in logs.records() if r["kind"] == "segment"]
    assert events[:4] == [(1, "begin"), (1, "end"), (2, "begin"), (2, "end")]
    assert events[-1][1] == "close"
    assert [r["question"] for r in logs.records() if "question" in r] == list(range(30))
    assert logs.problem() is None


def test_clean_end_is_told_from_a_killed_process(logs):
    log = logs.open()
    log.relation(PEER).record("open", peer=PEER)
    assert [found.closed for found in logs.verify().relations] == [False, False]
    log.close()
    assert [found.closed for found in logs.verify().relations] == [True, True]


def test_facts_without_a_peer_have_their_own_relation(logs):
    log = logs.open()
    log.general.record("reject", address="203.0.113.9:1", reason="eku", reference="R-7KQ2M9XW4HTA")
    log.relation(PEER).record("open", peer=PEER)
    assert [r["kind"] for r in logs.records("general")] == ["segment", "reject"]
    assert [r["kind"] for r in logs.records()] == ["segment", "open"]


def test_written_means_in_the_file_before_the_call_returns(logs, decision):
    relation = logs.open().relation(PEER)
    relation.add(relation.template(**decision), 5)
    assert len(logs.lines()) == 1
    relation.commit()
    assert logs.records()[-1]["question"] == 5


def test_list_of_records_is_written_from_any_thread(logs, decision):
    relation = logs.open().relation(PEER)
    template = relation.template(**decision)
    records = [(template, 1, NO_EXTRA), (template, 2, duration(5))]
    thread = threading.Thread(target=relation.write, args=(records,))
    thread.start()
    thread.join()
    relation.write([])
    relation.write([(template, 3, NO_EXTRA)])
    assert [r["question"] for r in logs.records_with("question")] == [1, 2, 3]
    assert logs.problem() is None


def test_many_added_records_are_one_write(logs, decision):
    writes = []

    def write(fd, data):
        writes.append(len(data))
        return os.write(fd, data)

    relation = logs.open(write=write).relation(PEER)
    template = relation.template(**decision)
    writes.clear()
    for question in range(64):
        relation.add(template, question)
    relation.commit()
    relation.commit()
    assert len(writes) == 1
    assert logs.problem() is None


def test_equal_records_of_one_commit_are_the_lines_they_would_be_alone(logs, decision, refusal):
    relation = logs.open().relation(PEER)
    equal, other = (relation.template(**decision), 9, NO_EXTRA), (relation.template(**decision), 10, duration(5))
    refused = (relation.template(**refusal), 11, extra(reference="R-7KQ2M9XW4HTA"))
    relation.write([equal] * 12 + [other, refused, equal, equal, other, other])
    for record in ([equal], [other]):
        relation.write(record)
    assert [r["question"] for r in logs.records_with("question")] == [9] * 12 + [10, 11, 9, 9, 10, 10, 9, 10]
    facts = [(line[line.index(b',"time"') : line.index(b',"prev"')], line) for line in logs.lines()[1:]]
    assert len({fact for fact, line in facts if b'"question":9' in line}) == 1
    assert len({fact for fact, line in facts if b'"question":10' in line}) == 1
    assert logs.problem() is None
