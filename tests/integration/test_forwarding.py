"""Three parties: a vault owns a ledger, a gateway holds it, and carol gets it of the gateway."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

import caprpc
import caprpc.aio
from caprpc import CallRefused, Interface, ReferenceDead, RemoteError, method
from caprpc.testing.deployment import Deployment

WAIT_S = 10.0
VAULT, GATEWAY, CAROL = (f"spiffe://test.example/{name}" for name in ("vault", "gateway", "carol"))


class TooMuch(Exception):
    """What a ledger declares that it raises."""


class Ledger(Interface):
    @method(effect="read", errors=(TooMuch,))
    def balance(self, account: str) -> int: ...

    @method(effect="read")
    def history(self, count: int) -> Iterator[int]: ...

    @method(effect="read")
    def chain(self) -> list[str]: ...

    @method(effect="read")
    def secret(self) -> str: ...

    @method(effect="read")
    def each(self, function: Callable[[int], int]) -> int: ...


class Gateway(Interface):
    @method(effect="read")
    def ledger(self) -> Ledger: ...

    @method(effect="read")
    def is_own(self, ledger: Ledger) -> bool: ...


class Book(Ledger):
    def balance(self, account):
        if account == "all":
            raise TooMuch("ask for less")
        if account == "broken":
            raise KeyError("a secret of the vault")
        return len(account)

    def history(self, count):
        return iter(range(count))

    def chain(self):
        return list(caprpc.current().chain)

    def secret(self):
        return "secret"

    def each(self, function):
        return sum(function(n) for n in range(3))


class Gate(Gateway):
    held = None

    def ledger(self):
        return self.held

    def is_own(self, ledger):
        return ledger is self.held


class AsyncGate(Gateway):
    held = None

    async def ledger(self):
        return self.held

    async def is_own(self, ledger):
        return ledger is self.held


CALLS = 'call = ["balance", "history", "chain", "each"]\niterate = true\n'


def peer(name):
    return f'[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{name}"]\n'


def deploy(directory, *, onward="forward = true\n", sources=f'forward_from = ["{VAULT}"]\n', call_back=True):
    """Make the directories of all three."""
    deployment = Deployment(directory)
    lends = '[[lend]]\nto = "Ledger.each"\nparam = "function"\nas = "Fn"\nlifetime = "call"\n'
    function = '[offer.Fn]\ninterface = "Callable"\ninvoke = true\n'
    vault = peer("gateway") + '[roots]\nledger = "L"\n[offer.L]\ninterface = "Ledger"\n' + CALLS + onward
    vault += "[accept.Callable]\ninvoke = true\n"
    to_vault = peer("vault") + "[accept.Ledger]\n" + CALLS
    to_vault += lends + function + f'forward_from = ["{CAROL}"]\n'
    to_carol = peer("carol") + '[roots]\ngateway = "G"\n[offer.G]\ninterface = "Gateway"\ncall = ["ledger", "is_own"]\n'
    to_carol += '[offer.G.returns]\nledger = "LC"\n[offer.LC]\ninterface = "Ledger"\n' + CALLS + sources
    to_carol += "[accept.Callable]\ninvoke = true\n[accept.Ledger]\n" + CALLS
    carol = peer("gateway") + '[accept.Gateway]\ncall = ["ledger", "is_own"]\n[accept.Ledger]\n' + CALLS
    carol += lends + function + ("forward = true\n" if call_back else "")
    return {
        "vault": deployment.side("vault", {"gateway": vault}, [Ledger]),
        "gateway": deployment.side("gateway", {"vault": to_vault, "carol": to_carol}, [Ledger, Gateway]),
        "carol": deployment.side("carol", {"gateway": carol}, [Ledger, Gateway]),
    }


class Loop:
    """A loop in a thread, for the sides of asyncio."""

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        return self

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT_S)

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Chain:
    """The three of them, connected; ``kinds`` are those of the gateway's server and of its client."""

    def __init__(self, sides, directory, kinds):
        self.directory = directory
        self.stack = ExitStack()
        serves, dials = kinds
        loop = self.stack.enter_context(Loop()) if "aio" in kinds else None
        self.vault = self.stack.enter_context(self.server(caprpc.Server({"ledger": Book()}, **self.of(sides, "vault"))))
        url = self.vault.addresses[0]
        self.gate = AsyncGate() if serves == "aio" else Gate()
        if dials == "aio":
            self.upstream = loop.run(self.dial(url, self.of(sides, "gateway")))
            self.stack.callback(lambda: loop.run(self.upstream.close()))
            self.gate.held = loop.run(self.upstream.root("ledger", Ledger))
        else:
            self.upstream = self.stack.enter_context(caprpc.connect(url, **self.of(sides, "gateway")))
            self.gate.held = self.upstream.root("ledger", Ledger)
        options = self.of(sides, "gateway") | {"audit": directory / "front"}
        if serves == "aio":
            address = loop.run(self.serve(options))
            self.stack.callback(lambda: loop.run(self.front.stop(1.0)))
        else:
            self.front = self.stack.enter_context(self.server(caprpc.Server({"gateway": self.gate}, **options)))
            address = self.front.addresses[0]
        self.peer = self.stack.enter_context(caprpc.connect(address, **self.of(sides, "carol")))
        self.root = self.peer.root("gateway", Gateway)

    def of(self, sides, name):
        return sides[name].directories | {"audit": self.directory / name}

    @staticmethod
    def server(server):
        server.listen("127.0.0.1:0")
        return server

    async def dial(self, url, options):
        return await caprpc.aio.connect(url, **options)

    async def serve(self, options):
        self.front = self.server(caprpc.aio.Server({"gateway": self.gate}, **options))
        await self.front.start()
        return self.front.addresses[0]

    def records(self, name):
        lines = []
        for path in sorted((self.directory / name).rglob("*.jsonl")):
            lines += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return lines


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    return deploy(tmp_path_factory.mktemp("forwarding"))


