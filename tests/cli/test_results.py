"""What a peer returned, or passed to a function that was lent, is shown and steers nothing."""

import json

import pytest

from caprpc.cli.arguments import print_json
from caprpc.cli.results import lines_of, shown

EVIL = "".join(map(chr, [*range(32), 0x7F, *range(0x80, 0xA0), 0x202E, 0x2066, 0xFEFF, 0xE000, 0x1F600]))
VALUES = {"text": EVIL, "list": [EVIL, [EVIL]], "keys": {EVIL: 1}, "tuple key": {(EVIL,): EVIL}, "set": {EVIL}}


def steers(text):
    return [c for c in text if not c.isprintable() and c != "\n"]


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("value", VALUES)
def test_no_value_of_a_peer_steers_the_terminal(value, form):
    assert steers(shown(VALUES[value], form)) == []
    assert steers("".join(lines_of([VALUES[value]], form))) == []


@pytest.mark.parametrize("value", VALUES)
def test_no_argument_of_a_peer_steers_the_terminal(value, capsys):
    print_json(VALUES[value])
    print_json(VALUES[value], VALUES[value])
    assert steers(capsys.readouterr().out) == []


def test_json_says_what_was_returned():
    assert json.loads(shown(EVIL, "json")) == EVIL
