"""What a peer has in hand when its reference ends, tried through every door; and what each door counts as."""

import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack

import pytest
from hostile_peer import own, until
from vault_service import Running

import caprpc
import caprpc.aio
from caprpc import Interface, attribute, method
from caprpc.ids import OP_ATTENUATE, OP_CALL, OP_GET, OP_NEXT, OP_REVOKE, OP_SET
from caprpc.interfaces import ByteSink, ByteSource
from caprpc.testing import everything
from caprpc.wire import messages as m
from caprpc.wire.codec import pack, unpack

NO_TERMS = [None] * 6
KEPT = m.Meta(None, None, True)


class Book(Interface):
    title: str = attribute(writable=True)

    @method(effect="read")
    def page(self) -> str: ...

    @method(effect="read")
    def pages(self) -> Iterator[int]: ...

    @method(effect="read")
    def content(self) -> ByteSource: ...

    @method(effect="write")
    def notes(self) -> ByteSink: ...

    @method(effect="read")
    def same(self) -> "Book": ...

    @method(effect="read", blocking=True)
    def slow(self) -> "Book": ...


class Library(Interface):
    @method(effect="read")
    def book(self) -> Book: ...

    @method(effect="read")
    def take(self, book: Book) -> str: ...

    @method(effect="admin", blocking=True)
    def end(self, way: str) -> None: ...


class Diary(Book):
    def __init__(self):
        self.title = "diary"
        self.gate = threading.Event()
        self.slow_began = threading.Event()
        self.closed = threading.Event()
        self.written = []
        self.ran = []

    def page(self):
        self.ran.append("page")
        return "text"

    def pages(self):
        def numbers():
            try:
                yield from range(1_000_000)
            finally:
                self.closed.set()

        return numbers()

    def content(self):
        return (b"some bytes" for _ in range(1_000_000))

    def notes(self):
        return Notes(self.written)

    def same(self):
        return self

    def slow(self):
        self.slow_began.set()
        self.gate.wait(10)
        return self


class Notes(ByteSink):
    def __init__(self, written):
        self.written = written

    def write(self, data):
        self.written.append(data)

    def flush(self):
        pass

    def close(self):
        pass


class City(Library):
    """Hands out one book, as a handle or as it is."""

    def __init__(self):
        self.diary = Diary()
        self.given = caprpc.attenuate(self.diary)

    def book(self):
        return self.given

    def take(self, book):
        return "taken"

    def reload(self, world, text, version):
        world.deployment.rewrite(self.running.side, {"mallory": text}, version)
        self.running.reload()

    def end(self, way):
        if way == "handle":
            caprpc.revoke(self.given)
        else:
            caprpc.revoke(self.diary)


class LendingCity(City):
    """Lends the book for a block that ends when it is told."""

    def __init__(self):
        super().__init__()
        self.block = ExitStack()
        self.given = self.block.enter_context(caprpc.lend(self.diary, Book))

    def end(self, way):
        self.block.close()


class LendingCityOnLoop(City):
    def __init__(self):
        super().__init__()
        self.block = AsyncExitStack()

    async def book(self):
        return await self.block.enter_async_context(caprpc.aio.lend(self.diary, Book))

    async def end(self, way):
        await self.block.aclose()


@pytest.fixture
def city(request, world, driver):
    kinds = {"blocking": LendingCity, "aio": LendingCityOnLoop}
    library = kinds[driver]() if request.node.callspec.params.get("way") == "block" else City()
    offer, _ = everything({"library": library}, server="server", client="mallory")
    side = world.deployment.side("server-of-city", {"mallory": offer}, [Library, Book], spiffe=world.server_id)
    library.running = Running(driver, {"library": library}, side)
    library.offer = offer
    yield library
    library.diary.gate.set()
    library.running.stop()


def opened(world, city):
    """Return a peer that pipelines, the number of its library, and that of its book."""
    peer = world.dial(city.running).open(features=("pipeline",))
    library = peer.root("library")
    return peer, library, peer.value(library, "book").export


