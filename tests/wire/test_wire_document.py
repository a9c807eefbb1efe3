"""The normative page says what the code does: every kind, operation, extension type and code, by number."""

import re

import pytest

from caprpc.errors import CLOSE_CODES, ERROR_CODES
from caprpc.ids import OPERATION_NAMES
from caprpc.limits import DEFAULT_LIMITS, FIRST_FRAME_BYTES
from caprpc.session.states import TRANSITIONS, State
from caprpc.wire import messages, scan, values
from caprpc.wire.messages import AnyMessage


@pytest.fixture(scope="module")
def page(request):
    path = request.config.rootpath / "docs" / "reference" / "wire-protocol.md"
    return path.read_text(encoding="utf-8")


def table(page, heading):
    """Return the rows of the first table below a heading."""
    part = re.split(rf"^#+ {re.escape(heading)}.*$", page, maxsplit=1, flags=re.MULTILINE)[1]
    lines = part[part.index("\n|") + 1 :].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_kind_with_its_fields(page):
    rows = {int(row[0]): (row[1], row[2]) for row in table(page, "4.1")}
    kinds = {kind.__struct_config__.tag: kind for kind in AnyMessage.__args__}
    assert rows.keys() == kinds.keys()
    for tag, kind in kinds.items():
        name, fields = rows[tag]
        assert name.replace("_", "").lower() == kind.__name__.lower()
        if fields != "as WELCOME":
            documented = [re.split(r"[: (]", field.strip())[0] for field in fields.split(" · ")]
            assert documented == list(kind.__struct_fields__)


def test_every_operation(page):
    assert {int(row[0]): row[1] for row in table(page, "6 Operations")} == OPERATION_NAMES


def test_every_extension_type(page):
    rows = {int(row[0]) for row in table(page, "5.3")}
    assert rows == {code for name, code in vars(values).items() if name.startswith("CODE_")}


def test_every_code(page):
    assert {row[0] for row in table(page, "9 Errors")} == ERROR_CODES
    assert {row[0] for row in table(page, "11 Closing")} == CLOSE_CODES


def test_bounds_of_values(page):
    bounds = {row[0]: row[1] for row in table(page, "5.2")}
    assert bounds == {
        "depth": str(DEFAULT_LIMITS.max_depth),
        "items": f"{DEFAULT_LIMITS.max_items:,}",
        "integer": f"{DEFAULT_LIMITS.max_int_bits:,} bits",
        "map key": f"{DEFAULT_LIMITS.max_key_bytes} bytes",
        "hashed keys": f"{DEFAULT_LIMITS.max_pair_keys:,}",
        "expansion": str(scan.MAX_EXPANSION),
    }
    assert f"at most {values.decimal_digits(DEFAULT_LIMITS):,} digits" in page
    assert f"-{values.MAX_DECIMAL_EXPONENT:,} to {values.MAX_DECIMAL_EXPONENT:,}" in page
    assert f"accepts {FIRST_FRAME_BYTES:,} bytes" in page
    assert f"default {DEFAULT_LIMITS.max_frame_bytes:,}" in page


def test_state_table(page):
    rows = {row[0]: row[1:] for row in table(page, "4.4")}
    states = {
        "dialer, waits for WELCOME": State.AWAIT_WELCOME,
        "acceptor, waits for HELLO": State.AWAIT_HELLO,
        "open": State.OPEN,
        "draining (one side has sent GOAWAY `drain`)": State.DRAINING,
    }
    others = set(AnyMessage.__args__) - {messages.Welcome, messages.Hello, messages.GoAway}
    for text, state in states.items():
        allowed = TRANSITIONS[state]
        expected = [kind in allowed for kind in (messages.Welcome, messages.Hello, messages.GoAway)]
        assert [cell == "yes" for cell in rows[text][:3]] == expected
        assert (rows[text][3] == "yes") == others.issubset(allowed)
    assert TRANSITIONS[State.PEER_DRAINING] == TRANSITIONS[State.DRAINING]
