"""Every file of every directory that is shipped, and one with shared facets, with each kind of mistake in each place.

What the mutants of ``test_policy_mutations`` do at random to one example, these do to each line of all of them.
"""

import os
import re
import shutil
import threading
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from caprpc.errors import PolicyError
from caprpc.policy import PolicySet, directory
from caprpc.policy.problems import CODES

ROOT = Path(__file__).resolve().parents[2]
KINDS = {"directory", "policy", "contracts", "facets", "tests"}
HERE = Path(__file__).resolve().parent
EXAMPLES = sorted(
    index.parent
    for index in (
        *ROOT.glob("policies/*/caprpc.toml"),
        *ROOT.glob("docs/tutorials/*/policies/*/caprpc.toml"),
        HERE / "shared_example" / "caprpc.toml",
    )
)
FILES = [(example, file.name) for example in EXAMPLES for file in sorted(example.glob("*.toml"))]
IDS = [f"{'-'.join(example.parts[-2:])}-{name}" for example, name in FILES]
NOW = datetime(2026, 11, 28, tzinfo=UTC)
LOCATED = re.compile(r"[A-Za-z0-9_.-]+\.toml(:[1-9][0-9]*)?")
KEY = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*)(\s*=)")
HEADER = re.compile(r"^\[\[?([^\]]+)\]\]?\s*(?:#.*)?$")
TEXT = re.compile(r'"([^"\\\n]*)"')
NAME = re.compile(r'name = "([^"\\\n]*)"')
FREE = {"owner", "reason", "text", "doc", "audit", "type", "returns", "args"}
"""Keys of texts that people read, of a path, of a type as the code writes it (the start compares it with the code), or
of values that a test asks about: a letter of another alphabet is no mistake there."""
FREELY_NAMED = {"roots", "restore"}
"""Tables whose keys are names of the author's own."""


SWAPPED = "the file was changed while the directory was read"


@pytest.fixture
def copied(tmp_path):
    def copy(example: Path) -> Path:
        place = tmp_path / "policies"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(example, place)
        place.chmod(0o755)
        for file in place.iterdir():
            file.chmod(0o644)
        return place

    return copy


def load(place: Path) -> PolicySet:
    return PolicySet.load(place, now=NOW)


def refusals(place: Path, name: str, mutants) -> int:
    """Load the directory with each mutant of a file in it; each must be refused, by problems that name that file."""
    count = 0
    for what, text in mutants:
        (place / name).write_text(text)
        with pytest.raises(PolicyError) as caught:
            pytest.fail(f"loaded with {what}: {load(place)}")
        for problem in caught.value.problems:
            assert LOCATED.fullmatch(problem.where), (what, problem.where)
            assert problem.code in CODES, (what, problem)
            assert problem.message, what
            assert problem.hint, (what, problem)
            assert (problem.column is not None) == (":" in problem.where), (what, problem)
        assert any(problem.where.partition(":")[0] == name for problem in caught.value.problems) or name in (
            "caprpc.toml",
            "contracts.toml",
        ), (what, caught.value.problems)
        count += 1
    return count


def lines_of(place: Path, name: str) -> list[str]:
    return (place / name).read_text().splitlines(keepends=True)


def keys_of(lines: list[str]):
    """Yield number, table and key of each line that begins with a bare key outside of a list that goes on."""
    table = ""
    depth = 0
    for number, line in enumerate(lines):
        header = HEADER.match(line)
        if header and depth == 0:
            table = header.group(1)
            continue
        found = KEY.match(line) if depth == 0 else None
        bare = re.sub(r'"[^"]*"|#.*', "", line)
        depth += bare.count("[") + bare.count("{") - bare.count("]") - bare.count("}")
        if found and depth == 0:
            yield number, table, found.group(1)


def joined(lines: list[str], number: int, line: str) -> str:
    return "".join([*lines[:number], line, *lines[number + 1 :]])


def test_the_examples_are_all_there_and_load():
    assert {tomllib.loads((example / name).read_text())["kind"] for example, name in FILES} == KINDS
    assert len(EXAMPLES) >= 7
    for example in EXAMPLES:
        assert load(example).policies


@pytest.mark.parametrize(("example", "name"), FILES, ids=IDS)
def test_misspelt_keys_and_tables(copied, example, name):
    place = copied(example)
    lines = lines_of(place, name)
    mutants = []
    for number, table, key in keys_of(lines):
        if table not in FREELY_NAMED:
            for other in (key + key[-1], key[:-1] if len(key) > 2 else key + "s", key.upper()):
                mutants.append(
                    (f"{table}.{key} as {other}", joined(lines, number, KEY.sub(rf"{other}\2", lines[number])))
                )
    for number, line in enumerate(lines):
        header = HEADER.match(line)
        if header:
            word = header.group(1).split(".")[0]
            mutants.append((f"[{word}s]", joined(lines, number, line.replace(word, f"{word}s", 1))))
    assert refusals(place, name, mutants) == len(mutants) > 0


