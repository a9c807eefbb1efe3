"""What is passed on between three parties: replayed, redirected and altered, it is of use to nobody. CAP-HD-18.

There is no token that leads from one party to another. What an owner lets a middle party pass on is one more reference
of the middle's own connection, for the third party, under both names; and a sturdy secret is sealed to its holder.
"""

import string

import pytest
from hostile_peer import reference
from test_attacks_sturdy import Office, anonymous, present
from vault_service import SERVER, Safe

import caprpc
from caprpc.ids import OP_ATTENUATE, OP_RESTORE
from caprpc.wire import messages as m
from caprpc.wire.codec import unpack

ALICE, MALLORY, EVE = (f"spiffe://test.example/{name}" for name in ("alice", "mallory", "eve"))
EVERYBODY = ("alice", "mallory", "eve")
FORWARDED = SERVER.replace("[offer.Limited.args.pay]", "forward = true\n[offer.Limited.args.pay]")


class Chained(Safe):
    """Says for whom it runs."""

    def caller(self):
        return " ".join(caprpc.current().chain)


@pytest.fixture
def owner(world, driver):
    return world.serve(driver, roots={"vault": Chained()}, policy=FORWARDED, who=EVERYBODY)


def pass_on(peer, target, chain, **more):
    """Ask the owner for a reference for others; return the answer."""
    return peer.ask(target, "", [None, None, None, None, None, chain], operation=OP_ATTENUATE, **more)


def passed_on(peer, target, chain):
    answer = pass_on(peer, target, chain)
    assert isinstance(answer, m.Return), answer
    return export_of(answer)


def export_of(answer):
    return unpack(answer.payload).export


def test_it_is_of_no_use_on_another_connection(world, owner):
    """Redirected to whom it is for, to somebody else, and replayed by its asker on a connection of its own."""
    alice = world.open(owner, "alice")
    number = passed_on(alice, alice.root(), [MALLORY])
    assert alice.value(number, "caller") == f"{ALICE} {MALLORY}"
    for name in EVERYBODY:
        other = world.open(owner, name)
        other.root()
        answer = other.ask(number, "caller")
        assert answer is None or answer.code in ("denied", "revoked")
    alice.close()
    again = world.open(owner, "alice")
    assert again.ask(number, "caller").code == "denied"


def test_an_altered_chain_is_again_its_askers_word_and_on_record(world, owner):
    """It changes nothing of the reference that it was altered from, and never who asks."""
    alice = world.open(owner, "alice")
    number = passed_on(alice, alice.root(), [MALLORY])
    for chain in ([EVE], [ALICE], [MALLORY, EVE]):
        further = passed_on(alice, number, chain)
        assert alice.value(further, "caller") == " ".join([ALICE, *chain])
        assert alice.value(number, "caller") == f"{ALICE} {MALLORY}"
    lesser = alice.ask(number, "", [[[1, "caller"]], None, None, None, None, None], operation=OP_ATTENUATE)
    assert alice.value(export_of(lesser), "caller") == f"{ALICE} {MALLORY}"
    said = [fields["detail"] for fields in owner.records(kind="grant") if fields["peer"] == ALICE]
    passed = [detail for detail in said if detail.startswith("passed on to")]
    # The lesser one is for the same as what it comes from.
    chains = ([MALLORY], [EVE], [ALICE], [MALLORY, EVE], [MALLORY])
    assert passed == [f"passed on to {' and on to '.join(chain)}" for chain in chains]


def test_a_forged_chain_gives_no_right_and_no_name(world, owner):
    """Who asks is who its certificate says, whomever it says that it asks for; what it may is what its policy says."""
    mallory = world.open(owner)
    root = mallory.root()
    for chain in ([ALICE], [ALICE, EVE], ["spiffe://test.example/server"], [MALLORY] * 16):
        number = passed_on(mallory, root, chain)
        assert mallory.value(number, "caller") == " ".join([MALLORY, *chain])
        for member in ("hidden", "balance", "made_up"):
            assert mallory.ask(number, member).code == "denied"


@pytest.mark.parametrize(
    "chain",
    [[], [ALICE] * 17, ALICE, [1], [None], ["alice"], [ALICE + "/"], [f"{ALICE} {EVE}"], [[ALICE]], {"a": ALICE}, True],
    ids=str,
)
def test_a_chain_that_is_none_is_refused(world, owner, chain):
    alice = world.open(owner, "alice")
    root = alice.root()
    assert pass_on(alice, root, chain).code == "invalid-arguments"
    assert alice.value(root, "caller") == ALICE


def test_what_may_not_be_passed_on_is_not(world, driver):
    running = world.serve(driver, who=EVERYBODY)
    alice = world.open(running, "alice")
    root = alice.root()
    assert pass_on(alice, root, [MALLORY]).code == "denied"
    slip = alice.value(root, "slip").export
    assert pass_on(alice, slip, [MALLORY]).code == "denied"


def test_a_reference_in_a_value_is_of_the_connection_that_it_comes_over(world, owner):
    """A number that is another party's names nothing here, whether as our own object or as the peer's."""
    alice, mallory = world.open(owner, "alice"), world.open(owner)
    number = passed_on(alice, alice.root(), [MALLORY])
    root = mallory.root()
    mallory.send(m.Facet(1, "Vault", [(1, "caller")], 0))
    answer = mallory.ask(root, "take", [reference(number, 1)])
    assert answer is None or isinstance(answer, m.Raise)
    assert alice.value(number, "caller") == f"{ALICE} {MALLORY}"


class TestSturdyReferences:
    """A secret that one party was granted, in the hands of two others, at two owners."""

    @pytest.fixture
    def offices(self, world, driver, tmp_path):
        return [Office(world, driver, tmp_path / name) for name in ("first", "second")]

    def test_replayed_and_redirected_it_is_denied(self, world, offices):
        first, second = offices
        secret = first.grant("alice")
        alice, mallory = world.open(first.running, "alice"), world.open(first.running)
        assert isinstance(present(alice, secret), m.Return)
        refused = [present(mallory, secret), present(world.open(second.running, "alice"), secret)]
        refused += [present(world.open(second.running), secret), present(mallory, secret, "other")]
        refused += [present(alice, secret, "other")]
        alice.close()
        refused += [present(mallory, secret)]
        assert len({anonymous(answer) for answer in refused}) == 1
        assert refused[0].code == "denied"
        assert isinstance(present(world.open(first.running, "alice"), secret), m.Return)

    def test_altered_anywhere_it_is_denied(self, world, offices, monkeypatch):
        monkeypatch.setattr("caprpc.objects.grants.GUESSES", 10_000)
        secret = offices[0].grant("alice")
        letters = string.ascii_lowercase + "234567"
        for at in range(len(secret)):
            changed = letters[(letters.find(secret[at]) + 1) % len(letters)]
            alice = world.open(offices[0].running, "alice")
            assert present(alice, secret[:at] + changed + secret[at + 1 :]).code == "denied", at
            alice.close()
        assert isinstance(present(world.open(offices[0].running, "alice"), secret), m.Return)

    def test_what_was_restored_is_passed_on_to_nobody_else(self, world, offices):
        secret = offices[0].grant("alice")
        alice, mallory = world.open(offices[0].running, "alice"), world.open(offices[0].running)
        number = export_of(present(alice, secret))
        assert pass_on(alice, number, [MALLORY]).code == "denied"
        mallory.root()
        assert mallory.ask(number, "text").code == "denied"
        assert mallory.ask(number, "slip", [secret], operation=OP_RESTORE).code == "denied"
