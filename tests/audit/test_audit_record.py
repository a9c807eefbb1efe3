"""One record is one line: escaped, bounded, in one spelling, whatever a peer puts into it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caprpc.audit.reader import BadRecord, RawLine, Record
from caprpc.audit.record import (
    FIELDS,
    GENESIS,
    MAX_EXTRA_BYTES,
    MAX_LINE_BYTES,
    Template,
    duration,
    encode,
    escape,
    extra,
    leaf_hash,
)

STAMP = (b"2026-01-31T23:59:59.", 42, 7)
HOSTILE = [
    '"}\n{"seq":9,"kind":"decision"',
    "a\r\nb",
    "\x00\x07\x1b[2J\x1b]52;c;AAAA\x07",
    "\u202egnp.exe\u2066",
    "\x7f\x80\x9b31m",
    "\ud800 lone surrogate",
    "%s%d%%b%n{}",
    "\u2028\u2029\x85",
    "\\\\\\",
    "e" * 1_000_000,
    '"' * 100_000,
    "\U0001f600" * 50_000,
]
TEXT_FIELDS = [name for name, kind in FIELDS.items() if kind is str and name not in {"time", "kind", "prev"}]


def parse(line):
    return Record.parse(RawLine(0, line, len(line), ended=True))


def whole(template, fields=b""):
    return template.pattern % (2, *STAMP, 77, fields, GENESIS.encode())


@pytest.mark.parametrize("name", TEXT_FIELDS)
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_in_any_field_stays_in_its_line(name, text):
    line = encode(1, STAMP, {"kind": "reject", name: text}, GENESIS)
    assert len(line) <= MAX_LINE_BYTES
    assert all(0x20 <= byte < 0x7F for byte in line)
    found = parse(line).fields
    assert list(found) == ["seq", "time", "mono", "kind", name, "prev"]
    value = found[name]
    assert value == text or ("[cut: " in value and text.startswith(value.split("[cut: ")[0]))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_in_templates_and_extra_fields_stays_in_its_line(text):
    template = Template({"kind": "decision", "peer": text, "facet": text, "rule": text, "decision": "deny"})
    line = whole(template, extra(operation="call", member=text, reference=text, args={text: text}, detail=text))
    assert len(line) <= MAX_LINE_BYTES
    assert all(0x20 <= byte < 0x7F for byte in line)
    assert parse(line).fields["question"] == 77


@given(st.dictionaries(st.sampled_from(TEXT_FIELDS), st.text(max_size=400)), st.text(max_size=3000))
def test_any_fields_make_one_verifiable_record(fields, detail):
    line = encode(2**60, STAMP, {"kind": "reject", **fields, "detail": detail}, GENESIS)
    assert len(line) <= MAX_LINE_BYTES
    assert parse(line).leaf == leaf_hash(line)


@given(st.dictionaries(st.text(max_size=100), st.text(max_size=200), max_size=40))
def test_any_arguments_make_one_verifiable_record(args):
    fields = extra(args=args, reference="R-7KQ2M9XW4HTA")
    assert len(fields) <= MAX_EXTRA_BYTES
    assert parse(whole(Template({"kind": "decision"}), fields)).fields["reference"] == "R-7KQ2M9XW4HTA"


@pytest.mark.parametrize("name", ["member", "operation", "facet", "peer"])
def test_extra_fields_must_follow_the_static_ones(logs, decision, name):
    """A field twice, or out of order, would make a record that nobody can verify."""
    relation = logs.open().relation(decision["peer"])
    with pytest.raises(TypeError, match=f"extra field '{name}' after static field 'member'"):
        relation.append(relation.template(**decision), 1, extra(**{name: "x"}))
    with pytest.raises(TypeError, match=f"extra field '{name}'"):
        relation.write([(relation.template(**decision), 1, extra(**{name: "x"}))] * 2)
    assert logs.problem() is None


def test_refusal_cannot_have_static_fields_that_its_count_needs(refusal):
    with pytest.raises(TypeError, match="'detail'"):
        Template({**refusal, "detail": "x"})


def test_short_text_round_trips_exactly():
    assert json.loads(escape("zażółć \x00 \x7f \U0001f600")) == "zażółć \x00 \x7f \U0001f600"


def test_cut_text_says_how_long_it_was():
    assert json.loads(escape("x" * 5_000)).endswith("[cut: 5000 characters]")
    assert len(escape("x" * 5_000)) <= 258


def test_arguments_that_do_not_fit_are_counted():
    args = json.loads(b"{" + extra(args={f"p{i}": "v" * 100 for i in range(50)})[1:] + b"}")["args"]
    assert int(args[""].split()[0]) + len(args) - 1 == 50


def test_template_and_single_record_have_the_same_spelling(decision):
    by_template = whole(Template(decision), duration(12))
    at_once = encode(2, STAMP, {**decision, "question": 77, "duration_us": 12}, GENESIS)
    assert by_template == at_once


def test_leaf_hash_is_that_of_rfc_6962():
    assert leaf_hash(b"") == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"


@pytest.mark.parametrize("name", ["nonsense", "seq", "prev", "time", "mono"])
def test_fields_that_are_unknown_or_of_the_chain_are_refused(name):
    with pytest.raises(TypeError, match=name):
        extra(**{name: "1"})


@pytest.mark.parametrize("value", [-1, 2**64, True, 1.5, None])
def test_numbers_out_of_range_are_refused(value):
    with pytest.raises(TypeError, match="count"):
        extra(count=value)


def test_unknown_kind_is_refused():
    with pytest.raises(TypeError, match="kind"):
        Template({"kind": "gossip"})


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (b'"kind":"reject"', b'"kind":"gossip"', "a kind of"),
        (b'"kind":"reject"', b'"kind":"reject","kind":"reject"', "each key once"),
        (b'"kind":"reject"', b'"kind":"reject","colour":"red"', "known fields"),
        (b'"mono":7,', b"", "a field 'mono'"),
        (b'"mono":7', b'"mono":"7"', "type int"),
        (b'"mono":7', b'"mono":-7', "from 0"),
        (b'"mono":7', b'"mono":7.0', "type int"),
        (b'"mono":7', b'"mono":NaN', "type int"),
        (b'"mono":7', b'"mono": 7', "only spelling"),
        (b'"mono":7', b'"mono":07', "JSON object"),
        (b"reject", b"rej\\u0065ct", "only spelling"),
        (b'"mono":7,"kind":"reject"', b'"kind":"reject","mono":7', "order"),
        (b"2026-01", b"2026-1", "'time' like"),
        (b"0" * 64, b"0" * 63, "64 hexadecimal"),
        (b"reject", b"rej\xc3\xa9ct", "printable ASCII"),
        (b"reject", b"rej\x00ect", "printable ASCII"),
    ],
)
def test_other_spellings_are_no_record(before, after, expected):
    line = encode(1, STAMP, {"kind": "reject", "address": "x"}, GENESIS)
    assert before in line
    with pytest.raises(BadRecord, match=expected):
        parse(line.replace(before, after))


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b"{" * 4000, b"[" * 4096, b'{"a":' * 800, b"1" * 4096])
def test_lines_that_are_no_object_are_no_record(data):
    with pytest.raises(BadRecord):
        parse(data)


def test_longer_line_is_no_record():
    with pytest.raises(BadRecord, match="4096"):
        Record.parse(RawLine(0, b"x" * 4097, 10**9, ended=True))
