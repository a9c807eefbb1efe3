"""Files with anything in them: they load, or every problem is located and printable; nothing else ever comes out."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caprpc.errors import PolicyError

FILES = ("org-b.toml", "caprpc.toml", "contracts.toml")
PIECES = [
    *("true", "false", "0", "-1", "nan", "inf", "1e999", "99999999999999999999", "''", '""', '"x"', "[]", "[[]]", "{}"),
    *("{ a = 1 }", "1979-05-27", "1979-05-27T07:32:00", "07:32:00", "\n[offer]\n", "\n[peer]\n", "\n[[lend]]\n"),
    *("\n[[never]]\n", "[", "]", '"', "'", '"""', "'''", "=", "\n", "#", "\\", ",", ".", "*", "_", "\u202e", "\u00e9"),
    *("\0", "opaque", "interface", "call", "returns", "args"),
]  # fmt: skip
TOKEN = re.compile(r'"[^"\n]*"|[\w.-]+|\s+|.')
WHERE = re.compile(r"[A-Za-z0-9_.-]+\.toml(:[1-9][0-9]*)?")


@st.composite
def edits(draw):
    """Draw a few edits: (which token, what happens to it, what is put there)."""
    edit = st.tuples(
        st.integers(0, 10_000), st.sampled_from(["replace", "insert", "delete", "copy"]), st.sampled_from(PIECES)
    )
    return draw(st.lists(edit, min_size=1, max_size=3))


def edited(text: str, changes) -> str:
    tokens = TOKEN.findall(text)
    for place, what, piece in changes:
        index = place % len(tokens)
        if what == "replace":
            tokens[index] = piece
        elif what == "insert":
            tokens.insert(index, piece)
        elif what == "copy":
            tokens.insert(index, tokens[(place * 7) % len(tokens)])
        elif len(tokens) > 1:
            del tokens[index]
    return "".join(tokens)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=edits())
def test_edited_file_loads_or_says_where_it_does_not(directory, name, changes):
    original = (directory.path / name).read_text()
    try:
        directory.write(name, edited(original, changes))
        try:
            loaded = directory.load()
        except PolicyError as exc:
            check_problems(exc.problems)
        else:
            check_problems(loaded.warnings)
            assert len(loaded.policies) == 1
    finally:
        directory.write(name, original)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_file_with_a_changed_byte_loads_or_says_where_it_does_not(directory, name, place, byte):
    original = (directory.path / name).read_bytes()
    content = bytearray(original)
    content[place % len(content)] = byte
    try:
        directory.write(name, bytes(content))
        try:
            check_problems(directory.load().warnings)
        except PolicyError as exc:
            check_problems(exc.problems)
    finally:
        directory.write(name, original)


def check_problems(problems):
    for problem in problems:
        assert WHERE.fullmatch(problem.where), problem.where
        assert problem.message
        assert (problem.message + problem.hint).isascii(), problem.message
        assert (problem.message + problem.hint).isprintable(), problem.message
