"""Every block and command of every how-to page is run by a test, or it is said here why it is not."""

import re
from pathlib import Path

import pytest

from tests.docs.howto import HOW_TO, blocks, commands

ROOT = HOW_TO.parents[1]
HERE = "tests/docs/"
PYTHON = {
    "deadlines-and-cancellation": (6, "tests/integration/calls/test_how_to.py"),
    "declare-an-interface": (5, HERE + "test_howto_declare.py"),
    "errors": (6, HERE + "test_how_to_errors.py"),
    "follow-connections": (2, HERE + "test_howto_examples.py"),
    "forward": (2, HERE + "test_howto_authority.py"),
    "iterate-and-stream": (8, HERE + "test_how_to_iterate_and_stream.py"),
    "migrate-from-rpyc": (1, HERE + "test_migration_page.py"),
    "narrow-and-revoke": (3, HERE + "test_howto_authority.py"),
    "pipeline-and-futures": (9, "tests/integration/calls/test_how_to.py"),
    "read-the-audit-log": (1, HERE + "test_howto_commands.py"),
    "reconnect": (3, HERE + "test_howto_examples.py"),
    "run-a-server": (1, HERE + "test_howto_examples.py"),
    "serve-and-call": (1, HERE + "test_howto_services.py"),
    "sturdy-references": (3, HERE + "test_howto_examples.py"),
    "test-your-service": (6, "tests/testing/test_plugin_in_use.py"),
    "typed-stubs": (2, HERE + "test_typed_stubs_page.py"),
    "use-asyncio": (2, HERE + "test_howto_services.py"),
    "use-unix-sockets": (2, HERE + "test_howto_examples.py"),
}
"""Page -> how many blocks of Python it has, and the test that runs all of them."""

COMMANDS = {
    "read-the-audit-log": (16, HERE + "test_howto_commands.py"),
    "review-a-policy-change": (8, HERE + "test_howto_commands.py"),
    "run-a-private-ca": (8, HERE + "test_howto_commands.py"),
    "run-a-server": (7, HERE + "test_howto_commands.py"),
    "serve-and-call": (4, HERE + "test_howto_services.py"),
    "sturdy-references": (4, HERE + "test_howto_examples.py"),
    "typed-stubs": (2, HERE + "test_typed_stubs_page.py"),
    "use-the-shell": (3, HERE + "test_howto_services.py"),
    "witness-and-reconcile": (5, HERE + "test_howto_commands.py"),
    "write-a-policy": (6, HERE + "test_howto_commands.py"),
}
"""Page -> how many commands it has, and the test that runs them."""

NOT_RUN = {
    "contribute": "the commands run these tests, build the pages and mutate the code: CI runs check, test and docs; "
    "tests/docs/test_documents.py knows each target",
}
"""Page -> why its commands are not run."""

PAGES = sorted(path.stem for path in HOW_TO.glob("*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_all_python_of_a_page_is_run_by_a_test(page):
    count, test = PYTHON.get(page, (0, ""))
    assert len(blocks(page, "python")) == count
    if count:
        assert page in _text(test)


@pytest.mark.parametrize("page", PAGES)
def test_all_commands_of_a_page_are_run_by_a_test_or_it_says_why_not(page):
    lines = commands(page)
    if page in NOT_RUN:
        assert lines
        assert len(NOT_RUN[page]) > 40
        return
    count, test = COMMANDS.get(page, (0, ""))
    assert len(lines) == count
    if count:
        assert page in _text(test)


def test_pages_have_no_blocks_that_nobody_knows():
    """TOML, INI and text are read beside the code that they belong to."""
    known = {"python", "console", "sh", "toml", "ini", "text", "{toctree}"}
    fences = {
        fence for page in PAGES for fence in re.findall(r"^```(\S+)$", (HOW_TO / f"{page}.md").read_text("utf-8"), re.M)
    }
    assert fences <= known


def _text(test):
    return (ROOT / Path(test)).read_text(encoding="utf-8")