@pytest.fixture(
    params=[("blocking", "blocking"), ("aio", "blocking"), ("blocking", "aio"), ("aio", "aio")],
    ids=lambda kinds: f"{kinds[0]}-server-{kinds[1]}-client",
)
def chain(request, sides, tmp_path):
    made = Chain(sides, tmp_path, request.param)
    with made.stack:
        yield made


def test_third_party_calls_through_us_and_the_owner_knows(chain):
    ledger = chain.root.ledger()
    assert ledger.balance("abc") == 3
    assert ledger.chain() == [GATEWAY, CAROL]
    assert caprpc.holder(ledger) == GATEWAY
    details = [r.get("detail", "") for r in chain.records("vault")]
    assert f"passed on to {CAROL}" in details
    assert f"for {CAROL}" in details
    assert f"on an object of {VAULT}" in [r.get("detail", "") for r in chain.records("front")]


def test_same_object_is_the_same_reference_and_comes_home_as_itself(chain):
    ledger = chain.root.ledger()
    assert chain.root.ledger() is ledger
    assert chain.root.is_own(ledger)


def test_number_that_the_gateway_uses_is_of_no_use_to_the_owner(chain):
    """Each connection has numbers of its own: a forwarder is a fresh export, and leads where we made it lead."""
    ledger = chain.root.ledger()
    (front,) = chain.front._connections
    (forwarder,) = [e for e in front.link.session.exports.live() if e.source is chain.gate.held]
    assert type(forwarder.obj).__name__ == "Forwarder"
    upstream = chain.gate.held._caprpc_import
    assert ledger._caprpc_import.export_id == forwarder.export_id
    upstream.export_id, real = forwarder.export_id + 100, upstream.export_id
    try:
        with pytest.raises(RemoteError):
            ledger.balance("abc")
    finally:
        upstream.export_id = real
    assert ledger.balance("abc") == 3


def test_iterators_are_forwarded(chain):
    assert list(chain.root.ledger().history(100)) == list(range(100))


def test_callbacks_go_both_ways_without_a_deadlock(chain):
    assert chain.root.ledger().each(lambda n: n * 10) == 30


def test_errors_keep_their_declared_type_and_no_secret(chain):
    ledger = chain.root.ledger()
    with pytest.raises(TooMuch, match="ask for less"):
        ledger.balance("all")
    with pytest.raises(RemoteError) as caught:
        ledger.balance("broken")
    assert caught.value.code == "internal"
    assert "secret" not in str(caught.value)
    with pytest.raises(RemoteError):
        ledger.secret()


def test_many_at_once(chain):
    ledger = chain.root.ledger()
    futures = [caprpc.submit(ledger.balance, "x" * n) for n in range(40)]
    assert [future.result(WAIT_S) for future in futures] == list(range(40))


def test_losing_the_first_connection_kills_what_was_passed_on(chain):
    ledger = chain.root.ledger()
    assert ledger.balance("abc") == 3
    chain.vault.revoke(GATEWAY)
    with pytest.raises((ReferenceDead, RemoteError)) as caught:
        for _ in range(1000):
            ledger.balance("abc")
    assert isinstance(caught.value, ReferenceDead) or caught.value.code == "revoked"
    with pytest.raises(ReferenceDead, match="revoked"):
        ledger.balance("abc")