class InHand:
    """Everything that a peer may have obtained through a book while it could."""

    def __init__(self, peer, library, book):
        self.peer, self.library, self.book = peer, library, book
        self.iterator = peer.value(book, "pages").export
        self.source = peer.value(book, "content").export
        self.sink = peer.value(book, "notes").export
        self.child = peer.value(book, "", NO_TERMS, operation=OP_ATTENUATE).export
        keep = peer.call(book, "same", meta=KEPT)
        peer.send(keep)
        assert isinstance(peer.answer(keep.question), m.Return)
        self.kept = ~keep.question
        for target, member, args, operation in self.doors().values():
            answer = peer.ask(target, member, args, operation=operation)
            assert isinstance(answer, m.Return), (target, member, answer)

    def doors(self):
        return {
            "method": (self.book, "page", (), OP_CALL),
            "get": (self.book, "title", (), OP_GET),
            "set": (self.book, "title", ("changed",), OP_SET),
            "new iterator": (self.book, "pages", (), OP_CALL),
            "iterator": (self.iterator, "", (5, 1_000), OP_NEXT),
            "read": (self.source, "read", (10,), OP_CALL),
            "write": (self.sink, "write", (b"note",), OP_CALL),
            "derive": (self.book, "", NO_TERMS, OP_ATTENUATE),
            "derived": (self.child, "page", (), OP_CALL),
            "kept answer": (self.kept, "page", (), OP_CALL),
        }

    def outcomes(self):
        """Return what comes of each door."""
        found = {}
        for name, (target, member, args, operation) in self.doors().items():
            found[name] = code_of(self.peer.ask(target, member, args, operation=operation))
        batch = m.Batch(self.peer.next_question(), None, [m.Run(self.book, OP_CALL, "page", 2, pack([[[], {}]] * 2))])
        self.peer.send(batch)
        found["batch"] = {failure.code for failure in self.peer.answer(batch.question).failures}
        found["argument"] = code_of(self.peer.ask(self.library, "take", [own(self.book)]))
        return found


def code_of(answer):
    return answer.code if isinstance(answer, m.Raise) else "ok"


ALL_ENDED = dict.fromkeys(
    ("method", "get", "set", "new iterator", "iterator", "read", "write", "derive", "derived", "kept answer"), "denied"
)
ALL_ENDED |= {"batch": {"denied"}, "argument": "invalid-arguments"}
THROUGH_IT = ("iterator", "read", "write")


@pytest.mark.parametrize("way", ["handle", "block", "object", "holder"])
def test_no_door_is_open_once_a_reference_has_ended(world, city, way):
    peer, library, book = opened(world, city)
    if way == "holder":
        book = peer.value(book, "", NO_TERMS, operation=OP_ATTENUATE).export
    held = InHand(peer, library, book)
    ran, written = len(city.diary.ran), len(city.diary.written)
    if way == "holder":
        assert code_of(peer.ask(book, "", [True], operation=OP_REVOKE)) == "ok"
    else:
        peer.value(library, "end", [way])
    # What was obtained through a reference to an object ends with a handle, and not with the object.
    expected = ALL_ENDED | (dict.fromkeys(THROUGH_IT, "ok") if way == "object" else {})
    assert held.outcomes() == expected
    assert (len(city.diary.ran), city.diary.title) == (ran, "changed")
    assert len(city.diary.written) == written + (way == "object")


def test_no_door_is_open_once_the_time_is_over(world, city):
    peer, library, book = opened(world, city)
    terms = [None, None, None, 2.5, None, None]
    short = peer.value(book, "", terms, operation=OP_ATTENUATE).export
    over = time.monotonic() + 2.5
    held = InHand(peer, library, short)
    ran = len(city.diary.ran)
    time.sleep(over - time.monotonic())
    assert held.outcomes() == ALL_ENDED
    assert len(city.diary.ran) == ran


@pytest.mark.parametrize("way", ["handle", "block", "holder"])
def test_generator_is_closed_in_mid_course(world, city, way):
    """Nobody can go on with it, so that what it holds is given back."""
    peer, library, book = opened(world, city)
    if way == "holder":
        book = peer.value(book, "", NO_TERMS, operation=OP_ATTENUATE).export
    iterator = peer.value(book, "pages").export
    peer.value(iterator, "", (5, 1_000), operation=OP_NEXT)
    assert not city.diary.closed.is_set()
    if way == "holder":
        peer.ask(book, "", [True], operation=OP_REVOKE)
    else:
        peer.value(library, "end", [way])
    assert city.diary.closed.wait(5)


@pytest.mark.parametrize("way", ["handle", "block", "object"])
def test_calls_that_wait_for_an_answer_do_not_run_once_it_has_ended(world, city, way):
    peer, library, book = opened(world, city)
    slow = peer.call(book, "slow", meta=KEPT)
    waiting = [peer.call(~slow.question, "page"), peer.call(~slow.question, "title", operation=OP_GET)]
    peer.send(slow, *waiting)
    assert city.diary.slow_began.wait(5)
    peer.value(library, "end", [way])
    city.diary.gate.set()
    assert peer.answer(slow.question).code == "revoked"
    assert {peer.answer(call.question).code for call in waiting} == {"broken"}
    assert city.diary.ran == []


