"""What becomes of live references when their grant ends, and what a narrowed grant gives, over every pairing."""

import asyncio
import time

import pytest

from caprpc import ConfigurationError, Denied, Reconnect, ReferenceDead, RemoteError, StoreError, describe
from caprpc.objects import watching
from caprpc.store import SqliteStore
from tests.integration.conftest import WAIT_S
from tests.integration.sturdy.conftest import OFFERS, PARTNERS


async def refused(face, call):
    """Call until it is refused, and return the error; it must not take longer than a test waits."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        try:
            await face(call())
        except (ReferenceDead, RemoteError) as exc:
            return exc
    raise AssertionError("was never refused")


def use(branch, uri, interface, then):
    """Restore an account, look at its last entry, run ``then``, and return how both are refused afterwards."""

    async def scenario(face):
        account = await face(face.peer.restore(uri, interface))
        entry = await face(account.last())
        assert await face(entry.text()) == "opened"
        then()
        return await refused(face, account.number), await refused(face, entry.text)

    return branch.run(scenario)


def test_revoking_here_ends_live_references_and_what_was_obtained_through_them(branch, interfaces, monkeypatch):
    monkeypatch.setattr(watching, "POLL_S", 3_600.0)
    uri = branch.grant()
    grant_id = branch.grants()[0].grant_id
    errors = use(branch, uri, interfaces.account, lambda: branch.ask("revoke_grant", grant_id))
    assert all(isinstance(error, ReferenceDead) or error.code in ("denied", "revoked") for error in errors)
    assert branch.ask("revoke_grant", grant_id) is False
    assert branch.ask("revoke_grant", "G-AAAAAAAAAAAA") is False


def test_revoking_in_another_process_ends_live_references_within_a_second(branch, interfaces):
    uri = branch.grant()
    since = []

    def elsewhere():
        store = SqliteStore(branch.path)
        store.revoke(branch.grants()[0].grant_id, time.time())
        store.close()
        since.append(time.monotonic())

    use(branch, uri, interfaces.account, elsewhere)
    assert watching.POLL_S <= 0.5
    assert time.monotonic() - since[0] < WAIT_S


def test_a_grant_that_expires_takes_live_references_with_it(branch, interfaces):
    uri = branch.grant(for_s=0.5)
    errors = use(branch, uri, interfaces.account, lambda: None)
    assert all(isinstance(error, ReferenceDead) or error.code in ("denied", "revoked") for error in errors)


def test_a_policy_that_lets_grants_last_shorter_ends_live_references_in_time(branch, interfaces):
    uri = branch.grant()
    granted = branch.grants()[0].granted_at
    branch.host.server._admission.wall = lambda: granted + 9.5
    branch.town.rewrite(alice='[restore.account]\nas = "Account"\nmax_for_s = 10\n')
    branch.host.reload()
    errors = use(branch, uri, interfaces.account, lambda: None)
    assert all(isinstance(error, ReferenceDead) or error.code in ("denied", "revoked") for error in errors)


def test_revoking_one_grant_leaves_others_of_the_same_object_alone(branch, interfaces):
    first, second = branch.grant(), branch.grant()

    async def scenario(face):
        one = await face(face.peer.restore(first, interfaces.account))
        other = await face(face.peer.restore(second, interfaces.account))
        assert one is not other
        branch.ask("revoke_grant", branch.grants()[0].grant_id)
        await refused(face, one.number)
        return await face(other.number())

    assert branch.run(scenario) == "42"


def test_a_root_that_was_not_restored_lives_on_when_its_grant_is_revoked(branch, interfaces):
    uri = branch.grant(target="bank")

    async def scenario(face):
        root = await face.root("bank", interfaces.bank)
        restored = await face(face.peer.restore(uri, interfaces.bank))
        branch.ask("revoke_grant", branch.grants()[0].grant_id)
        await refused(face, restored.name)
        return await face(root.name())

    assert branch.run(scenario) == "bank"


def test_restoring_the_same_twice_gives_the_same_reference(branch, interfaces):
    uri = branch.grant()

    async def scenario(face):
        one = await face(face.peer.restore(uri, interfaces.account))
        return one is await face(face.peer.restore(uri, interfaces.account))

    assert branch.run(scenario)


def test_a_narrowed_grant_gives_what_it_names_and_no_more(branch, interfaces):
    uri = branch.grant(only=["number"])
    assert branch.grants()[0].only == {"number"}

    async def scenario(face):
        account = await face(face.peer.restore(uri, interfaces.account))
        with pytest.raises(Denied):
            await face(account.deposit(1))
        return await face(account.number())

    assert branch.run(scenario) == "42"
    branch.open()
    assert branch.run(scenario) == "42"
    assert branch.service.accounts["42"].balance == 0


def test_a_narrowed_grant_is_narrowed_further_by_policy(branch, interfaces):
    uri = branch.grant(only=["number", "deposit"])
    town = branch.town
    town.version += 1
    less = OFFERS.replace('call = ["number", "deposit", "last"]', 'call = ["number", "last"]')
    policies = {name: town.policy(name, offers=less) for name in PARTNERS}
    town.deployment.rewrite(town.server, policies, town.version)
    branch.host.reload()

    async def scenario(face):
        account = await face(face.peer.restore(uri, interfaces.account))
        for call in (lambda: account.deposit(1), account.last):
            with pytest.raises(Denied):
                await face(call())
        return await face(account.number())

    assert branch.run(scenario) == "42"


@pytest.mark.parametrize("only", [["close"], ["nothing"], [], "number", {"call": ["number"]}])
def test_a_grant_cannot_be_narrowed_to_what_policy_does_not_give(branch, only):
    with pytest.raises(ConfigurationError, match="only="):
        branch.grant(only=only)
    assert branch.grants() == []


def test_everything_restored_ends_when_the_store_cannot_be_read_any_more(branch, interfaces, monkeypatch):
    monkeypatch.setattr(watching, "PATIENCE", 2)
    uri = branch.grant()

    def break_store():
        branch.path.rename(branch.path.with_name("elsewhere.db"))

    use(branch, uri, interfaces.account, break_store)
    with pytest.raises(StoreError):
        branch.grants()
    with pytest.raises(RemoteError) as failed:
        branch.restored(uri)
    assert failed.value.code == "internal"


SOON = Reconnect(first_s=0.001, most_s=0.01)


def test_a_sturdy_reference_is_restored_again_after_a_loss(branch, interfaces):
    uri = branch.grant()

    async def scenario(face):
        account = await face(face.peer.restore(uri, interfaces.account))
        before = face.peer.connection_id
        branch.host.sever()
        await face.pause(lambda: face.peer._connection.link.ended is None and face.peer.connection_id != before)
        assert await face(face.peer.restore(uri, interfaces.account)) is account
        return await face(account.number())

    assert branch.run(scenario, reconnect=SOON) == "42"


def test_a_sturdy_reference_that_was_revoked_meanwhile_says_so_after_a_loss(branch, interfaces):
    uri = branch.grant()

    async def scenario(face):
        account = await face(face.peer.restore(uri, interfaces.account))
        root = await face.root("bank", interfaces.bank)
        link = face.peer._connection.link
        branch.host.stop(0.0)
        await face.pause(lambda: link.ended is not None)
        store = SqliteStore(branch.path)
        store.revoke(store.grants()[0].grant_id, time.time())
        store.close()
        branch.open()
        assert await face(root.name()) == "bank"
        with pytest.raises(ReferenceDead, match="sturdy reference 'account' was not given again") as dead:
            await face(account.number())
        assert uri.partition("#")[2] not in str(dead.value)

    branch.run(scenario, reconnect=SOON)


BEFORE = OFFERS.replace('"deposit", ', "")
AFTER = OFFERS.replace(', "last"', "").replace('[offer.Account.returns]\nlast = "Entry"\n', "")


def enforce(branch, offers):
    town = branch.town
    town.version += 1
    town.deployment.rewrite(town.server, {name: town.policy(name, offers=offers) for name in PARTNERS}, town.version)
    branch.host.reload()


def test_after_a_loss_it_has_exactly_what_the_policy_gives_now(branch, interfaces):
    uri = branch.grant()
    enforce(branch, BEFORE)

    async def outcomes(face, account, entry):
        found = {}
        for name, call in (("deposit", lambda: account.deposit(1)), ("last", account.last), ("old", entry.text)):
            try:
                await face(call())
                found[name] = "ok"
            except (Denied, ReferenceDead) as exc:
                found[name] = type(exc).__name__
        assert await face(account.number()) == "42"
        return found, {str(member).partition("(")[0] for member in describe(account).members}

    async def scenario(face):
        account = await face(face.peer.restore(uri, interfaces.account))
        entry = await face(account.last())
        found = [await outcomes(face, account, entry)]
        await asyncio.to_thread(enforce, branch, AFTER) if face.is_async else enforce(branch, AFTER)
        found.append(await outcomes(face, account, entry))
        before = face.peer.connection_id
        branch.host.sever()
        await face.pause(lambda: face.peer._connection.link.ended is None and face.peer.connection_id != before)
        found.append(await outcomes(face, account, entry))
        return found

    offered, narrowed, again = branch.run(scenario, reconnect=SOON)
    assert offered[0] == {"deposit": "Denied", "last": "ok", "old": "ok"}
    assert narrowed[0] == {"deposit": "Denied", "last": "Denied", "old": "ok"}
    assert again == ({"deposit": "ok", "last": "Denied", "old": "ReferenceDead"}, {"deposit", "number"})
