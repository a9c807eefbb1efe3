"""Each side shows its audit log to the other, which cosigns what extends what it saw, and is loud about the rest."""

import json
import shutil

import pytest

from caprpc.audit import merkle
from caprpc.audit.notes import KIND_LOG, Checkpoint, Note, NoteSigner, VerifierKey
from caprpc.audit.proofs import prove
from caprpc.audit.sealing import Sealer
from caprpc.audit.witness import MOST_ORIGINS, RESEND_S
from caprpc.testing.pair import Pair
from caprpc.wire import messages as m


class Both:
    """A pair whose logs tick, on directories that outlive it."""

    def __init__(self, sides, impl, path):
        self._sides, self._impl, self.path = sides, impl, path
        self.now = 0.0
        self.open()

    def open(self):
        self.pair = Pair(*self._sides, {"node": self._impl()}, audit=self.path)
        self.pair.run()
        return self

    def call(self, node):
        self.pair.client.root("node", node).label

    def tick(self, times=1, step=2.0):
        """Let both logs do what is due, and both ends exchange what waits."""
        for _ in range(times):
            self.now += step
            for end in (self.pair.client, self.pair.server):
                end.admission.tick(self.now + 1e6)
            self.pair.advance(1.0)

    def log(self, end):
        return getattr(self.pair, end).admission.log

    def witness(self, end):
        (found,) = (one.witness for one in self.log(end)._opened.values() if one.witness is not None)
        return found

    def files(self, name, pattern):
        return sorted((self.path / name).glob(pattern))

    def events(self, name):
        found = []
        for file in self.files(name, "spiffe*.jsonl"):
            found += [json.loads(line) for line in file.read_bytes().splitlines()]
        return [one["event"] for one in found if one["kind"] == "checkpoint"]


@pytest.fixture
def both(sides, node_classes, tmp_path):
    made = Both(sides(), node_classes[3], tmp_path / "logs")
    yield made
    made.pair.close()


@pytest.fixture
def node(node_classes):
    return node_classes[0]


def test_both_sides_witness_each_other(both, node):
    both.call(node)
    both.tick(3)
    for end, other in (("client", "server"), ("server", "client")):
        (file,) = both.files(end, "*.cosigned")
        kept = json.loads(file.read_bytes())
        note = Note.parse(kept["note"].encode())
        checkpoint = Checkpoint.parse(note.text)
        key = VerifierKey.parse(kept["witness"])
        assert note.signature_of(key).time_s > 0
        assert checkpoint.origin == both.witness(end).ours._sealer.origin
        (seen,) = both.files(other, "*.witness")
        assert Checkpoint.parse(Note.parse(json.loads(seen.read_bytes())["note"].encode()).text) == checkpoint
        assert key.name.startswith("caprpc/witness/")
        assert both.events(end) == ["new-log"]


def test_a_proof_of_a_record_carries_the_signature_of_the_witness(both, node):
    both.call(node)
    both.tick(3)
    (log,) = {file.parent for file in both.files("server", "*.cosigned")}
    (file,) = both.files("server", "spiffe*.jsonl")
    proof = prove(log, file.name, 1)
    witness = VerifierKey.parse(json.loads(both.files("server", "*.cosigned")[0].read_bytes())["witness"])
    assert [one.name for one in proof.check([witness])] == [witness.name]


def test_what_is_shown_goes_on_with_the_log(both, node):
    sizes = []
    for _ in range(4):
        both.call(node)
        both.tick(3)
        (seen,) = both.witness("client")._seen.values()
        sizes.append(seen.checkpoint.size)
    assert sizes == sorted(set(sizes))


def test_nothing_is_exchanged_when_nothing_happens(both, node):
    both.call(node)
    both.tick(4)
    before = both.witness("client").ours._sealer.tree.end
    both.tick(4, step=RESEND_S + 1)
    assert both.witness("client").ours._sealer.tree.end == before
    assert not both.witness("client").waiting
    assert not both.witness("server").waiting


