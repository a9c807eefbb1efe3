"""The page about tests, run by pytest as a reader would."""

import re

import pytest

BOOKSHOP = """
from caprpc import Interface, method

class Books(Interface):
    @method(effect="read")
    def count(self) -> int: ...

    @method(effect="write")
    def add(self, title: str) -> None: ...

class Shelf(Books):
    def __init__(self):
        self.titles = []

    def count(self):
        return len(self.titles)

    def add(self, title):
        self.titles.append(title)
"""


def test_every_example_of_the_page_passes(pytester, repository, monkeypatch):
    page = (repository / "docs" / "how-to" / "test-your-service.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    pytester.makepyfile(bookshop=BOOKSHOP, test_bookshop="\n".join(blocks))
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    options = [] if _is_announced() else ["-p", "caprpc.testing.plugin"]
    monkeypatch.setenv("PYTHONPATH", str(repository))
    result = pytester.runpytest_subprocess("-W", "error", *options)
    result.assert_outcomes(passed=len(re.findall(r"^(?:async )?def test_", "\n".join(blocks), re.MULTILINE)))


def test_every_fixture_is_on_the_page(repository):
    from caprpc.testing import plugin

    page = (repository / "docs" / "how-to" / "test-your-service.md").read_text(encoding="utf-8")
    fixtures = {name for name in vars(plugin) if name.startswith("caprpc_")}
    assert fixtures == set(re.findall(r"^\| `(caprpc_\w+)` \|", page, re.MULTILINE))


def _is_announced():
    from importlib.metadata import entry_points

    return any(point.value == "caprpc.testing.plugin" for point in entry_points(group="pytest11"))


@pytest.fixture
def repository(request):
    return request.config.rootpath
