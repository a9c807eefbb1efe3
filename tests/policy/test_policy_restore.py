"""``[restore.NAME]``: what may be restored, as what; said exactly or refused, and never widened by a reload."""

import dataclasses
from types import MappingProxyType

import pytest

from caprpc.analysis.authority import held_by
from caprpc.errors import PolicyError
from caprpc.ids import OP_RESTORE, OP_ROOT
from caprpc.policy import Guard, PrincipalQuotas, Refused, Restorable

GOOD = '[restore.ledger]\nas = "HistoryRO"\nmax_for_s = 60\n[restore.book]\nas = "FeedLedger"\nbearer = true\n'


@pytest.fixture
def load(directory):
    """Load the policy of the examples with more text behind it."""
    text = (directory.path / "org-b.toml").read_text()

    def loaded(more, roots=True):
        kept = text if roots else text.replace('[roots]\nledger = "FeedLedger"\n', "")
        directory.write("org-b.toml", kept + more)
        return directory.load().policies[0]

    return loaded


def test_what_may_be_restored_is_read_with_its_lines(load):
    policy = load(GOOD)
    ledger, book = policy.restores["ledger"], policy.restores["book"]
    assert (ledger.facet, ledger.bearer, ledger.max_for_s) == ("HistoryRO", False, 60.0)
    assert (book.facet, book.bearer, book.max_for_s) == ("FeedLedger", True, None)
    assert ledger.rule.startswith("org-b.toml:")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[restore]\n", "nothing stands"),
        ("[restore.ledger]\n", "'as' is missing"),
        ('[restore.ledger]\nas = "Nothing"\n', "there is no [offer.Nothing]"),
        ('[restore.ledger]\nas = "opaque"\n', "there is no [offer.opaque]"),
        ('[restore.ledger]\nas = "HistoryRO"\nbearer = false\n', "'bearer' can only be true"),
        ('[restore.ledger]\nas = "HistoryRO"\nbearer = 1\n', "'bearer' can only be true"),
        ('[restore.ledger]\nas = "HistoryRO"\nmax_for_s = 0\n', "'max_for_s' must be between"),
        ('[restore.ledger]\nas = "HistoryRO"\nmax_for_s = 1e300\n', "'max_for_s' must be between"),
        ('[restore.ledger]\nas = "HistoryRO"\nmax_for_s = "60"\n', "'max_for_s' must be a number"),
        ('[restore.ledger]\nas = "HistoryRO"\nto = "x"\n', "unknown key 'to'"),
        ('[restore._ledger]\nas = "HistoryRO"\n', "begins with '_'"),
        ('[restore."*"]\nas = "HistoryRO"\n', "wildcard"),
        ('restore = ["ledger"]\n', "restore"),
        ('[restore]\nledger = "HistoryRO"\n', "'ledger' must be a table"),
    ],
)
def test_anything_else_is_refused(load, text, said):
    with pytest.raises(PolicyError) as refused:
        load(text)
    assert said in str(refused.value)


def test_a_facet_that_is_only_restored_is_in_use(load, directory):
    more = '[offer.Extra]\ninterface = "History"\nlength = true\n'
    load(more)
    assert any("Extra" in str(warning) for warning in directory.load().warnings)
    load(more + '[restore.extra]\nas = "Extra"\n')
    assert not any("Extra" in str(warning) for warning in directory.load().warnings)


def test_an_invariant_sees_what_is_reached_by_restoring_and_never_lets_it_pass(load, directory):
    index = (directory.path / "caprpc.toml").read_text()
    more = '[offer.Extra]\ninterface = "History"\nlength = true\n'
    directory.write("caprpc.toml", index + '[[never]]\nid = "N9"\ntext = "nobody"\nreach = ["Extra"]\n')
    load(more)
    with pytest.raises(PolicyError, match="reaches Extra, against invariant N9"):
        load(more + '[restore.extra]\nas = "Extra"\n')


def guard_of(policy):
    return Guard(policy, PrincipalQuotas())


def test_restoring_is_permitted_by_name_and_roots_are_another_matter(load):
    guard = guard_of(load(GOOD, roots=False))
    permit = guard.check(guard.roots, OP_RESTORE, "book", 0.0)
    assert (permit.facet, permit.operation, permit.member) == ("FeedLedger", OP_RESTORE, "book")
    for operation, name in ((OP_RESTORE, "other"), (OP_ROOT, "book"), (OP_ROOT, ""), (OP_RESTORE, "")):
        with pytest.raises(Refused):
            guard.check(guard.roots, operation, name, 0.0)


def test_what_can_be_restored_is_not_listed_among_the_roots(load):
    assert guard_of(load(GOOD)).granted_roots() == {"ledger": "Ledger"}


def restorable(name="book", facet="FeedLedger", bearer=False, max_for_s=None):
    return Restorable(name, facet, bearer, max_for_s, "x.toml:1")


def with_restores(policy, *entries):
    return dataclasses.replace(policy, restores=MappingProxyType({e.name: e for e in entries}), digest=str(id(entries)))


def test_a_reload_narrows_what_a_live_connection_may_restore_and_never_widens_it(load):
    policy = load("")
    guard = guard_of(with_restores(policy, restorable(max_for_s=60.0), restorable("ledger"), restorable("third")))
    guard.narrow(
        with_restores(
            policy,
            restorable(bearer=True, max_for_s=90.0),
            restorable("ledger", facet="HistoryRO"),
            restorable("new"),
        )
    )
    assert {name: (one.bearer, one.max_for_s) for name, one in guard.restores.items()} == {"book": (False, 60.0)}
    guard.check(guard.roots, OP_RESTORE, "book", 0.0)
    for name in ("ledger", "third", "new"):
        with pytest.raises(Refused):
            guard.check(guard.roots, OP_RESTORE, name, 0.0)
    guard.narrow(None)
    assert guard.restores == {}


def test_reports_show_what_can_be_restored_and_what_is_held_by_it(load):
    policy = load(GOOD, roots=False)
    held = held_by(policy)
    assert held["HistoryRO"].way == "restore ledger for at most 60 s"
    assert held["FeedLedger"].way == "restore book, as bearer, too"