def test_witness_goes_on_after_a_restart_of_both(both, node):
    both.call(node)
    both.tick(3)
    both.pair.close()
    both.open()
    both.call(node)
    both.tick(4, step=RESEND_S + 1)
    (seen,) = both.witness("client")._seen.values()
    assert seen.checkpoint.size == both.witness("server").ours._sealer.tree.end
    assert set(both.events("client") + both.events("server")) == {"new-log"}


@pytest.mark.parametrize("lost", ["*.cosigned", "*.witness"])
def test_a_side_that_lost_its_place_finds_it_again(both, node, lost):
    both.call(node)
    both.tick(3)
    both.pair.close()
    for name in ("client", "server"):
        for file in both.files(name, lost):
            file.unlink()
    both.open()
    both.call(node)
    both.tick(6, step=RESEND_S + 1)
    (seen,) = both.witness("client")._seen.values()
    assert seen.checkpoint.size == both.witness("server").ours._sealer.tree.end
    assert set(both.events("client") + both.events("server")) == {"new-log"}


def test_a_log_that_was_put_back_is_noticed_by_both(both, node):
    both.call(node)
    both.tick(3)
    both.pair.close()
    yesterday = both.path.with_name("yesterday")
    shutil.copytree(both.path / "server", yesterday)
    both.open()
    for _ in range(20):
        both.call(node)
    both.tick(3)
    both.pair.close()
    shutil.rmtree(both.path / "server")
    shutil.copytree(yesterday, both.path / "server")
    both.open()
    both.tick(6, step=RESEND_S + 1)
    assert "ahead" in both.events("server")
    both.call(node)
    assert both.pair.client.ended is None


def rewritten(both, server):
    """Write the server's relation anew with its keys, from other records."""
    stem = both.files("server", "spiffe*.head")[0].stem
    for file in both.files("server", f"{stem}.*"):
        if not file.name.endswith((".key", ".cosigned", ".witness")):
            file.unlink()


def test_a_log_that_was_rewritten_with_its_keys_is_a_split_view_to_the_witness(both, node):
    both.call(node)
    both.tick(3)
    both.pair.close()
    rewritten(both, "server")
    for file in both.files("server", "*.cosigned"):
        file.unlink()
    both.open()
    for _ in range(60):
        both.call(node)
    both.tick(6, step=RESEND_S + 1)
    assert "split-view" in both.events("client")
    (evidence,) = both.files("client", "*.split-view")
    assert len(evidence.read_text().split("\n\n")) >= 2
    both.call(node)
    assert both.pair.client.ended is None


class Liar:
    """Puts made-up messages before one witness."""

    def __init__(self, both):
        self.witness = both.witness("client")
        self.key = NoteSigner.generate("caprpc/audit/liar", KIND_LOG)

    def say(self, size, root=bytes(32), old=0, proof=(), key=None, origin=None):
        key = key or self.key
        note = Checkpoint(origin or key.key.name, size, root).sign([key])
        self.witness.receive(m.Checkpoint(note.encode(), old, list(proof), [str(key.key)]))
        self.witness.work(1e9, 1)
        return self.answers()[-1]

    def answers(self):
        return [one for one in self.witness.take() if isinstance(one, m.Cosigned)]


@pytest.fixture
def liar(both):
    return Liar(both)


def test_a_second_tree_of_one_size_is_not_cosigned(both, liar):
    assert liar.say(5).signature
    assert liar.say(5).signature
    refused = liar.say(5, root=b"x" * 32)
    assert (refused.signature, refused.size) == ("", 5)
    assert both.events("client") == ["new-log", "split-view"]


def test_growth_without_a_proof_is_not_cosigned(both, liar):
    liar.say(5)
    assert not liar.say(9, old=5).signature
    assert not liar.say(9, old=5, proof=[b"x" * 32] * 3).signature
    assert not liar.say(9, old=0).signature
    assert both.events("client") == ["new-log", "split-view"]


def test_one_old_checkpoint_may_overtake_and_two_are_a_rollback(both, liar):
    liar.say(5)
    assert liar.say(4).size == 5
    assert both.events("client") == ["new-log"]
    liar.say(4)
    assert both.events("client") == ["new-log", "rollback"]
    liar.say(3)
    assert both.events("client") == ["new-log", "rollback"]


