"""Sturdy references: guessed, forged, stolen, expired, revoked, and restored from an old backup. CAP-HD-16."""

import asyncio
import shutil
import sqlite3

import pytest
from vault_service import Slip

from caprpc.errors import ConfigurationError
from caprpc.ids import OP_RESTORE
from caprpc.objects.grants import GUESSES, GUESSES_PER_S, Grants
from caprpc.sturdy import RANDOM_BYTES, new_secret
from caprpc.wire import messages as m
from caprpc.wire.codec import encode_message, pack

EXTRA = '[restore.slip]\nas = "SlipOnly"\n[restore.other]\nas = "SlipOnly"\n'


class Paper(Slip):
    def __init__(self, key: str):
        self.key = key

    def text(self):
        return self.key


class Office:
    """A server that has granted slips, and what it has granted."""

    def __init__(self, world, driver, directory):
        self.world = world
        directory.mkdir(mode=0o700)
        self.path = directory / "grants.db"
        self.grants = Grants(self.path, restorers={"slip": Paper, "other": Paper})
        self.running = world.serve(driver, extra=EXTRA, grants=self.grants)
        self.looked_up = []
        find = self.grants.store.find

        class Watched:
            def __getattr__(_self, name):
                return getattr(store, name)

            def find(_self, digest):
                self.looked_up.append(digest)
                return find(digest)

        store, self.grants.store = self.grants.store, Watched()

    def grant(self, to="mallory", name="slip", **options):
        """Grant, and return the secret."""
        to = f"spiffe://{self.world.deployment.trust_domain}/{to}"
        result = self.running.server.grant(name, key="7", to=to, **options)
        if self.running.driver == "aio":
            result = asyncio.run_coroutine_threadsafe(result, self.running._loop).result(10)
        return result.partition("#")[2]

    def revoke_all(self):
        for grant in self.grants.store.grants():
            self.grants.store.revoke(grant.grant_id, 2.0)


@pytest.fixture
def office(world, driver, tmp_path):
    return Office(world, driver, tmp_path / "state")


def present(peer, secret, name="slip"):
    return peer.ask(0, name, [secret], operation=OP_RESTORE)


def anonymous(answer):
    """Return the bytes of a RAISE without its two numbers, which are fresh each time."""
    assert isinstance(answer, m.Raise), answer
    assert len(answer.reference) == len("R-7KQ2M9XW4HTA")
    return encode_message(m.Raise(1, answer.taken, answer.code, answer.type, answer.text, "R"))


def test_whatever_is_wrong_with_a_secret_gets_the_same_bytes(office, world):
    good, others = office.grant(), office.grant("alice")
    expired = office.grant(for_s=0.000_001)
    revoked = office.grant()
    office.grants.store.revoke(office.grants.store.grants()[-1].grant_id, 2.0)
    peer = world.open(office.running)
    mistyped = good[:-1] + ("a" if good[-1] != "a" else "b")
    wrong = [new_secret(), others, expired, revoked, mistyped, good[:-1], good.upper(), "", "x" * 64, "é"]
    answers = [anonymous(present(peer, secret)) for secret in wrong]
    answers += [anonymous(present(peer, good, name)) for name in ("other", "vault", "nothing", "__class__", "a" * 128)]
    assert len(set(answers)) == 1
    assert answers[0] == encode_message(m.Raise(1, False, "denied", "", "", "R"))
    assert isinstance(present(peer, good), m.Return)


def test_every_secret_costs_one_look_up_whatever_it_is(office, world):
    good, others = office.grant(), office.grant("alice")
    peer = world.open(office.running)
    secrets = [good, others, new_secret(), "", good[:-1], "caprpc_sr_"]
    for secret in secrets:
        present(peer, secret)
    assert len(office.looked_up) == len(secrets)
    assert {len(digest) for digest in office.looked_up} == {32}


def test_a_stolen_secret_is_worthless_to_whoever_stole_it(office, world):
    secret = office.grant("alice")
    assert present(world.open(office.running, "mallory"), secret).code == "denied"
    assert isinstance(present(world.open(office.running, "alice"), secret), m.Return)


def test_a_secret_is_no_reference_and_a_reference_no_secret(office, world):
    secret = office.grant()
    peer = world.open(office.running)
    for args in ([], [secret, secret], [[secret]], [1], [b"x"], [None], ["x" * 65]):
        assert peer.ask(0, "slip", args, operation=OP_RESTORE).code == "invalid-arguments"
    assert peer.ask(0, "slip", [], {"secret": secret}, operation=OP_RESTORE).code == "invalid-arguments"
    restored = present(peer, secret)
    assert isinstance(restored, m.Return)
    assert peer.ask(1, "slip", [secret], operation=OP_RESTORE).code == "denied"


def test_restore_without_a_name_ends_the_connection(office, world):
    peer = world.open(office.running)
    peer.send(peer.call(0, "", [office.grant()], operation=OP_RESTORE))
    assert peer.rest()[-1].code == "protocol-error"


def test_restore_in_a_batch_is_refused(office, world):
    peer = world.open(office.running)
    run = m.Run(0, OP_RESTORE, "slip", 1, pack([[[office.grant()], {}]]))
    question = peer.next_question()
    peer.send(m.Batch(question, None, [run]))
    assert [failure.code for failure in peer.answer(question).failures] == ["limit"]


def test_a_flood_of_guesses_ends_the_connection_and_soon_no_more_are_looked_up(office, world, monkeypatch):
    monkeypatch.setattr("caprpc.objects.grants.GUESSES_PER_S", 0.0)
    secret, others = office.grant(), office.grant("alice")
    guesses = 0
    for _ in range(3):
        peer = world.open(office.running)
        for _ in range(400):
            answer = present(peer, new_secret())
            if answer is None:
                break
            assert answer.code == "denied"
            guesses += 1
        else:
            pytest.fail("400 guesses on one connection")
    assert guesses > 3 * GUESSES
    assert len(office.looked_up) == GUESSES
    assert present(world.open(office.running), secret).code == "denied", "the guesser has to wait for its own"
    assert isinstance(present(world.open(office.running, "alice"), others), m.Return), "nobody else has"


def test_a_million_guesses_take_days_and_hit_nothing():
    seconds = (1_000_000 - GUESSES) / GUESSES_PER_S
    assert seconds > 11 * 86_400
    grants = 1_000_000
    chance = 1_000_000 * grants / 2 ** (8 * RANDOM_BYTES)
    assert chance < 1e-36


def test_a_revoked_grant_does_not_come_back_with_an_old_backup(office, world, tmp_path):
    secret = office.grant()
    backup = tmp_path / "backup.db"
    source, target = sqlite3.connect(office.path), sqlite3.connect(backup)
    source.backup(target)
    source.close()
    target.close()
    office.revoke_all()
    live, copy = sqlite3.connect(office.path), sqlite3.connect(backup)
    copy.backup(live)
    live.close()
    copy.close()
    answer = present(world.open(office.running), secret)
    assert answer.code == "internal", "the store went back in time: nothing is known, nothing is given"
    office.running.stop()
    for suffix in ("-wal", "-shm"):
        office.path.with_name("grants.db" + suffix).unlink(missing_ok=True)
    shutil.copy2(backup, office.path)
    office.path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="old backup"):
        Grants(office.path, restorers={"slip": Paper})
