"""Every term of a lesser reference, of theirs and of ours, and every lifetime of a loan; over every pairing."""

import asyncio
import threading
import time

import pytest

import caprpc
import caprpc.aio
from caprpc import CapRPCError, Interface, method
from caprpc.testing.deployment import Deployment

SHORT_S = 0.4
"""How long something is good that ends in time: longer than what is done with it before, on a machine that is busy."""


class Counter(Interface):
    @method(effect="write")
    def add(self, amount: int) -> int: ...

    @method(effect="read")
    def total(self) -> int: ...


class Desk(Interface):
    @method(effect="read")
    def counter(self) -> Counter: ...

    @method(effect="write")
    def keep(self, counter: Counter) -> None: ...

    @method(effect="write")
    def keep_by_default(self, counter: Counter) -> None: ...

    @method(effect="write")
    def keep_for_seconds(self, counter: Counter) -> None: ...

    @method(effect="write")
    def keep_for_uses(self, counter: Counter) -> None: ...

    @method(effect="read")
    def use(self, member: str, amount: int) -> str: ...


class CounterOfOurs(Counter):
    def __init__(self):
        self.value = 0

    def add(self, amount):
        self.value += amount
        return self.value

    def total(self):
        return self.value


def outcome(error):
    return getattr(error, "code", type(error).__name__)


class Common(Desk):
    def __init__(self):
        self.ours = CounterOfOurs()
        self.kept = None
        self.gate = threading.Event()

    def counter(self):
        return self.ours


class Methods(Common):
    def keep(self, counter):
        self.kept = counter

    keep_by_default = keep_for_seconds = keep_for_uses = keep

    def use(self, member, amount):
        try:
            self.kept.add(amount) if member == "add" else self.kept.total()
        except CapRPCError as exc:
            return outcome(exc)
        return "ok"


class Coroutines(Common):
    async def keep(self, counter):
        self.kept = counter

    keep_by_default = keep_for_seconds = keep_for_uses = keep

    async def use(self, member, amount):
        try:
            await (self.kept.add(amount) if member == "add" else self.kept.total())
        except CapRPCError as exc:
            return outcome(exc)
        return "ok"


KEEPS = {
    "keep": 'lifetime = "connection"\n',
    "keep_by_default": "",
    "keep_for_seconds": f"lifetime = {SHORT_S}\n",
    "keep_for_uses": 'lifetime = "connection"\nmax_uses = 2\n',
}
NAMES = ", ".join(f'"{name}"' for name in ["counter", "use", *KEEPS])
CALLS = f"call = [{NAMES}]\n"
COUNTER = '[{}.Counter]\n{}call = ["add", "total"]\n'
SERVER = (
    '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/client"]\n[roots]\ndesk = "Desk"\n'
    f'[offer.Desk]\ninterface = "Desk"\n{CALLS}[offer.Desk.returns]\ncounter = "Counter"\n'
    + COUNTER.format("offer", 'interface = "Counter"\n')
    + COUNTER.format("accept", "")
)
CLIENT = (
    f'[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/server"]\n[accept.Desk]\n{CALLS}'
    + COUNTER.format("accept", "")
    + COUNTER.format("offer", 'interface = "Counter"\n')
    + "".join(f'[[lend]]\nto = "Desk.{to}"\nparam = "counter"\nas = "Counter"\n{how}' for to, how in KEEPS.items())
)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    deployment = Deployment(tmp_path_factory.mktemp("terms"))
    deployment.server = deployment.side("server", {"client": SERVER}, [Desk])
    deployment.clients = {"alice": deployment.side("client", {"server": CLIENT}, [Desk])}
    return deployment


@pytest.fixture
def world(pairings, deployment, tmp_path):
    made = pairings(deployment, tmp_path, Methods, Coroutines)
    made.serve({"desk": made.service})
    yield made
    made.close()


async def attenuate(face, reference, **terms):
    return await face((caprpc.aio if face.is_async else caprpc).attenuate(reference, **terms))


async def of_theirs(face, desk, terms):
    """Return what uses a lesser reference of theirs: the server refuses."""
    less = await attenuate(face, await face(desk.counter()), **terms)

    async def use(member, amount=1):
        try:
            await face(less.add(amount) if member == "add" else less.total())
        except CapRPCError as exc:
            return outcome(exc)
        return "ok"

    return use


async def of_ours(face, desk, terms):
    """Return what has the server use a handle of ours: the client refuses."""
    await face(desk.keep(await attenuate(face, CounterOfOurs(), **terms)))

    async def use(member, amount=1):
        return await face(desk.use(member, amount))

    return use


async def pass_time(face, seconds):
    if face.is_async:
        await asyncio.sleep(seconds)
    else:
        time.sleep(seconds)


TERMS = {
    "only": ({"only": ["total"]}, [("add", 1), ("total", 0)], ["denied", "ok"]),
    "args": (
        {"args": {"add": {"amount": {"max": 9}}}},
        [("add", 9), ("add", 10), ("total", 0)],
        ["ok", "invalid-arguments", "ok"],
    ),
    "uses": ({"uses": 2}, [("add", 1), ("total", 0), ("total", 0)], ["ok", "ok", "denied"]),
    "rate": ({"rate": 0.001}, [("add", 1), ("add", 1)], ["ok", "limit"]),
}


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("whose", [of_theirs, of_ours], ids=["theirs", "ours"])
def test_each_term_is_enforced_where_the_object_is(world, whose, term):
    terms, uses, expected = TERMS[term]

    async def scenario(face):
        use = await whose(face, await face.root("desk", Desk), terms)
        return [await use(*one) for one in uses]

    assert world.run(scenario) == expected


@pytest.mark.parametrize("whose", [of_theirs, of_ours], ids=["theirs", "ours"])
def test_time_is_that_of_the_clock(world, whose):
    async def scenario(face):
        use = await whose(face, await face.root("desk", Desk), {"for_s": SHORT_S})
        before = await use("add")
        await pass_time(face, SHORT_S)
        return before, await use("add")

    before, after = world.run(scenario)
    assert before == "ok"
    assert after in ("ReferenceDead", "denied", "revoked")


def test_a_loan_of_which_nothing_is_said_ends_with_its_call(world):
    """So it is for callbacks, too: no policy has to say it."""

    async def scenario(face):
        desk = await face.root("desk", Desk)
        await face(desk.keep_by_default(CounterOfOurs()))
        exports = len(face.peer._connection.link.session.exports)
        return exports, await face(desk.use("add", 1))

    assert world.run(scenario) == (0, "ReferenceDead")


def test_a_loan_for_seconds_ends_in_time(world):
    async def scenario(face):
        desk = await face.root("desk", Desk)
        await face(desk.keep_for_seconds(CounterOfOurs()))
        before = await face(desk.use("add", 1))
        await pass_time(face, SHORT_S)
        return before, await face(desk.use("add", 1))

    before, after = world.run(scenario)
    assert before == "ok"
    assert after in ("ReferenceDead", "denied", "revoked")


def test_a_loan_for_a_number_of_uses_ends_with_the_last(world):
    async def scenario(face):
        desk = await face.root("desk", Desk)
        await face(desk.keep_for_uses(CounterOfOurs()))
        return [await face(desk.use("add", 1)) for _ in range(3)]

    assert world.run(scenario) == ["ok", "ok", "denied"]
