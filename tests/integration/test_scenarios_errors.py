"""Errors, contexts and comparisons, over every pairing: what is declared crosses as what it is."""

import asyncio
import contextlib
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import caprpc
import caprpc.aio
from caprpc import Denied, Interface, RemoteError, method
from caprpc.testing.deployment import Deployment

STARTED = []


class NoSuchAccount(Exception):
    """Declared; its constructor takes something else than a text, and says that it ran."""

    def __init__(self, account):
        STARTED.append(account)
        self.account = account
        super().__init__(f"no account {account}")


class SubclassOfDeclared(NoSuchAccount):
    pass


class Undeclared(Exception):
    pass


class Weight(Interface):
    @method(effect="read")
    def __eq__(self, other: "Weight") -> bool: ...

    @method(effect="read")
    def __lt__(self, other: "Weight") -> bool: ...

    @method(effect="read")
    def __ge__(self, other: "Weight") -> bool: ...


class Scale(Interface):
    @method(effect="read")
    def __eq__(self, other: int) -> bool: ...


class Bank(Interface):
    @method(effect="read", errors=(NoSuchAccount,))
    def fail(self, how: str) -> int: ...

    @method(effect="read", errors=(NoSuchAccount,))
    def rows(self, n: int, how: str) -> Iterator[int]: ...

    @method(effect="read", errors=(NoSuchAccount,))
    def apply(self, function: Callable[[str], str]) -> str: ...

    @method(effect="read", errors=(NoSuchAccount,))
    def total(self, numbers: Iterator[int]) -> int: ...

    @method(effect="write", errors=(NoSuchAccount,))
    def hold(self, how: str) -> AbstractContextManager[int]: ...

    @method(effect="write", errors=(NoSuchAccount,))
    def enter_theirs(self, theirs: AbstractContextManager[int]) -> str: ...

    @method(effect="read")
    def weigh(self, n: int) -> Weight: ...

    @method(effect="read")
    def scale(self) -> Scale: ...


class WeightImpl(Weight):
    def __init__(self, n):
        self.n = n

    def __eq__(self, other):
        return self.n == other.n

    def __hash__(self):
        return hash(self.n)

    def __lt__(self, other):
        return self.n < other.n

    def __ge__(self, other):
        return self.n >= other.n


class ScaleImpl(Scale):
    def __eq__(self, other):
        return other == 7

    __hash__ = None


FAILURES = {
    "declared": lambda: NoSuchAccount("A"),
    "subclass": lambda: SubclassOfDeclared("A"),
    "undeclared": lambda: Undeclared("a secret"),
    "long": lambda: NoSuchAccount("A" * 5000),
    "control": lambda: NoSuchAccount("\x1b[2J\nB"),
}


class Common(Bank):
    def __init__(self):
        self.log = []
        self.weights = {}
        self.scales = ScaleImpl()
        self.gate = threading.Event()

    def _rows(self, n, how):
        yield from range(n)
        raise FAILURES[how]()

    @contextlib.contextmanager
    def _held(self, how):
        try:
            yield 5
        except BaseException as exc:
            self.log.append((type(exc).__name__, exc.args))
            if how == "other":
                raise NoSuchAccount("other") from None
            if how != "suppress":
                raise
        else:
            self.log.append("left")


class Methods(Common):
    def fail(self, how):
        raise FAILURES[how]()

    def rows(self, n, how):
        return self._rows(n, how)

    def apply(self, function):
        try:
            return function("x")
        except NoSuchAccount as exc:
            self.log.append(str(exc))
            raise

    def total(self, numbers):
        return sum(numbers)

    def hold(self, how):
        return self._held(how)

    def enter_theirs(self, theirs):
        with theirs as number:
            raise NoSuchAccount(str(number))
        return "went on"

    def weigh(self, n):
        return self.weights.setdefault(n, WeightImpl(n))

    def scale(self):
        return self.scales


class Coroutines(Common):
    async def fail(self, how):
        raise FAILURES[how]()

    async def rows(self, n, how):
        async def rows():
            for i in range(n):
                yield i
            raise FAILURES[how]()

        return rows()

    async def apply(self, function):
        try:
            return await function("x")
        except NoSuchAccount as exc:
            self.log.append(str(exc))
            raise

    async def total(self, numbers):
        return sum([number async for number in numbers])

    async def hold(self, how):
        return self._held(how)

    async def enter_theirs(self, theirs):
        async with theirs as number:
            raise NoSuchAccount(str(number))
        return "went on"

    async def weigh(self, n):
        return self.weights.setdefault(n, WeightImpl(n))

    async def scale(self):
        return self.scales


