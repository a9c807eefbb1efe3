"""One small call must not set more in motion than its policy says, on either side of the connection."""

import threading

import pytest
from hostile_peer import reference
from vault_service import SERVER, Safe

import caprpc
from caprpc.ids import OP_INVOKE
from caprpc.wire import messages as m
from caprpc.wire.codec import pack, unpack

ATTEMPTS = 100_000
FUNCTION = m.Facet(1, "Callable", [(OP_INVOKE, "")], 1)
LASTING = m.Facet(1, "Callable", [(OP_INVOKE, "")], 0)


def limited(member, calls):
    returns = "[offer.Limited.returns]"
    return SERVER.replace(returns, f"[offer.Limited.limit.{member}]\ncallbacks = {calls}\n{returns}")


class Echoing(Safe):
    """Calls back as often as it can, and goes on when it may not."""

    def call_back(self, function):
        made = 0
        for _ in range(ATTEMPTS):
            try:
                function(1)
            except caprpc.LimitExceeded:
                continue
            made += 1
        return made


class EchoingCoroutine(Safe):
    async def call_back(self, function):
        made = 0
        for _ in range(ATTEMPTS):
            try:
                await function(1)
            except caprpc.LimitExceeded:
                continue
            made += 1
        return made


class Careless(Safe):
    """Calls back as often as it was told to, whatever comes of it."""

    def __init__(self):
        super().__init__()
        self.kept = []
        self.failed = []

    def keep(self, function):
        self.kept.append(function)

    def call_kept(self):
        for number in range(12):
            self.kept[number % len(self.kept)](number)
        return 12

    def call_back(self, function):
        for _ in range(12):
            function(1)
        return 12


class Coroutines(Careless):
    async def keep(self, function):
        self.kept.append(function)

    async def call_kept(self):
        for number in range(12):
            await self.kept[number % len(self.kept)](number)
        return 12


def answered(peer, call):
    """Answer every callback until the call itself is answered; return that answer, and how many there were."""
    count = 0
    while True:
        message = peer.receive(15)
        if isinstance(message, m.Call):
            count += 1
            peer.send(m.Return(message.question, pack(1)))
        elif isinstance(message, m.Return | m.Raise | m.BatchReturn) and message.question == call.question:
            return message, count


def limits_on_record(running):
    return [(one["reason"], one["rule"], one.get("count", 1)) for one in running.records(kind="limit")]


def test_a_hundred_thousand_callbacks_end_at_the_bound_of_the_member(world, driver):
    service = {"blocking": Echoing, "aio": EchoingCoroutine}[driver]()
    running = world.serve(driver, roots={"vault": service}, policy=limited("call_back", 500))
    peer = world.open(running)
    call = peer.call(peer.root(), "call_back", [reference(1)])
    peer.send(FUNCTION, call)
    answer, count = answered(peer, call)
    assert (unpack(answer.payload), count) == (500, 500)
    [(reason, rule, written)] = limits_on_record(running)
    assert (reason, written) == ("callbacks", 1)
    assert rule.startswith("peers.toml:")


@pytest.mark.parametrize(
    ("connection", "policy", "most"),
    [
        ("callbacks = 7", SERVER, 7),
        ("callbacks = 7", limited("call_back", 9), 7),
        ("callbacks = 7", limited("call_back", 3), 3),
        ("", limited("call_back", 0), 0),
    ],
    ids=["of the connection", "the connection has less", "the member has less", "none"],
)
def test_a_method_that_wants_more_is_answered_limit(world, driver, connection, policy, most):
    running = world.serve(driver, roots={"vault": Careless()}, connection=connection, policy=policy)
    peer = world.open(running)
    vault = peer.root()
    for _ in range(2):
        call = peer.call(vault, "call_back", [reference(1)])
        peer.send(FUNCTION, call) if call.question == 2 else peer.send(call)
        answer, count = answered(peer, call)
        assert (answer.code, answer.text, count) == ("limit", "", most)
    assert answer.reference in [one["reference"] for one in running.records(kind="limit")]


def test_calls_that_fan_out_to_other_peers_count_together(world, driver):
    service = {"blocking": Careless, "aio": Coroutines}[driver]()
    policy = limited("call_kept", 10)
    running = world.serve(driver, roots={"vault": service}, policy=policy)
    peers = [world.open(running, name) for name in ("alice", "mallory", "alice")]
    for peer in peers:
        peer.send(LASTING)
        assert peer.ask(peer.root(), "keep", [reference(1)]) is not None
    counts = [0, 0, 0]
    others = [threading.Thread(target=_serve, args=(peer, counts, place)) for place, peer in enumerate(peers[:2])]
    for thread in others:
        thread.start()
    call = peers[2].call(1, "call_kept")
    peers[2].send(call)
    answer, counts[2] = answered(peers[2], call)
    running.stop()
    for thread in others:
        thread.join()
    assert (answer.code, sorted(counts)) == ("limit", [3, 3, 4])


def _serve(peer, counts, place):
    while True:
        message = peer.receive(15)
        if message is None or isinstance(message, m.GoAway):
            return
        if isinstance(message, m.Call):
            counts[place] += 1
            peer.try_to_send(m.Return(message.question, pack(1)))


@pytest.mark.parametrize(("most", "failed"), [(12, []), (11, ["limit"] * 3)])
@pytest.mark.parametrize("kind", [Careless, Coroutines])
def test_each_call_of_a_batch_has_its_own_bound(world, driver, kind, most, failed):
    running = world.serve(driver, roots={"vault": kind()}, policy=limited("call_kept", most))
    peer = world.open(running)
    peer.send(LASTING)
    vault = peer.root()
    peer.ask(vault, "keep", [reference(1)])
    batch = m.Batch(peer.next_question(), None, [m.Run(vault, 1, "call_kept", 3, pack([[[], {}]] * 3))])
    peer.send(batch)
    answer, count = answered(peer, batch)
    assert [failure.code for failure in answer.failures] == failed
    assert count == 3 * most


@pytest.mark.parametrize("named", [True, False], ids=["for the call", "for no call"])
@pytest.mark.parametrize("batch", [False, True], ids=["calls", "batches"])
def test_a_server_uses_what_was_lent_for_one_call_as_often_as_it_may(duel, named, batch):
    """It need not say on behalf of which call it acts: what counts is for which call the object was lent."""
    ran, codes = [], []

    def use(peer, lent, meta):
        if not batch:
            answer = peer.ask(lent, "", [1], operation=OP_INVOKE, meta=meta)
            return answer.code if isinstance(answer, m.Raise) else "ok"
        ours = m.Batch(peer.next_question(), meta, [m.Run(lent, OP_INVOKE, "", 1, pack([[[1], {}]]))])
        peer.send(ours)
        failures = peer.answer(ours.question).failures
        return failures[0].code if failures else "ok"

    def script(peer):
        for _ in range(2):
            call = peer.next_call()
            lent = unpack(call.payload)[0][0].export
            codes.append([use(peer, lent, m.Meta(call.question) if named else None) for _ in range(8)])
            peer.send(m.Return(call.question, pack(12)))
        peer.rest()

    def scenario(client):
        assert [client.call("call_back", lambda number: ran.append(number) or 1) for _ in range(2)] == [12, 12]

    duel(script, scenario, connection="callbacks = 5")
    assert codes == [["ok"] * 5 + ["limit"] * 3] * 2
    assert ran == [1] * 10
