"""Who is not let in is on record, one by one or counted by source and reason."""

import pytest

from caprpc.errors import AuditError
from caprpc.objects.rejections import MOST_KINDS, MOST_REFERENCES, WHOLE, WINDOW_S, Rejections


class Written:
    """Stands for the general relation."""

    def __init__(self):
        self.records = []

    def record(self, kind, **fields):
        assert kind == "reject"
        self.records.append(fields)

    def numbers(self):
        return [n for one in self.records for n in (one.get("references", "") or one["reference"]).split()]


@pytest.fixture
def log():
    return Written()


def reject(rejections, count, address="192.0.2.7:1", reason="foreign", now=0.0, first=0):
    numbers = [f"R-{address}-{first + i}" for i in range(count)]
    for number in numbers:
        rejections.add(address, reason, number, now, detail="why")
    return numbers


def test_a_few_have_records_of_their_own(log):
    numbers = reject(Rejections(log), WHOLE)
    assert log.records == [
        {"address": "192.0.2.7:1", "reason": "foreign", "reference": number, "detail": "why"} for number in numbers
    ]


def test_a_flood_is_counted_and_no_number_is_lost(log):
    rejections = Rejections(log)
    numbers = reject(rejections, 1_000)
    rejections.tick(WINDOW_S)
    assert log.numbers() == numbers
    assert len(log.records) == WHOLE + -(-(1_000 - WHOLE) // MOST_REFERENCES)
    assert log.records[WHOLE]["address"] == "192.0.2.7"
    assert log.records[WHOLE]["count"] == MOST_REFERENCES


def test_counts_are_written_when_their_window_ends_and_not_before(log):
    rejections = Rejections(log)
    reject(rejections, WHOLE + 1)
    rejections.tick(WINDOW_S - 0.1)
    assert len(log.records) == WHOLE
    rejections.tick(WINDOW_S)
    assert log.records[-1]["count"] == 1


def test_the_next_window_begins_with_whole_records_behind_the_count_of_the_last(log):
    rejections = Rejections(log)
    numbers = reject(rejections, WHOLE + 1) + reject(rejections, 1, now=WINDOW_S, first=WHOLE + 1)
    assert log.numbers() == numbers
    assert [("count" in one) for one in log.records[-2:]] == [True, False]


@pytest.mark.parametrize("other", [{"address": "192.0.2.8:1"}, {"reason": "eku"}, {"address": "2001:db8::1:1"}])
def test_another_source_or_reason_is_not_hidden_by_a_flood(log, other):
    rejections = Rejections(log)
    reject(rejections, 500)
    before = len(log.records)
    reject(rejections, 1, **other)
    assert log.records[before]["detail"] == "why"


def test_one_site_of_ipv6_is_one_source(log):
    rejections = Rejections(log)
    for i in range(200):
        reject(rejections, 1, address=f"2001:db8::{i:x}:1")
    assert len(log.records) < WHOLE + 10


def test_processes_at_a_unix_socket_are_one_source(log):
    rejections = Rejections(log)
    for i in range(200):
        reject(rejections, 1, address=f"unix pid={i} uid=1000 gid=1000")
    assert len(log.records) < WHOLE + 10


def test_more_sources_than_are_told_apart_are_counted_together(log):
    rejections = Rejections(log)
    for i in range(MOST_KINDS + 400):
        reject(rejections, 1, address=f"10.0.{i // 256}.{i % 256}:1")
    rejections.tick(WINDOW_S)
    assert len(log.numbers()) == MOST_KINDS + 400
    assert len(log.records) < MOST_KINDS + WHOLE + 400 // MOST_REFERENCES + 2
    # What has ended makes room.
    reject(rejections, 1, address="10.9.9.9:1", now=WINDOW_S)
    assert log.records[-1]["address"] == "10.9.9.9:1"


def test_a_log_that_takes_nothing_stops_nobody():
    class Full:
        tries = 0

        def record(self, _kind, **_fields):
            self.tries += 1
            raise AuditError("full")

    full = Full()
    rejections = Rejections(full)
    reject(rejections, 100)
    rejections.tick(WINDOW_S)
    assert full.tries > WHOLE, "the test says nothing: nobody has tried to write"
