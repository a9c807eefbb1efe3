"""Guesses of sturdy references through the code that redeems them: nothing is found, told, or kept. CAP-HD-16.

The guesser keeps to the pace that is allowed it, one guess a second, so that each guess is looked up in the store; the
seconds are those of a clock that the test moves. The TLS channel and the socket are left out, nothing else: a frame
goes in, and what is compared are the bytes of the frame that comes out.
"""

import gc
import json
from collections import Counter
from pathlib import Path

import pytest

from caprpc import Grants, Interface, method
from caprpc.ids import OP_RESTORE
from caprpc.objects import restoring
from caprpc.objects.granting import Wish, grant, revoke_grant
from caprpc.objects.grants import GUESSES, GUESSES_PER_S
from caprpc.objects.restoring import NotRestored
from caprpc.session import State
from caprpc.sturdy import PREFIX, RANDOM_BYTES, new_secret
from caprpc.testing import Network
from caprpc.wire import messages as m
from caprpc.wire.codec import decode_message, encode_message, pack
from caprpc.wire.frame import HEADER_BYTES

GUESSED = 100_000
"""Guesses in each run of the tests; a million take a minute and a half (docs/how-to/sturdy-references.md)."""

REASONS = ("sturdy-unknown", "sturdy-holder", "sturdy-revoked", "sturdy-expired")
MALLORY, ALICE = "spiffe://test.example/mallory", "spiffe://test.example/alice"
PEER = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{}"]\n'
SERVER = '[roots]\nslip = "Slip"\n[offer.Slip]\ninterface = "Slip"\ncall = ["text"]\n[restore.note]\nas = "Slip"\n'
ACCEPT = PEER.format("office") + '[accept.Slip]\ncall = ["text"]\n'


class Slip(Interface):
    @method(effect="read")
    def text(self) -> str: ...


class Note(Slip):
    def __init__(self, key: str):
        self.key = key

    def text(self):
        return self.key


class Office:
    """A server that has granted notes, and a guesser who speaks the protocol by hand."""

    def __init__(self, deployment, directory, monkeypatch):
        policies = {name: PEER.format(name) + SERVER for name in ("mallory", "alice")}
        self.side = deployment.side("office", policies, [Slip])
        self.network = Network()
        self.grants = Grants(directory / "grants.db", restorers={"note": Note}, address="caprpc://office.example:4853")
        self.party = self.network.party(self.side, {"slip": Note("root")}, grants=self.grants)
        mallory = self.network.party(deployment.side("mallory", {"office": ACCEPT}, [Slip]))
        self.end = self.network.connect(mallory, self.party).server
        self.session = self.end.session
        self.network.run()
        self.now = self.network.now
        self.question = 0
        self.looked_up = 0
        monkeypatch.setattr(restoring.time, "monotonic", self.clock)
        monkeypatch.setattr(self.party.accepting, "wall", self.wall)
        self._watch(monkeypatch)

    def _watch(self, monkeypatch):
        find = self.grants.find

        def watched(digest):
            self.looked_up += 1
            return find(digest)

        monkeypatch.setattr(self.grants, "find", watched)

    def clock(self):
        return self.now

    def wall(self):
        return 2_000_000_000.0 + self.now

    def grant(self, to=MALLORY, for_s=None):
        """Grant a note; return the secret."""
        uri = grant(self.party.accepting, Wish("note", "7", to, only=None, for_s=for_s), by="the test")
        return uri.partition("#")[2]

    def revoked(self):
        secret = self.grant()
        assert revoke_grant(self.party.accepting, self.grants.store.grants()[-1].grant_id)
        return secret

    def present(self, secret, *, after_s=1.0):
        """Have mallory present a secret; return the frame of the answer."""
        self.now += after_s
        self.question += 1
        call = m.Call(self.question, 0, OP_RESTORE, "note", None, pack([[secret], {}]))
        self.end.take(self.session.receive_data(encode_message(call), self.now))
        while self.end.jobs:
            self.end.run_job(self.end.jobs.popleft())
        return b"".join(self.session.data_to_send())


@pytest.fixture
def office(caprpc_deployment, tmp_path, monkeypatch):
    made = Office(caprpc_deployment, tmp_path, monkeypatch)
    yield made
    made.network.close()


def near(secret, at):
    """Return a secret with one character changed."""
    at = len(PREFIX) + at % (len(secret) - len(PREFIX))
    return secret[:at] + ("b" if secret[at] == "a" else "a") + secret[at + 1 :]