def test_principal_that_is_put_out_in_mid_course_gets_nothing_more(world, city):
    peer, library, book = opened(world, city)
    held = InHand(peer, library, book)
    slow = peer.call(book, "slow", meta=KEPT)
    peer.send(slow, peer.call(~slow.question, "page"), peer.call(held.iterator, "", (5, 1_000), operation=OP_NEXT))
    assert city.diary.slow_began.wait(5)
    ran = len(city.diary.ran)
    city.running.server.revoke(peer_id(world))
    city.diary.gate.set()
    last = peer.rest()
    assert last[-1].code == "revoked"
    assert not [message for message in last if isinstance(message, m.Return) and message.question == slow.question]
    until(city.diary.closed.is_set)
    assert len(city.diary.ran) == ran


def peer_id(world):
    return f"spiffe://{world.deployment.trust_domain}/mallory"


def through(peer, book, door):
    """Go through one door, and return the code of each operation."""
    if door == "batch":
        batch = m.Batch(peer.next_question(), None, [m.Run(book, OP_CALL, "page", 3, pack([[[], {}]] * 3))])
        peer.send(batch)
        failures = peer.answer(batch.question).failures
        return [failure.code for failure in failures] or ["ok"] * 3
    if door == "pipeline":
        first = peer.call(book, "same", meta=KEPT)
        rest = [peer.call(~first.question, "page"), peer.call(~first.question, "title", operation=OP_GET)]
        peer.send(first, *rest)
        return [code_of(peer.answer(call.question)) for call in (first, *rest)]
    if door == "attribute":
        return [
            code_of(peer.ask(book, "title", args, operation=operation))
            for operation, args in ((OP_GET, ()), (OP_SET, ("x",)), (OP_GET, ()))
        ]
    if door == "derived":
        child = peer.value(book, "", NO_TERMS, operation=OP_ATTENUATE).export
        return [code_of(peer.ask(child, "page")) for _ in range(3)]
    member, then = {
        "iterator": ("pages", lambda got: peer.ask(got, "", (2, 1_000), operation=OP_NEXT)),
        "read": ("content", lambda got: peer.ask(got, "read", (10,))),
        "write": ("notes", lambda got: peer.ask(got, "write", (b"note",))),
    }[door]
    got = peer.ask(book, member)
    if not isinstance(got, m.Return):
        return [code_of(got)] * 3

    number = unpack(got.payload).export
    return ["ok", *(code_of(then(number)) for _ in range(2))]


DOORS = ["batch", "pipeline", "attribute", "derived", "iterator", "read", "write"]


@pytest.mark.parametrize("door", DOORS)
def test_each_operation_counts_through_every_door(world, city, door):
    peer, _, book = opened(world, city)

    def less(uses):
        return peer.value(book, "", [None, None, uses, None, None, None], operation=OP_ATTENUATE).export

    enough, short = less(3), less(2)
    assert through(peer, enough, door) == ["ok"] * 3
    assert peer.ask(enough, "page").code == "denied"
    # A batch is let through as a whole.
    assert through(peer, short, door) == (["denied"] * 3 if door == "batch" else ["ok", "ok", "denied"])


@pytest.mark.parametrize("door", DOORS)
def test_rate_holds_through_every_door(world, city, door):
    peer, _, book = opened(world, city)
    terms = [None, None, None, None, 0.001, None]
    slow = peer.value(book, "", terms, operation=OP_ATTENUATE).export
    assert through(peer, slow, door) == (["limit"] * 3 if door == "batch" else ["ok", "limit", "limit"])
    assert code_of(peer.ask(slow, "page")) == ("ok" if door == "batch" else "limit")


TAKEN_AWAY = {
    "method": (['"page", '], {"method", "derived", "kept answer", "batch"}),
    "attribute": (['get = ["title"]\n'], {"get"}),
    "iteration": (['"pages", ', "iterate = true\n[offer.Book.returns]"], {"new iterator", "iterator"}),
    "stream to read": (['"read", '], {"read"}),
    "stream to write": (['"write", '], {"write"}),
}


@pytest.mark.parametrize("what", TAKEN_AWAY)
def test_narrower_policy_closes_open_doors_at_once_and_a_wider_one_opens_none(world, city, what):
    """Also those of iterators and streams in mid-course; what is granted again is for new connections."""
    words, closed = TAKEN_AWAY[what]
    peer, library, book = opened(world, city)
    held = InHand(peer, library, book)
    before = held.outcomes()
    assert before == dict.fromkeys(ALL_ENDED, "ok") | {"batch": set()}
    narrower = city.offer
    for word in words:
        assert word in narrower
        narrower = narrower.replace(word, "[offer.Book.returns]" if "returns" in word else "")
    city.reload(world, narrower, 2)
    expected = before | {name: {"denied"} if name == "batch" else "denied" for name in closed}
    after = held.outcomes()
    assert after == expected
    city.reload(world, city.offer, 3)
    assert held.outcomes() == after
    again = InHand(*opened(world, city))
    assert again.outcomes() == before
