"""The page about typed stubs: its commands are run, and its Python against a server."""

import ast
import re
import sys

import pytest
from click.testing import CliRunner

import caprpc
import caprpc.aio
from caprpc.cli import main
from caprpc.testing.deployment import Deployment

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PEER = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{}"]\n'
LISTED = 'call = ["balance", "history"]\niterate = true\n'
INTERFACES = '''"""What the shop offers."""

from collections.abc import Iterator
from dataclasses import dataclass

from caprpc import Interface, method


@dataclass
class Row:
    amount: int


class Ledger(Interface):
    @method(effect="read")
    def balance(self, account: str) -> int: ...

    @method(effect="read")
    def history(self, account: str) -> Iterator[Row]: ...

    @method(effect="read")
    def __iter__(self) -> Iterator[str]: ...
'''


@pytest.fixture
def page(repository):
    return BLOCK.findall((repository / "docs" / "how-to" / "typed-stubs.md").read_text(encoding="utf-8"))


@pytest.fixture
def shop(tmp_path, monkeypatch, page):
    """The package of the page in the current directory, with what the page's first command writes."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "shop" / "interfaces.py").write_text(INTERFACES, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    commands = [text.strip().removeprefix("$ caprpc ") for language, text in page if language == "console"]
    yield [CliRunner().invoke(main, command.split(), prog_name="caprpc") for command in commands]
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


async def test_the_page_runs(page, shop, tmp_path, capsys):
    assert [result.exit_code for result in shop] == [0, 0], [result.output for result in shop]
    from shop.interfaces import Ledger, Row

    class LedgerOfAcme(Ledger):
        def balance(self, account):
            return 12

        def history(self, account):
            return iter([Row(5), Row(7)])

        def __iter__(self):
            return iter("AB")

    deployment = Deployment(tmp_path / "site")
    offer = '[roots]\nledger = "Ledger"\n[offer.Ledger]\ninterface = "Ledger"\n' + LISTED
    serving = deployment.side("server", {"client": PEER.format("client") + offer}, [Ledger])
    accept = "[accept.Ledger]\n" + LISTED + "[accept.Iterator]\niterate = true\n"
    dialing = deployment.side("client", {"server": PEER.format("server") + accept}, [Ledger])
    blocking, awaiting = [text for language, text in page if language == "python"]
    server = caprpc.Server({"ledger": LedgerOfAcme()}, **serving.directories)
    address = server.listen("127.0.0.1:0")
    with server:
        with caprpc.connect(address, **dialing.directories) as peer:
            exec(blocking, {"peer": peer, "Ledger": Ledger})
        async with caprpc.aio.connect(address, **dialing.directories) as peer:
            code = compile(awaiting, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            await eval(code, {"peer": peer})
    assert capsys.readouterr().out.split() == ["5", "7"]
