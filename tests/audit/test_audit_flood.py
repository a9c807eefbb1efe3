"""A flood of refusals costs little disk, and every refusal is still counted, with its reference number."""

import pytest

from caprpc.audit import Selection, extra, select
from caprpc.audit.flood import FLOOD_THRESHOLD, WINDOW_S, Flood
from caprpc.ids import new_reference
from tests.audit.conftest import PEER

FLOOD = 5_000


@pytest.fixture
def refusal(refusal):
    """Refusals of one connection, whatever member it asks for."""
    del refusal["member"]
    return refusal


def refuse(relation, template, count):
    references = []
    for question in range(count):
        references.append(new_reference())
        relation.append(template, question, extra(reference=references[-1], detail="x" * 1_000, member="m" * 128))
    return references


def counted(logs):
    return sum(record.get("count", 1) for record in logs.records_with("decision"))


def test_refused_calls_cost_at_most_64_bytes_each_and_none_is_lost(logs, refusal):
    log = logs.open()
    relation = log.relation(PEER)
    template = relation.template(**{**refusal, "facet": "f" * 500, "rule": "r" * 500})
    refuse(relation, template, FLOOD_THRESHOLD)
    size = sum(file.stat().st_size for file in logs.files())
    refuse(relation, template, FLOOD)
    log.close()
    grown = sum(file.stat().st_size for file in logs.files()) - size
    assert grown / FLOOD <= 64
    assert counted(logs) == FLOOD + FLOOD_THRESHOLD
    assert logs.verify().intact


def test_every_reference_number_is_found_also_inside_of_a_count(logs, refusal):
    log = logs.open()
    relation = log.relation(PEER)
    references = refuse(relation, relation.template(**refusal), 300)
    log.close()
    for reference in references[::37]:
        found = list(select(logs.path, Selection(reference=reference)))
        assert len(found) == 1
    whole = {r["reference"] for r in logs.records_with("reference")}
    inside = {one for r in logs.records_with("references") for one in r["references"].split()}
    assert whole | inside == set(references)
    assert not whole & inside


def test_first_refusals_are_written_one_by_one(logs, refusal):
    relation = logs.open().relation(PEER)
    refuse(relation, relation.template(**refusal), FLOOD_THRESHOLD)
    assert len(logs.records_with("reference")) == FLOOD_THRESHOLD
    assert logs.records_with("count") == []


def test_count_is_written_at_the_end_of_the_window(logs, refusal):
    log = logs.open()
    relation = log.relation(PEER)
    refuse(relation, relation.template(**refusal), FLOOD_THRESHOLD + 5)
    log.tick(logs.clock.monotonic / 1e9)
    assert logs.records_with("count") == []
    logs.clock.advance(WINDOW_S)
    log.tick(logs.clock.monotonic / 1e9)
    (record,) = logs.records_with("count")
    assert (record["count"], record["first"], record["last"]) == (5, 100, 104)
    assert record["peer"] == PEER
    assert record["decision"] == "deny"
    assert not relation._floods


def test_next_window_writes_one_by_one_again(logs, refusal):
    relation = logs.open().relation(PEER)
    template = relation.template(**refusal)
    refuse(relation, template, FLOOD_THRESHOLD + 5)
    logs.clock.advance(WINDOW_S)
    refuse(relation, template, 3)
    assert len(logs.records_with("reference")) == FLOOD_THRESHOLD + 3


def test_other_refusals_and_connections_are_counted_apart(logs, refusal):
    relation = logs.open().relation(PEER)
    refuse(relation, relation.template(**refusal), FLOOD_THRESHOLD + 5)
    refuse(relation, relation.template(**{**refusal, "connection": "b" * 32}), 2)
    refuse(relation, relation.template(**{**refusal, "reason": "argument"}), 2)
    assert len(logs.records_with("reference")) == FLOOD_THRESHOLD + 4


def test_permitted_calls_are_never_counted_together(logs, decision):
    relation = logs.open().relation(PEER)
    template = relation.template(**decision)
    for question in range(FLOOD_THRESHOLD * 3):
        relation.append(template, question)
    assert len(logs.records_with("question")) == FLOOD_THRESHOLD * 3


def test_counters_of_many_connections_do_not_pile_up(logs, refusal):
    relation = logs.open().relation(PEER)
    for number in range(2_000):
        template = relation.template(**{**refusal, "connection": str(number)})
        relation.append(template, 1)
        logs.clock.advance(0.1)
    assert len(relation._floods) <= 256


def test_text_of_a_peer_cannot_pass_for_a_reference_number(logs, refusal):
    log = logs.open()
    relation = log.relation(PEER)
    template = relation.template(**refusal)
    for question in range(FLOOD_THRESHOLD + 1):
        relation.append(template, question, extra(member='","reference":"R-FORGED","x":"'))
    log.close()
    assert logs.records_with("references") == []
    assert list(select(logs.path, Selection(reference="R-FORGED"))) == []


def flooded(logs, refusal, names):
    log = logs.open()
    relation = log.relation(PEER)
    template = relation.template(**refusal)
    for question, name in enumerate(["first"] * FLOOD_THRESHOLD + names):
        relation.append(template, question, extra(member=name, reference=new_reference()))
    log.close()
    assert logs.verify().intact
    return [record for record in logs.records_with("decision") if "count" in record]


@pytest.mark.parametrize("name", ["drop_all", "m" * 128, 'quo"te\\ and \u00fcml'])
def test_count_of_refusals_of_one_member_names_it(name, logs, refusal):
    record, *_ = flooded(logs, refusal, [name] * 40)
    assert (record["count"], record["member"]) == (32, name)


def test_count_of_refusals_of_made_up_members_names_a_few(logs, refusal):
    (record,) = flooded(logs, refusal, [f"made_up_{n}" for n in range(30)])
    assert "member" not in record
    assert record["detail"] == "members made_up_0, made_up_1, made_up_2, made_up_3 and others"


def test_refusals_that_all_differ_cost_the_same_each(logs, refusal, monkeypatch):
    """A peer makes up members, and comes back with new connections: each has templates of its own."""
    looks = []
    due = Flood.due
    monkeypatch.setattr(Flood, "due", lambda self, now: looks.append(self) or due(self, now))
    log = logs.open()
    relation = log.relation(PEER)
    made = 3_000
    for number in range(made):
        template = relation.template(**{**refusal, "facet": f"f{number}"})
        relation.append(template, number, extra(reference=new_reference(), member="m"))
    assert len(looks) < 4 * made
    log.close()
    assert counted(logs) == made
