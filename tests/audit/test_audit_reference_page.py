"""The reference page has every field, kind and bound of the format."""

import re
from pathlib import Path

import pytest

from caprpc.audit.flood import FLOOD_THRESHOLD, MAX_REFERENCES, WINDOW_S
from caprpc.audit.record import FIELDS, KINDS, MAX_LINE_BYTES
from caprpc.audit.segment import SEGMENT_BYTES
from caprpc.audit.verify import MAX_TORN_BYTES

TYPES = {int: "number", str: "text", dict: "object of texts"}


@pytest.fixture(scope="module")
def page():
    return (Path(__file__).parents[2] / "docs" / "reference" / "audit.md").read_text(encoding="utf-8")


def test_every_field_in_order_with_its_type(page):
    rows = re.findall(r"^\| `(\w+)` \| (number|text|object of texts) \|", page, re.MULTILINE)
    assert rows == [(name, TYPES[kind]) for name, kind in FIELDS.items()]


def test_every_kind(page):
    part = page.split("| kind |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)) == KINDS


@pytest.mark.parametrize(
    "text",
    [
        f"at most {MAX_LINE_BYTES:,} bytes",
        f"exceeds {SEGMENT_BYTES // 1024**2} MiB",
        f"up to {MAX_TORN_BYTES // 1024} KiB",
        f"{FLOOD_THRESHOLD} are written one by one in a window of {WINDOW_S:.0f} s",
        f"up to {MAX_REFERENCES} of them",
    ],
)
def test_every_bound(page, text):
    assert text in " ".join(page.split())