@pytest.mark.parametrize(("example", "name"), FILES, ids=IDS)
def test_duplicated_keys_and_tables(copied, example, name):
    place = copied(example)
    lines = lines_of(place, name)
    mutants = [
        (f"{table}.{key} twice", joined(lines, number, lines[number] * 2)) for number, table, key in keys_of(lines)
    ]
    text = "".join(lines)
    for line in lines:
        if HEADER.match(line) and not line.startswith("[["):
            mutants.append((f"{line.strip()} twice", f"{text}\n{line}"))
    assert refusals(place, name, mutants) == len(mutants) > 0


@pytest.mark.parametrize(("example", "name"), FILES, ids=IDS)
def test_keys_moved_into_other_tables(copied, example, name):
    place = copied(example)
    lines = lines_of(place, name)
    mutants = []
    for number, table, key in keys_of(lines):
        rest = [*lines[:number], *lines[number + 1 :]]
        for into in ("peer", "audit", "lend", "nowhere"):
            if table != into and not (into == "audit" and table == ""):
                header = f"[[{into}]]\n" if into == "lend" else f"[{into}]\n"
                at = [index for index, line in enumerate(rest) if line.startswith(header.strip())]
                moved = (
                    [*rest[: at[0] + 1], lines[number], *rest[at[0] + 1 :]]
                    if at
                    else [*rest, "\n", header, lines[number]]
                )
                mutants.append((f"{table}.{key} in {into}", "".join(moved)))
        if table:
            mutants.append((f"{table}.{key} at the top", "".join([lines[number], *rest])))
    assert refusals(place, name, mutants) == len(mutants) > 0


CHARACTERS = {
    "right-to-left override": "\u202e",
    "first strong isolate": "\u2068",
    "zero width space": "\u200b",
    "soft hyphen": "\u00ad",
    "no-break space": "\u00a0",
    "Hangul filler": "\u3164",
    "variation selector": "\ufe0f",
    "tag": "\U000e0041",
    "bell": "\a",
    "carriage return": "\r",
}


@pytest.mark.parametrize("character", CHARACTERS.values(), ids=CHARACTERS)
@pytest.mark.parametrize(("example", "name"), FILES, ids=IDS)
def test_characters_that_nobody_sees_are_refused_everywhere(copied, example, name, character):
    place = copied(example)
    text = (place / name).read_text()
    step = max(1, len(text) // 4)
    spots = [*range(0, len(text), step), len(text)]
    mutants = [(f"{character!a} at {spot}", text[:spot] + character + text[spot:]) for spot in spots]
    mutants.append((f"{character!a} in a comment", f"{text}\n# a{character}b\n"))
    assert refusals(place, name, mutants) == len(mutants)


HOMOGLYPHS = str.maketrans(
    {"a": "\u0430", "e": "\u0435", "o": "\u043e", "p": "\u0440", "c": "\u0441", "i": "\u0456", "x": "\u0445"}
)


@pytest.mark.parametrize(("example", "name"), FILES, ids=IDS)
def test_letters_of_another_alphabet_are_refused_in_keys_and_names(copied, example, name):
    place = copied(example)
    lines = lines_of(place, name)
    mutants = []
    for number, table, key in keys_of(lines):
        false = key.translate(HOMOGLYPHS)
        if false != key:
            # A quoted key is the only way to write one in TOML; a bare one is no TOML at all.
            for written in (false, f'"{false}"'):
                mutants.append((f"{table}.{key!a}", joined(lines, number, KEY.sub(rf"{written}\2", lines[number]))))
        texts = NAME if key == "parameters" else TEXT
        for text in texts.findall(lines[number]) if key not in FREE else ():
            false = text.translate(HOMOGLYPHS)
            if false != text:
                mutants.append(
                    (f"{text!a} of {key}", joined(lines, number, lines[number].replace(f'"{text}"', f'"{false}"', 1)))
                )
    assert refusals(place, name, mutants) == len(mutants) > 0


HUGE = {
    "deep lists": "x = " + "[" * 10_000 + "]" * 10_000,
    "deep tables": "x = " + "{a = " * 10_000 + "1" + "}" * 10_000,
    "a deep key": "a." * 10_000 + "a = 1",
    "many keys": "\n".join(f"k{number} = 1" for number in range(25_000)),
    "a long list": "x = [" + "1, " * 30_000 + "]",
    "a long number": "x = " + "9" * 5_000,
    "a long text": 'reason2 = "' + "x" * 100_000 + '"',
    "more than a file may have": "# " + "x" * 3_000_000,
}


@pytest.mark.parametrize("more", HUGE.values(), ids=HUGE)
@pytest.mark.parametrize(("example", "name"), FILES, ids=IDS)
def test_deep_and_huge_toml(copied, example, name, more):
    place = copied(example)
    text = (place / name).read_text()
    assert refusals(place, name, [("at the top", f"{more}\n{text}"), ("at the end", f"{text}\n[more]\n{more}\n")]) == 2


@pytest.mark.parametrize(("example", "name"), FILES, ids=IDS)
@pytest.mark.parametrize("what", ["link", "hard to find", "group", "world", "directory", "fifo"])
def test_files_that_are_no_plain_files_of_ours(copied, tmp_path, example, name, what):
    place = copied(example)
    file = place / name
    if what == "link":
        file.rename(tmp_path / "elsewhere.toml")
        file.symlink_to(tmp_path / "elsewhere.toml")
    elif what == "hard to find":
        file.rename(place / f"{name}.bak")
    elif what in ("group", "world"):
        file.chmod(0o664 if what == "group" else 0o646)
    else:
        file.unlink()
        if what == "directory":
            file.mkdir()
        else:
            os.mkfifo(file)
    with pytest.raises(PolicyError) as caught:
        load(place)
    assert any(problem.where.partition(":")[0] in (name, "caprpc.toml") for problem in caught.value.problems)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: "-".join(example.parts[-2:]))
