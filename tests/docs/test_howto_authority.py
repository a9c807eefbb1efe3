"""The pages on lesser references and on passing them on do what they say."""

import re

import pytest

import caprpc
from caprpc import Interface, Server, method
from caprpc.testing.deployment import Deployment

PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TOML = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PEER = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{}"]\n'


class Books(Interface):
    @method(effect="read")
    def count(self) -> int: ...

    @method(effect="write")
    def add(self, title: str) -> None: ...


class Shelves(Interface):
    @method(effect="write")
    def keep(self, books: Books) -> None: ...

    @method(effect="read")
    def counted(self) -> int: ...


class Gateway(Interface):
    @method(effect="read")
    def books(self) -> Books: ...


class Shelf(Books):
    def count(self):
        return 1

    def add(self, title):
        pass


class Rooms(Shelves):
    def keep(self, books):
        self.books = books

    def counted(self):
        return self.books.count()


@pytest.fixture
def page(repository):
    return lambda name, block=PYTHON: block.findall((repository / "docs" / "how-to" / name).read_text(encoding="utf-8"))


def test_narrow_lend_and_revoke(page, tmp_path, capsys):
    deployment = Deployment(tmp_path / "site")
    offer = PEER.format("client") + (
        '[roots]\nbooks = "Books"\nshelves = "Shelves"\n[offer.Books]\ninterface = "Books"\ncall = ["count", "add"]\n'
        '[offer.Shelves]\ninterface = "Shelves"\ncall = ["keep", "counted"]\n[accept.Books]\ncall = ["count"]\n'
    )
    accept = PEER.format("server") + (
        '[accept.Books]\ncall = ["count", "add"]\n[accept.Shelves]\ncall = ["keep", "counted"]\n'
        '[offer.Lent]\ninterface = "Books"\ncall = ["count"]\n'
        '[[lend]]\nto = "Shelves.keep"\nparam = "books"\nas = "Lent"\nlifetime = "connection"\n'
    )
    serving = deployment.side("server", {"client": offer}, [Books, Shelves])
    dialing = deployment.side("client", {"server": accept}, [Books, Shelves])
    server = Server({"books": Shelf(), "shelves": Rooms()}, **serving.directories)
    names = {"url": server.listen("127.0.0.1:0"), "directories": dialing.directories, "shelf": Shelf()}
    names |= {"Books": Books, "Shelves": Shelves}
    with server:
        for block in page("narrow-and-revoke.md"):
            exec(block, names)
    said = capsys.readouterr().out.splitlines()
    assert said == ["1", "['count() -> int']", "only counting", "True", "1", "over"]


def test_forward(page, tmp_path, capsys):
    deployment = Deployment(tmp_path / "site")
    owners, gateways = page("forward.md", TOML)
    front, shelf = page("forward.md")
    accept = '[accept.Books]\ncall = ["count"]\n'
    owner = deployment.side(
        "owner", {"gateway": PEER.format("gateway") + '[roots]\nbooks = "Books"\n' + owners}, [Books]
    )
    third = PEER.format("third") + '[roots]\ngateway = "Gateway"\n[offer.Gateway]\ninterface = "Gateway"\n'
    third += 'call = ["books"]\n[offer.Gateway.returns]\nbooks = "PassedBooks"\n' + gateways
    gateway = deployment.side("gateway", {"owner": PEER.format("owner") + accept, "third": third}, [Books, Gateway])
    accept_all = PEER.format("gateway") + '[accept.Gateway]\ncall = ["books"]\n' + accept
    client = deployment.side("third", {"gateway": accept_all}, [Books, Gateway])
    names = {"caprpc": caprpc, "Books": type("Full", (Shelf,), {}), "Gateway": Gateway}
    exec(front, names)
    exec(shelf, names)
    books = Server({"books": names["Shelf"]()}, **owner.directories, audit=tmp_path / "owner")
    url = books.listen("127.0.0.1:0")
    with books:
        with caprpc.connect(url, **gateway.directories, audit=tmp_path / "up") as up:
            gate = names["Front"](up.root("books", Books))
            passing = Server({"gateway": gate}, **gateway.directories, audit=tmp_path / "front")
            address = passing.listen("127.0.0.1:0")
            with passing, caprpc.connect(address, **client.directories, audit=tmp_path / "third") as peer:
                assert peer.root("gateway", Gateway).books().count() == 1
    assert "('spiffe://test.example/gateway', 'spiffe://test.example/third')" in capsys.readouterr().out