def test_a_key_that_nobody_vouched_for_is_told(both, liar):
    liar.say(5)
    other = NoteSigner.generate("caprpc/audit/liar", KIND_LOG)
    assert liar.say(5, key=other).signature
    assert both.events("client") == ["new-log", "new-key"]


@pytest.mark.parametrize(
    "message",
    [
        m.Checkpoint(b"no note", 0, [], ["key"]),
        m.Checkpoint("a\n1\n\n— a AAAAAAA=\n".encode(), 0, [], ["key"]),
    ],
)
def test_what_is_no_checkpoint_costs_a_record_and_nothing_else(both, liar, message):
    for _ in range(3):
        liar.witness.receive(message)
        liar.witness.work(1e9, 1)
    assert both.events("client") == ["bad-checkpoint"]
    assert [one.signature for one in liar.answers()][-1:] == [""]


def test_a_checkpoint_signed_by_another_key_is_not_taken(both, liar):
    other = NoteSigner.generate(liar.key.key.name, KIND_LOG)
    note = Checkpoint(liar.key.key.name, 5, bytes(32)).sign([other])
    liar.witness.receive(m.Checkpoint(note.encode(), 0, [], [str(liar.key.key)]))
    liar.witness.work(1e9, 1)
    assert both.events("client") == ["bad-checkpoint"]
    assert not both.files("client", "*.witness")


def test_logs_of_one_principal_are_bounded(both, liar):
    for number in range(MOST_ORIGINS + 2):
        answer = liar.say(1, key=NoteSigner.generate(f"caprpc/audit/{number}", KIND_LOG))
    assert not answer.signature
    assert len(both.files("client", "*.witness")) == MOST_ORIGINS
    assert both.events("client").count("too-many-logs") == 1


def test_messages_between_two_ticks_are_bounded(both, liar):
    for _ in range(1_000):
        liar.witness.receive(m.Cosigned("", 1, "", "key"))
    assert len(liar.witness._inbox) < 10


def test_a_witness_that_lies_about_what_it_saw_costs_a_record(both, node):
    both.call(node)
    both.tick(2)
    witness = both.witness("server")
    witness.receive(m.Cosigned(witness.ours._sealer.origin, 1 << 50, "", "key"))
    both.tick(2)
    assert both.events("server").count("ahead") == 1
    both.call(node)
    assert both.pair.client.ended is None


@pytest.fixture
def read(monkeypatch):
    """Count the records that are read for proofs; a step is 50 of them."""
    monkeypatch.setattr(merkle, "STEP_LEAVES", 50)
    counts = []
    leaves = Sealer._leaves

    def counting(self, last):
        for leaf in leaves(self, last):
            counts.append(leaf)
            yield leaf

    monkeypatch.setattr(Sealer, "_leaves", counting)
    return counts


def test_a_witness_that_names_other_places_has_a_step_of_the_log_read_at_a_time(both, node, read):
    for _ in range(150):
        both.call(node)
    both.tick(2)
    witness = both.witness("server")
    size = witness.ours._sealer.tree.end
    assert size > 300
    for place in range(100, 120):
        before = len(read)
        # A cosignature of something else is no refusal, after which the next checkpoint would have to wait.
        witness.receive(m.Cosigned(witness.ours._sealer.origin, place, "nothing", "key"))
        both.call(node)
        both.tick()
        assert len(read) - before <= 50
    assert len(read) > 500
    assert both.pair.client.ended is None


def test_a_proof_that_is_found_in_steps_is_of_the_log_as_it_was_and_goes_on(both, node, read):
    for _ in range(150):
        both.call(node)
    both.tick(3)
    both.pair.close()
    for file in both.files("server", "*.cosigned"):
        file.unlink()
    both.open()
    for _ in range(20):
        both.call(node)
        both.tick()
    both.tick(4)
    # The whole log, once: what came meanwhile is known without looking for it.
    assert 300 < len(read) < 400
    (seen,) = both.witness("client")._seen.values()
    assert seen.checkpoint.size == both.witness("server").ours._sealer.tree.end
    assert set(both.events("client") + both.events("server")) == {"new-log"}