def guesses(office, count):
    """Yield so many texts that give mallory nothing: made up, near misses, of others, revoked, expired."""
    good = office.grant()
    wrong = (office.grant(ALICE), office.revoked(), office.grant(for_s=0.5))
    office.now += 1.0
    for number in range(count):
        if number % 8 == 6:
            yield wrong[number // 8 % 3]
        elif number % 8 == 7:
            yield near(good, number // 8)
        else:
            yield new_secret()


def redeem_all(office, count):
    """Have mallory's guesses go through what redeems them; return why each was refused, and how often."""
    redeeming = office.end.link.endpoint.restoring
    permit = office.session.guard.check(office.session.exports.get(0).facet, OP_RESTORE, "note", office.now)
    reasons = Counter()
    for secret in guesses(office, count):
        office.now += 1.0
        try:
            redeeming.restore(permit, secret)
        except NotRestored as exc:
            reasons[exc.reason] += 1
        else:
            reasons["restored"] += 1
    return reasons


def held(office):
    """Return how much there is of everything that a guess could leave behind."""
    gc.collect()
    session, recorder = office.session, office.end.link.endpoint.recorder
    tables = len(session.exports) + len(session.imports) + len(session.answers) + len(session.kept)
    kept = len(office.grants._guesses) + len(recorder._denials) + len(office.end.link.endpoint.restoring._rights)
    return tables, kept, len(office.grants.store.grants()), len(gc.get_objects())


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_guesses_at_the_pace_that_is_allowed_find_nothing_and_leave_nothing(office):
    redeem_all(office, 1_000)
    before, memory, looked_up = held(office), resident(), office.looked_up
    reasons = redeem_all(office, GUESSED)
    assert reasons.keys() == set(REASONS)
    assert reasons.total() == office.looked_up - looked_up == GUESSED
    after = held(office)
    # Each time four more grants, and nothing else.
    assert (after[0], after[1], after[2] - before[2]) == (before[0], before[1], 4)
    assert after[3] - before[3] < 200
    assert resident() - memory < 8 * 1024 * 1024
    assert decoded(office.present(office.grant())).payload


def decoded(frames):
    """Return the message of the last frame."""
    while True:
        end = HEADER_BYTES + int.from_bytes(frames[:HEADER_BYTES], "big")
        if end == len(frames):
            return decode_message(frames[HEADER_BYTES:])
        frames = frames[end:]


def test_every_wrong_guess_is_answered_with_the_same_bytes(office):
    answers = set()
    for secret in guesses(office, 3_000):
        frame = office.present(secret)
        answer = decoded(frame)
        assert type(answer) is m.Raise
        assert len(answer.reference) == len("R-7KQ2M9XW4HTA")
        assert answer.question == office.question
        # Nothing but its two numbers, which are fresh each time.
        assert frame[HEADER_BYTES:].count(answer.reference.encode()) == 1
        assert frame == encode_message(m.Raise(answer.question, False, "denied", "", "", answer.reference))
        answers.add((answer.taken, answer.code, answer.type, answer.text))
    assert len(answers) == 1
    assert office.looked_up == 3_000
    assert type(decoded(office.present(office.grant()))) is m.Return


def test_guesses_as_fast_as_they_come_end_the_connection_and_are_counted_in_the_log(office):
    count = 0
    for secret in guesses(office, 10_000):
        office.present(secret, after_s=0.001)
        count += 1
        if office.session.state is State.BROKEN or office.end.ended is not None:
            break
    assert GUESSES < count <= office.session.limits.glitch_burst + 10
    assert office.looked_up == GUESSES
    office.network.close()
    records = [
        json.loads(line) for path in office.side.audit.rglob("*.jsonl") for line in path.read_text().splitlines()
    ]
    denied = [record for record in records if record.get("decision") == "deny"]
    assert sum(record.get("count", 1) for record in denied) == count
    assert {record["reason"] for record in denied} == {*REASONS, "guesses"}
    assert not [record for record in records if PREFIX in json.dumps(record)]
    # A million take eleven days, and a connection for each two hundred at most.
    assert (1_000_000 - GUESSES) / GUESSES_PER_S > 11 * 86_400
    assert 1_000_000 * 1_000_000 / 2 ** (8 * RANDOM_BYTES) < 1e-36