def test_revoking_at_the_owner_reaches_the_third_party(chain):
    ledger = chain.root.ledger()
    assert ledger.balance("abc") == 3
    (connection,) = chain.vault._connections
    (book,) = {e.source for e in connection.link.session.exports.live()}
    caprpc.revoke(book)
    with pytest.raises((ReferenceDead, RemoteError)):
        for _ in range(1000):
            ledger.balance("abc")
    with pytest.raises(ReferenceDead, match="revoked"):
        ledger.balance("abc")


def test_passing_on_what_is_dead_fails_at_once_and_costs_nothing_else(chain):
    chain.vault.revoke(GATEWAY)
    end = time.monotonic() + WAIT_S
    while chain.gate.held._caprpc_import.alive and time.monotonic() < end:
        time.sleep(0.01)
    for _ in range(3):
        with caprpc.deadline(WAIT_S), pytest.raises(RemoteError) as caught:
            chain.root.ledger()
        assert caught.value.code == "invalid-result"
    (front,) = chain.front._connections
    assert not front.link.session.answers
    assert "which owns the object, has revoked it" in str([r.get("detail") for r in chain.records("front")])


def test_third_party_may_narrow_what_it_got(chain):
    less = caprpc.attenuate(chain.root.ledger(), only=["balance"], uses=1)
    assert less.balance("abc") == 3
    with pytest.raises(RemoteError):
        less.balance("abc")


@pytest.mark.parametrize("missing", ["onward", "sources"])
def test_both_policies_must_let_it(tmp_path, missing):
    sides = deploy(tmp_path / "sides", **{missing: ""})
    made = Chain(sides, tmp_path, ("blocking", "blocking"))
    with made.stack:
        if missing == "sources":
            with pytest.raises(RemoteError) as caught:
                made.root.ledger()
            assert caught.value.code == "invalid-result"
        else:
            ledger = made.root.ledger()
            with pytest.raises(RemoteError) as caught:
                ledger.balance("abc")
            assert caught.value.code == "denied"
            assert not [r for r in made.records("vault") if r.get("member") == "balance"]
        assert made.gate.held.balance("abc") == 3


def test_callback_of_a_third_party_needs_its_own_policy(tmp_path):
    made = Chain(deploy(tmp_path / "sides", call_back=False), tmp_path, ("blocking", "blocking"))
    with made.stack, pytest.raises(RemoteError):
        made.root.ledger().each(lambda n: n)


def test_passing_on_without_a_policy_says_which_line_is_missing(tmp_path):
    made = Chain(deploy(tmp_path / "sides", sources=""), tmp_path, ("blocking", "blocking"))
    with made.stack:
        with pytest.raises(RemoteError):
            made.root.ledger()
        texts = [r.get("detail", "") for r in made.records("front")]
        assert any(f'forward_from = ["{VAULT}"]' in text for text in texts)
        assert issubclass(CallRefused, Exception)


class Library(Interface):
    @method(effect="read")
    def ledger(self) -> Ledger: ...

    @method(effect="read")
    def follow(self, function: Callable[[int], int]) -> int: ...


@pytest.mark.parametrize("module", [caprpc, caprpc.aio])
async def test_gateway_may_accept_and_lend_what_no_root_of_its_own_leads_to(tmp_path, module):
    """Its directory is for both of its sides: what it asks the owner for is checked when it asks."""
    deployment = Deployment(tmp_path)
    to_vault = peer("vault") + '[accept.Library]\ncall = ["ledger", "follow"]\n[accept.Ledger]\n' + CALLS
    to_vault += '[[lend]]\nto = "Library.follow"\nparam = "function"\nas = "Fn"\nlifetime = "call"\n'
    to_vault += '[offer.Fn]\ninterface = "Callable"\ninvoke = true\n'
    to_carol = (
        peer("carol")
        + '[roots]\ngateway = "G"\n[offer.G]\ninterface = "Gateway"\ncall = ["is_own"]\n[accept.Ledger]\n'
        + CALLS
    )
    policies = {"vault": to_vault, "carol": to_carol}
    side = deployment.side("gateway", policies, [Ledger, Gateway, Library])
    module.Server({"gateway": Gate()}, **side.directories)
    offered = policies | {
        "carol": to_carol + '[accept.Callable]\ninvoke = true\n[offer.L]\ninterface = "Library"\ncall = ["follow"]\n'
    }
    with pytest.raises(caprpc.ConfigurationError, match="offered, and the code has no such interface") as caught:
        module.Server({"gateway": Gate()}, **deployment.side("other", offered, [Ledger, Gateway, Library]).directories)
    assert "Library" in str(caught.value)
