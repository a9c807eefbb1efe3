"""The page on declaring interfaces: its code runs, its services are called, its messages are those of the code."""

import queue
import re
import sys
from collections.abc import Iterator
from decimal import Decimal
from types import ModuleType

import pytest

from caprpc import Interface, RemoteError, method
from tests.docs.howto import HOW_TO, blocks

MODULE = "how_to_declare"


@pytest.fixture(scope="module")
def page():
    """The module of the page, importable while the tests run: interfaces look names up in their module."""
    module = sys.modules[MODULE] = ModuleType(MODULE)
    for block in blocks("declare-an-interface", "python"):
        exec(compile(block, MODULE, "exec"), module.__dict__)
    yield module
    del sys.modules[MODULE]


def test_the_ledger_of_the_page_is_called(page, caprpc_pair):
    ledger = caprpc_pair({"ledger": page.MyLedger()}).client.root("ledger", page.Ledger)
    assert ledger.currency == "EUR"
    posting = page.Posting("A", Decimal("1.10"))
    assert [ledger.post(posting), ledger.post(posting, note="again")] == [1, 2]
    assert ledger.balance("A") == Decimal("2.20")
    assert list(ledger.history("A", limit=1)) == [posting]
    with pytest.raises(page.UnknownAccount, match="^B\n"):
        ledger.balance("B")
    assert not hasattr(ledger, "close_the_books")


def test_objects_are_taken_and_given_as_the_page_says(page, caprpc_pair, tmp_path):
    class MyImporter(page.Importer):
        def load(self, lines, progress):
            for number, _ in enumerate(lines.readlines(), 1):
                progress(number)
            return number

    class MyBank(page.Bank):
        def ledger(self, client):
            return page.MyLedger()

    seen = []
    (tmp_path / "lines").write_text("a\nb\n", encoding="utf-8")
    pair = caprpc_pair({"importer": MyImporter(), "bank": MyBank()})
    with open(tmp_path / "lines", encoding="utf-8") as lines:
        assert pair.client.root("importer", page.Importer).load(lines, seen.append) == 2
    assert seen == [1, 2]
    assert pair.client.root("bank", page.Bank).ledger("client").currency == "EUR"


def test_the_foreign_class_of_the_page_stands_for_its_interface(page, caprpc_pair):
    class Post(Interface):
        @method(effect="read")
        def inbox(self) -> page.Inbox: ...

    class MyPost(Post):
        def __init__(self):
            self.items = queue.SimpleQueue()

        def inbox(self):
            return self.items

    post = MyPost()
    caprpc_pair({"post": post}).client.root("post", Post).inbox().put("hello")
    assert post.items.get() == "hello"


def _undecorated():
    class I(Interface):  # noqa: E742
        def m(self) -> int: ...


def _without_wire_form():
    class I(Interface):  # noqa: E742
        @method(effect="read")
        def m(self, pattern: re.Pattern[str]) -> None: ...


def _alike():
    class I(Interface):  # noqa: E742
        @method(effect="read")
        def m(self, values: list[int] | list[str]) -> None: ...


def _unknown_name():
    class I(Interface):  # noqa: E742
        @method(effect="read")
        def m(self, value: "Missing") -> None: ...  # noqa: F821

    from caprpc.interface import contract_of

    contract_of(I)


def _incomplete(pair):
    class I(Interface):  # noqa: E742
        @method(effect="read")
        def m(self) -> None: ...

    class X(I):
        pass

    pair({"x": X()})


MESSAGES = {
    "... is not declared; decorate it with @method": _undecorated,
    "... cannot cross; ...": _without_wire_form,
    "A and B look alike on the wire": _alike,
    "name 'X' is not defined when its annotations are read": _unknown_name,
    "X does not implement m of I": _incomplete,
}
OF_A_CALL = "expected I, got T; its class must inherit from I"


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_of_the_page_are_those_of_the_code(message, caprpc_pair):
    fails = MESSAGES[message]
    words = message.strip(". ").replace("'X'", "'Missing'").replace("A and B ", "")
    with pytest.raises(Exception) as caught:
        fails(caprpc_pair) if fails is _incomplete else fails()
    assert words in str(caught.value)


def test_message_for_an_object_without_the_interface(caprpc_pair):
    class I(Interface):  # noqa: E742
        @method(effect="read")
        def walk(self) -> Iterator[int]: ...

    class Taker(Interface):
        @method(effect="read")
        def take(self, one: I) -> None: ...

    class T:
        pass

    class MyTaker(Taker):
        def take(self, one):
            raise AssertionError("nothing is sent")

    taker = caprpc_pair({"taker": MyTaker()}, [I]).client.root("taker", Taker)
    with pytest.raises(TypeError, match=re.escape(OF_A_CALL)):
        taker.take(T())
    with pytest.raises((TypeError, RemoteError)):
        taker.take(5)


def test_every_message_of_the_page_is_tested():
    text = (HOW_TO / "declare-an-interface.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(.+?)` \|", text, re.MULTILINE)) == {*MESSAGES, OF_A_CALL}
