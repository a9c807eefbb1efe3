"""Positions in TOML text: every value of a document stands where the table says."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caprpc.policy.text import TomlDocument, TomlProblem, is_refused, refused_characters

TEXT = """\
# a comment with [brackets] and = signs
title = "x # no comment [no.header]"
multi = \"\"\"
[not.a.header]
key = "no key"
\\"\"\" "" \"\"\"\"\"
'quoted key' = 1
"escaped \\u0041" = 2
a.b.c = 3
list = [
  "one", # first
  "two",

  [ "deep", { x = 1, y.z = 2 } ],
]
when = 2027-06-30 00:00:00Z
literal = 'C:\\path'
many = '''
'' two quotes '''''

[table]
  indented = true
[table.sub."quoted.part"]
k = 1

[[array]]
n = 1
[array.inner]
m = 1
[[array]]
n = 2
[[array.nested]]
q = 1
[[array.nested]]
q = 2

[late.child]
x = 1
[late]
y = 1
"""

LINES = {
    ("title",): 2,
    ("multi",): 3,
    ("quoted key",): 7,
    ("escaped A",): 8,
    ("a",): 9,
    ("a", "b", "c"): 9,
    ("list",): 10,
    ("list", 0): 11,
    ("list", 1): 12,
    ("list", 2): 14,
    ("list", 2, 0): 14,
    ("list", 2, 1, "y", "z"): 14,
    ("when",): 16,
    ("literal",): 17,
    ("many",): 18,
    ("table",): 21,
    ("table", "indented"): 22,
    ("table", "sub"): 23,
    ("table", "sub", "quoted.part"): 23,
    ("table", "sub", "quoted.part", "k"): 24,
    ("array", 0): 26,
    ("array", 0, "n"): 27,
    ("array", 0, "inner"): 28,
    ("array", 0, "inner", "m"): 29,
    ("array", 1): 30,
    ("array", 1, "n"): 31,
    ("array", 1, "nested", 0, "q"): 33,
    ("array", 1, "nested", 1, "q"): 35,
    ("late", "child"): 37,
    ("late",): 39,
    ("late", "y"): 40,
}


@pytest.mark.parametrize("path", LINES, ids=str)
def test_value_stands_at_its_line(path):
    assert TomlDocument(TEXT).place(path)[0] == LINES[path]


def test_data_is_what_tomllib_says():
    assert TomlDocument(TEXT).data == tomllib.loads(TEXT)


def test_what_is_not_there_stands_where_its_table_stands():
    document = TomlDocument(TEXT)
    assert document.place(("table", "sub", "nothing"))[0] == 23
    assert document.place(("nothing",))[0] == 1


def every_path(value, path=()):
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from every_path(inner, (*path, key))


def test_every_value_has_a_line_of_its_own():
    document = TomlDocument(TEXT)
    assert set(every_path(document.data)) <= set(document._positions)


def quoted(text):
    return '"' + "".join(c if c.isalnum() and c.isascii() else f"\\U{ord(c):08x}" for c in text) + '"'


keys = st.one_of(
    st.text("abc_-9", min_size=1, max_size=4), st.text(st.characters(exclude_categories=["Cs"]), max_size=4).map(quoted)
)
scalars = st.one_of(
    st.integers(-9, 9).map(str),
    st.booleans().map(lambda b: str(b).lower()),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6).map(quoted),
    st.sampled_from(["'[x]'", '"""\n[y]\n= """', "'''#\n'''", "1979-05-27T07:32:00Z", "0xff", "1e5", '"\\""', "'\"'"]),
)
inline = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[ # x\n" + ",\n".join(items) + "\n]"),
        st.dictionaries(keys, inner, max_size=3).map(
            lambda d: "{ " + ", ".join(f"{k} = {v}" for k, v in d.items()) + " }"
        ),
    ),
    max_leaves=5,
)
key_lines = st.tuples(keys, inline).map(lambda pair: f"{pair[0]} = {pair[1]}")
headers = st.one_of(
    st.lists(keys, min_size=1, max_size=3).map(lambda parts: f"[{'.'.join(parts)}]"),
    st.lists(keys, min_size=1, max_size=2).map(lambda parts: f"[[{' . '.join(parts)}]] # x"),
)
documents = st.lists(st.one_of(key_lines, key_lines, headers, st.just(""), st.just("# = [")), max_size=12).map(
    "\n".join
)


def check_line(problem, text):
    lines = text.split("\n")
    assert 1 <= problem.line <= len(lines)
    assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1


@given(documents)
def test_scanner_agrees_with_tomllib(text):
    """What both read, they read alike; what tomllib refuses is refused; nothing else ever comes out."""
    try:
        document = TomlDocument(text)
    except TomlProblem as exc:
        check_line(exc, text)
        with pytest.raises(tomllib.TOMLDecodeError):
            tomllib.loads(text)
        return
    assert set(every_path(document.data)) <= set(document._positions)
    lines = text.split("\n")
    for path in document._positions:
        assert 1 <= document.place(path)[0] <= len(lines)


@given(st.text(st.sampled_from("ab.=[]{}\"'\\#\n, \t1-:Te"), max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        TomlDocument(text)
    except TomlProblem as exc:
        check_line(exc, text)


@given(st.text(max_size=30))
def test_plain_lines_have_no_refused_characters(text):
    refused = refused_characters(text)
    lines = text.split("\n")
    assert all(is_refused(lines[line - 1][column - 1]) for line, column, _ in refused)
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        assert refused == []


@pytest.mark.parametrize("character", ["\U000e0001", "\U000e0041", "\U000e0100", "\U000e0fff", "\ufe00", "\ufe0f"])
def test_marks_that_change_nothing_a_reader_sees_are_refused(character):
    assert [place for *place, _ in refused_characters(f"a\nb{character}\n")] == [[2, 2]]


@pytest.mark.parametrize("character", ["\ufdff", "\ufe10", "\U0001f600", "\u00e4", "\t"])
def test_letters_and_signs_are_not(character):
    assert refused_characters(f"a{character}\n") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("= 1", "not TOML: expected a key"),
        ("a. = 1", "not TOML: expected a key"),
        ("a = { = 1 }", "not TOML: expected a key"),
        ('a = "x', "not TOML: the string is not closed"),
        ("a = '''x''", "not TOML: the string is not closed"),
        ("a =", "not TOML: expected a value"),
    ],
)
def test_what_is_no_toml_is_named(text, message):
    with pytest.raises(TomlProblem) as caught:
        TomlDocument(text)
    assert (caught.value.line, caught.value.message) == (1, message)
