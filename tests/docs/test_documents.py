"""What the documents say is so: limits, codes, commands, and every test and file they name."""

import re
from dataclasses import fields

import click
import pytest

import caprpc
import caprpc.aio
import caprpc.interfaces
from caprpc import errors, limits
from caprpc.cli import exits, main

CODE = re.compile(r"`([^`\n]+)`")


def rows(page, heading):
    """Return the cells of the first table below a heading of a page."""
    part = page.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture
def reference(repository):
    return lambda name: (repository / "docs" / "reference" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("heading", "kind"), [("Of one connection", limits.Limits), ("Of one server", limits.ServerLimits)]
)
def test_limits_page_has_every_limit_with_its_default(reference, heading, kind):
    documented = {row[0].strip("`"): row[1] for row in rows(reference("limits.md"), heading)}
    assert documented == {field.name: str(field.default) for field in fields(kind)}


def test_limits_page_gives_every_limit_a_unit_and_a_reason(reference):
    for heading in ("Of one connection", "Of one server"):
        assert all(unit and len(why) > 5 for _, _, unit, why in rows(reference("limits.md"), heading))


def test_limits_page_has_the_fixed_values(reference):
    text = reference("limits.md")
    for name in ("FIRST_FRAME_BYTES", "HANDSHAKE_BYTES"):
        assert re.search(rf"`{name}`\) \| {getattr(limits, name)} ", text), name


def test_errors_page_has_every_exception(reference):
    documented = {row[0].strip("`") for row in rows(reference("errors.md"), "Exceptions")}
    classes = {name for name, c in vars(errors).items() if isinstance(c, type) and issubclass(c, errors.CapRPCError)}
    assert documented == classes - {"CapRPCError", "ProtocolError"}


def test_errors_page_has_every_answer_code(reference):
    assert {row[0].strip("`") for row in rows(reference("errors.md"), "Answer codes")} == errors.ERROR_CODES


def test_errors_page_has_every_connection_code(reference):
    documented = {row[0].strip("`") for row in rows(reference("errors.md"), "Connection codes")}
    assert documented == errors.CLOSE_CODES | {"lost"}


def test_errors_page_has_every_exit_code(reference):
    documented = {int(row[0]) for row in rows(reference("errors.md"), "Exit codes")}
    assert documented == {value for name, value in vars(exits).items() if name.startswith("EX_")}


def test_command_page_has_every_command(reference):
    text = reference("cli.md")
    assert [name for name in main.list_commands(click.Context(main)) if f"`caprpc {name}" not in text] == []


def test_every_test_that_a_document_names_exists(repository):
    """A promise that names its test is worth something only while the test is there."""
    pages = [*repository.glob("*.md"), *(repository / "docs").rglob("*.md")]
    missing = []
    for page in pages:
        for name in CODE.findall(page.read_text(encoding="utf-8")):
            if not re.match(r"tests/[\w/]+(\.py)?(::|/?$)", name):
                continue
            path, _, test = name.partition("::")
            target = repository / path
            if not target.exists() or (test and f"def {test}(" not in target.read_text(encoding="utf-8")):
                missing.append(f"{page.relative_to(repository)}: {name}")
    assert not missing, "\n".join(missing)


def test_every_local_link_of_the_top_level_pages_leads_somewhere(repository):
    broken = []
    for page in repository.glob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (repository / target).exists():
                broken.append(f"{page.name}: {target}")
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("module", [caprpc, caprpc.aio, caprpc.interfaces], ids=lambda module: module.__name__)
def test_api_page_has_every_public_name(reference, module):
    """Errors come from their module as a whole; everything else is listed."""
    documented = set(re.findall(r"^\.\. (?:auto\w+|py:class):: ([\w.]+)", reference("api.md"), flags=re.MULTILINE))
    documented |= {f"caprpc.{name}" for name in vars(errors)}
    shared = {"register_adapter"} if module is caprpc.interfaces else set()
    assert {f"{module.__name__}.{name}" for name in module.__all__ if name not in shared} - documented == set()


def test_every_make_target_that_a_document_names_exists(repository):
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE))
    named = set()
    for page in [*repository.glob("*.md"), *(repository / "docs").rglob("*.md")]:
        named |= set(re.findall(r"(?:^\$ |`)make ([a-z-]+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert {"demo", "test", "check", "docs"} <= named
    assert named - targets == set()


def test_ci_runs_what_the_readme_says(repository):
    script = repository / ".ci" / "run"
    assert script.stat().st_mode & 0o100
    steps = (
        re.search(r"^for name in ([a-z ]+); do", script.read_text(encoding="utf-8"), flags=re.MULTILINE)
        .group(1)
        .split()
    )
    readme = (repository / "README.md").read_text(encoding="utf-8")
    assert set(steps) == {"check", "test", "docs", "demo"}
    assert {"make demo", "make test", "make docs"} <= set(re.findall(r"make [a-z]+", readme))