CALLS = '"fail", "rows", "apply", "total", "hold", "enter_theirs", "weigh", "scale"'
SERVER = f"""
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/client"]
[roots]
bank = "Bank"
[offer.Bank]
interface = "Bank"
call = [{CALLS}]
iterate = true
[offer.Bank.returns]
hold = "Held"
weigh = "Weight"
scale = "Scale"
[offer.Held]
interface = "ContextManager"
context = true
[offer.Weight]
interface = "Weight"
compare = ["eq", "lt"]
[offer.Scale]
interface = "Scale"
compare = ["eq"]
[accept.Callable]
invoke = true
[accept.Iterator]
iterate = true
[accept.ContextManager]
context = true
[accept.Weight]
compare = ["eq"]
"""
CLIENT = f"""
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Bank]
call = [{CALLS}]
iterate = true
[accept.ContextManager]
context = true
[accept.Weight]
compare = ["eq", "lt", "ge"]
[accept.Scale]
compare = ["eq"]
[offer.Function]
interface = "Callable"
invoke = true
[offer.Numbers]
interface = "Iterator"
iterate = true
[offer.Context]
interface = "ContextManager"
context = true
""" + "".join(
    f'[[lend]]\nto = "Bank.{to}"\nparam = "{param}"\nas = "{facet}"\nlifetime = "call"\n'
    for to, param, facet in (
        ("apply", "function", "Function"),
        ("total", "numbers", "Numbers"),
        ("enter_theirs", "theirs", "Context"),
    )
)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    deployment = Deployment(tmp_path_factory.mktemp("errors"))
    deployment.server = deployment.side("server", {"client": SERVER}, [Bank, Weight, Scale])
    deployment.clients = {"alice": deployment.side("client", {"server": CLIENT}, [Bank, Weight, Scale])}
    return deployment


@pytest.fixture
def world(pairings, deployment, tmp_path):
    STARTED.clear()
    made = pairings(deployment, tmp_path, Methods, Coroutines)
    made.serve({"bank": made.service})
    yield made
    made.close()


async def bank_of(face):
    return await face.root("bank", Bank)


def test_a_declared_error_crosses_as_our_class_with_its_text_and_without_its_constructor(world):
    async def scenario(face):
        bank = await bank_of(face)
        with pytest.raises(NoSuchAccount) as caught:
            await face(bank.fail("declared"))
        return caught.value

    error = world.run(scenario)
    assert type(error) is NoSuchAccount
    assert error.args == ("no account A",)
    assert str(error) == "no account A"
    assert STARTED == ["A"], "it ran where it was raised and nowhere else"
    assert not hasattr(error, "account")
    (note,) = error.__notes__
    assert "peer's side" in note
    assert "call of Bank.fail" in note
    assert "spiffe://" in note
    assert "R-" in note


@pytest.mark.parametrize("how", ["subclass", "undeclared"])
def test_everything_else_is_a_number(world, how):
    async def scenario(face):
        bank = await bank_of(face)
        with pytest.raises(RemoteError) as caught:
            await face(bank.fail(how))
        return caught.value

    error = world.run(scenario)
    assert (type(error), error.code, error.text) == (RemoteError, "internal", "")
    assert error.reference.startswith("R-")
    assert "secret" not in "".join(traceback.format_exception(error))
    assert any("call of Bank.fail" in note for note in error.__notes__)


def test_the_text_of_an_error_is_cut_and_harmless(world):
    async def scenario(face):
        bank = await bank_of(face)
        texts = []
        for how in ("long", "control"):
            with pytest.raises(NoSuchAccount) as caught:
                await face(bank.fail(how))
            texts.append(str(caught.value))
        return texts

    long, control = world.run(scenario)
    assert len(long) == 256
    assert control == "no account \\x1b[2J\\nB"


def test_the_frames_of_the_caller_are_the_innermost_of_its_code(world):
    async def scenario(face):
        bank = await bank_of(face)
        with pytest.raises(NoSuchAccount) as caught:
            await face(bank.fail("declared"))
        return traceback.extract_tb(caught.value.__traceback__)

    frames = world.run(scenario)
    package = str(Path(caprpc.__file__).parent)
    ours = [frame for frame in frames if not frame.filename.startswith(package + os.sep)]
    mine = [position for position, frame in enumerate(frames) if frame.filename == __file__]
    assert ours
    assert frames[mine[-1]].line == 'await face(bank.fail("declared"))' or frames[mine[-1]].name == "scenario"
    assert len(frames) - 1 - mine[-1] <= 6


@pytest.mark.parametrize(("how", "error"), [("declared", NoSuchAccount), ("undeclared", RemoteError)])
def test_an_error_in_the_middle_of_a_generator_comes_after_the_items_before_it(world, how, error):
    async def scenario(face):
        bank = await bank_of(face)
        taken = []
        rows = await face(bank.rows(40, how))
        with pytest.raises(error) as caught:
            while (row := await face.next(rows)) is not face.END:
                taken.append(row)
        assert type(caught.value) is error
        assert await face.next(rows) is face.END
        return taken

    assert world.run(scenario) == list(range(40))