def test_directories_that_others_may_write_or_that_are_links(copied, tmp_path, example):
    place = copied(example)
    for mode in (0o775, 0o757, 0o777):
        place.chmod(mode)
        with pytest.raises(PolicyError):
            load(place)
    place.chmod(0o755)
    (tmp_path / "link").symlink_to(place)
    with pytest.raises(PolicyError):
        load(tmp_path / "link")


@pytest.mark.parametrize(("example", "name"), FILES, ids=IDS)
def test_a_file_swapped_while_the_directory_is_read(copied, monkeypatch, example, name):
    """Whenever it happens: what is loaded is all of what was there before, or nothing."""
    place = copied(example)
    before = load(place).digest
    reads = len([one for one in place.iterdir() if one.suffix == ".toml"])
    refused = allowed = 0
    for after in range(1, reads + 1):
        place = copied(example)
        real, count = directory.read_file, 0

        def swapping(descriptor, file, problems, after=after, place=place, real=real):
            nonlocal count
            content = real(descriptor, file, problems)
            count += 1
            if count == after:
                (place / f"{name}.new").write_text((place / name).read_text() + "\n# other\n")
                (place / f"{name}.new").chmod(0o644)
                (place / f"{name}.new").replace(place / name)
            return content

        monkeypatch.setattr(directory, "read_file", swapping)
        try:
            loaded = load(place)
        except PolicyError as exc:
            refused += [(one.where, one.message) for one in exc.problems] == [(name, SWAPPED)]
        else:
            allowed += 1
            # It was swapped before it was read: what counts is that this is what is on the disk, whole.
            monkeypatch.setattr(directory, "read_file", real)
            assert loaded.digest == load(place).digest != before
        monkeypatch.setattr(directory, "read_file", real)
    assert refused >= 1
    assert refused + allowed == reads


def test_a_directory_exchanged_all_the_time_is_loaded_whole_or_not_at_all(copied, tmp_path):
    place = copied(EXAMPLES[0])
    versions = {}
    for name in ("one", "two"):
        shutil.copytree(place, tmp_path / name)
        index = tmp_path / name / "caprpc.toml"
        index.write_text(index.read_text().replace("version = 1", f"version = {len(versions) + 1}"))
        for file in (tmp_path / name).glob("*.toml"):
            file.write_text(f"{file.read_text()}\n# {name}\n")
        versions[name] = load(tmp_path / name).digest
    shutil.rmtree(place)
    (tmp_path / "one").rename(place)
    done = threading.Event()

    def exchange():
        while not done.is_set():
            place.rename(tmp_path / "out")
            (tmp_path / "two").rename(place)
            (tmp_path / "out").rename(tmp_path / "two")

    thread = threading.Thread(target=exchange)
    thread.start()
    seen, faults = set(), []
    try:
        for _ in range(300):
            try:
                seen.add(load(place).digest)
            except PolicyError as exc:
                faults.append(str(exc))
    finally:
        done.set()
        thread.join()
    assert seen <= set(versions.values())
    assert all("cannot be opened" in fault for fault in faults)