def test_a_declared_error_of_a_callback_reaches_the_method_and_comes_back(world):
    def function(_text):
        raise NoSuchAccount("of ours")

    async def scenario(face):
        bank = await bank_of(face)
        with pytest.raises(NoSuchAccount, match="no account of ours"):
            await face(bank.apply(function))

    world.run(scenario)
    assert world.service.log == ["no account of ours"]


def test_a_declared_error_of_our_generator_reaches_the_method_and_comes_back(world):
    def numbers():
        yield 1
        raise NoSuchAccount("of ours")

    async def scenario(face):
        bank = await bank_of(face)
        with pytest.raises(NoSuchAccount, match="no account of ours"):
            await face(bank.total(numbers()))

    world.run(scenario)


def test_declared_errors_cross_in_batches(world):
    async def scenario(face):
        bank = await bank_of(face)
        return await face.batch([(bank.fail, (how,)) for how in ("declared", "undeclared", "subclass")])

    declared, *others = world.run(scenario)
    assert (type(declared), str(declared)) == (NoSuchAccount, "no account A")
    assert [(type(error), error.code) for error in others] == [(RemoteError, "internal")] * 2


async def inside(face, context, error):
    """Enter a context of the peer and fail in it."""
    if face.is_async:
        async with context as given:
            assert given == 5
            if error is not None:
                raise error
    else:
        with context as given:
            assert given == 5
            if error is not None:
                raise error


@pytest.mark.parametrize("how", ["pass", "suppress"])
def test_a_declared_error_of_a_block_is_seen_by_the_context_and_may_be_settled(world, how):
    async def scenario(face):
        bank = await bank_of(face)
        context = await face(bank.hold(how))
        if how == "suppress":
            await inside(face, context, NoSuchAccount("here"))
            return
        error = NoSuchAccount("here")
        with pytest.raises(NoSuchAccount) as caught:
            await inside(face, context, error)
        assert caught.value is error

    world.run(scenario)
    assert world.service.log == [("NoSuchAccount", ("no account here",))]
    assert STARTED == ["here"]


@pytest.mark.parametrize("kind", [Undeclared, SubclassOfDeclared, KeyboardInterrupt])
def test_an_error_that_is_not_declared_is_not_shown_and_never_settled_by_the_peer(world, kind):
    # What Ctrl-C is to a thread, being cancelled is to a task.
    on_loop = kind is KeyboardInterrupt and world.client_kind == "aio"
    error = asyncio.CancelledError() if on_loop else kind("a secret")

    async def scenario(face):
        bank = await bank_of(face)
        context = await face(bank.hold("suppress"))
        with pytest.raises(type(error)) as caught:
            await inside(face, context, error)
        assert caught.value is error

    world.run(scenario)
    assert world.service.log == [("PeerBlockFailed", ("the peer's block ended with an exception",))]


def test_a_context_may_turn_an_error_into_another_that_is_declared(world):
    async def scenario(face):
        bank = await bank_of(face)
        context = await face(bank.hold("other"))
        with pytest.raises(NoSuchAccount, match="no account other"):
            await inside(face, context, Undeclared())

    world.run(scenario)


def test_a_context_of_ours_sees_the_declared_error_of_the_method_and_settles_it(world):
    seen = []

    @contextlib.contextmanager
    def theirs():
        try:
            yield 9
        except NoSuchAccount as exc:
            seen.append(str(exc))

    async def scenario(face):
        bank = await bank_of(face)
        assert await face(bank.enter_theirs(theirs())) == "went on"

    world.run(scenario)
    assert seen == ["no account 9"]


def test_comparing_is_a_right_of_its_own(world):
    async def scenario(face):
        bank = await bank_of(face)
        one, two = await face(bank.weigh(1)), await face(bank.weigh(2))
        compare = caprpc.aio.compare
        if face.is_async:
            assert await compare(one, "eq", one)
            assert not await compare(one, "eq", two)
            assert await compare(one, "lt", two)
            assert one == one
            assert one != two, "on a loop == is identity: it cannot be awaited"
            assert {one: 1}[one] == 1
            with pytest.raises((Denied, RemoteError)):
                await compare(one, "ge", two)
            with pytest.raises(TypeError, match="__gt__"):
                await compare(one, "gt", two)
            return
        assert one == one
        assert one != two
        assert one < two
        assert not two < one
        assert sorted([two, one]) == [one, two]
        with pytest.raises((Denied, RemoteError)):
            assert one >= two
        with pytest.raises(TypeError, match="unhashable"):
            hash(one)
        session = face.peer._connection.link.session
        asked = session.asked.count
        assert one != None  # noqa: E711 - the operator is what is tested
        assert one != 5
        assert bank == bank
        assert session.asked.count == asked, "what does not fit the declaration is not asked"

    world.run(scenario)


def test_values_are_compared_too(world):
    async def scenario(face):
        scale = await face((await bank_of(face)).scale())
        if face.is_async:
            return [await caprpc.aio.compare(scale, "eq", n) for n in (7, 8)]
        return [scale == 7, scale == 8]

    assert world.run(scenario) == [True, False]
