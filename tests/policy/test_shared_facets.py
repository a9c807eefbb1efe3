"""Shared facets: named by policies as if they were their own, and no more than that."""

import json

import pytest
from click.testing import CliRunner

from caprpc import ids
from caprpc.cli import main
from caprpc.policy import Guard, PrincipalQuotas, contracts_to_toml
from tests.policy.conftest import interface, make_contracts, member

HISTORY = """\
[offer.HistoryRO]
interface = "History"
iterate = true
length = true
"""
LINES = """\
[offer.LinesOnly]
interface = "TextLines"
call = ["readlines"]
iterate = true
"""
LEDGER = """\
[offer.LedgerRO]
interface = "Ledger"
call = ["history"]
[offer.LedgerRO.returns]
history = "HistoryRO"
"""
HEAD = 'caprpc = 1\nkind = "facets"\n'


@pytest.fixture
def shared(directory):
    """The example, with two facets moved into a shared file and nothing else changed."""
    directory.replace(HISTORY, "")
    directory.replace(LINES, "")
    share(directory, HISTORY + LINES)
    return directory


def share(directory, *texts):
    names = [f"shared{number or ''}.toml" for number in range(len(texts))]
    for name, text in zip(names, texts, strict=True):
        directory.write(name, HEAD + text)
    directory.replace("contracts =", f"facets = {json.dumps(names)}\ncontracts =", "caprpc.toml")


def second_policy(directory, text=""):
    """Add a policy for another peer; it uses nothing that is shared unless the text does."""
    directory.replace('["org-b.toml"]', '["org-b.toml", "org-c.toml"]', "caprpc.toml")
    peer = f'[peer]\nca = ["sha256:{"3" * 64}"]\nspiffe = ["spiffe://org-c.example/feed"]\n'
    directory.write("org-c.toml", f'caprpc = 1\nkind = "policy"\nname = "org-c"\n{peer}{text}')


def run(*args):
    return CliRunner().invoke(main, ["policy", *map(str, args)], prog_name="caprpc")


def test_policy_names_them_in_returns_and_lends(shared):
    loaded = shared.load()
    (policy,) = loaded.policies
    assert set(policy.offers) >= {"FeedLedger", "HistoryRO", "HistoryRO/iterator", "LinesOnly", "LinesOnly/iterator"}
    assert loaded.warnings == ()


def test_policy_names_them_in_roots_and_restores(directory):
    share(directory, '[offer.LedgerRO]\ninterface = "Ledger"\nget = ["currency"]\n')
    second_policy(directory, '[roots]\nledger = "LedgerRO"\n[restore.ledger]\nas = "LedgerRO"\n')
    policy = directory.load().policy("org-c")
    assert (policy.roots["ledger"].facet, policy.restores["ledger"].facet) == ("LedgerRO", "LedgerRO")
    assert list(policy.offers) == ["LedgerRO"]


def test_rules_point_at_the_shared_file(shared):
    offer = shared.load().policies[0].offers["HistoryRO"]
    assert offer.rule == "shared.toml:3"
    assert offer.grants[ids.OP_ITERATE, ""].rule == "shared.toml:5"


def test_guard_permits_what_a_shared_facet_lists_and_no_more(shared):
    loaded = shared.load()
    guard = Guard(loaded.policies[0], PrincipalQuotas())
    facet = guard.facet("HistoryRO")
    assert set(facet.permits) == set(loaded.policies[0].offers["HistoryRO"].grants)
    assert (ids.OP_LENGTH, "") in facet.permits


def test_policy_has_only_those_that_it_uses(shared):
    second_policy(shared, '[roots]\nhistory = "HistoryRO"\n')
    assert set(shared.load().policy("org-c").offers) == {"HistoryRO", "HistoryRO/iterator"}
    assert shared.load().warnings == ()


def test_one_that_no_policy_uses_is_warned_of_once(shared):
    second_policy(shared)
    shared.write("shared.toml", HEAD + HISTORY + LINES + '[offer.Idle]\ninterface = "History"\nlength = true\n')
    (warning,) = shared.load().warnings
    assert (warning.where, warning.code) == ("shared.toml:11", "unreachable-facet")
    assert "no policy uses the facet Idle" in warning.message


def test_own_facet_of_the_same_name_is_an_error(shared):
    shared.replace("[accept.Sink]", HISTORY + "[accept.Sink]")
    ((where, message, _),) = shared.problems()
    assert where.startswith("org-b.toml:")
    assert "HistoryRO stands at shared.toml:3, too" in message


def test_same_name_in_two_shared_files_is_an_error(directory):
    other = '[offer.Same]\ninterface = "History"\nlength = true\n'
    share(directory, other, other)
    assert {where for where, message, _ in directory.problems() if "stands at" in message} == {
        "shared.toml:3",
        "shared1.toml:3",
    }


def test_shared_facets_name_each_other_across_files(directory):
    directory.replace(HISTORY, "")
    share(directory, LEDGER, HISTORY)
    second_policy(directory, '[roots]\nledger = "LedgerRO"\n')
    assert set(directory.load().policy("org-c").offers) == {"LedgerRO", "HistoryRO", "HistoryRO/iterator"}


def test_shared_facet_cannot_name_one_of_a_policy(directory):
    share(directory, LEDGER)
    ((where, message, _),) = directory.problems()
    assert (where, message) == ("shared.toml:7", "there is no [offer.HistoryRO]")


@pytest.mark.parametrize(
    ("text", "where", "code"),
    [
        ('kind = "policy"\n' + LINES, "shared.toml:2", "wrong kind"),
        ('kind = "facets"\n[roots]\nledger = "FeedLedger"\n' + LINES, "shared.toml:3", "unknown key"),
        ('kind = "facets"\n', "shared.toml:1", "nothing offered"),
        ('kind = "facets"\n[offer._Secret]\ninterface = "History"\n' + LINES, "shared.toml:3", "private name"),
        ('kind = "facets"\n[offer.Bad]\ninterface = "History"\ncall = ["wipe"]\n', "shared.toml:5", "no such member"),
        ('kind = "facets"\noffer = 1\n', "shared.toml:3", "no table"),
    ],
)
def test_mistake_in_a_shared_file_is_located(shared, text, where, code):
    shared.write("shared.toml", "caprpc = 1\n" + text)
    assert where in {place for place, _, _ in shared.problems()}, code


def test_shared_file_that_is_not_listed_is_an_error(directory):
    directory.write("shared.toml", HEAD + HISTORY)
    ((_, message, _),) = directory.problems()
    assert "'shared.toml' lies in the directory and is not listed" in message


def test_file_listed_twice_is_an_error(shared):
    shared.replace('["org-b.toml"]', '["org-b.toml", "shared.toml"]', "caprpc.toml")
    assert "'shared.toml' is no file of facets" in {message for _, message, _ in shared.problems()}


def test_invariant_holds_for_a_shared_facet(shared):
    shared.replace('reach = ["LedgerAdmin"]', 'reach = ["HistoryRO"]', "caprpc.toml")
    assert "policy org-b-feed reaches HistoryRO, against invariant N1" in shared.problems()[0][1]


def test_digest_changes_with_a_shared_file_that_the_policy_uses(shared):
    second_policy(shared)
    before = shared.load()
    shared.replace("length = true", "", "shared.toml")
    after = shared.load()
    assert before.policy("org-b-feed").digest != after.policy("org-b-feed").digest
    assert before.policy("org-c").digest == after.policy("org-c").digest == after.files["org-c.toml"]


def test_moving_a_facet_to_the_shared_file_is_no_difference(directory, tmp_path):
    before = tmp_path / "before"
    before.mkdir(mode=0o755)
    for file in directory.path.iterdir():
        (before / file.name).write_bytes(file.read_bytes())
        (before / file.name).chmod(0o644)
    directory.replace(HISTORY, "")
    share(directory, HISTORY)
    directory.replace("version = 7", "version = 8", "caprpc.toml")
    result = run("diff", before, directory.path, "--format", "json")
    assert result.exit_code == 0, result.output
    assert "length" not in result.stdout
    directory.write("shared.toml", HEAD + HISTORY.replace("length = true\n", ""))
    assert run("diff", before, directory.path).exit_code == 0
    wider = run("diff", directory.path, before)
    assert wider.exit_code == 1
    assert "History (length)" in wider.stdout


def test_list_names_what_a_shared_facet_gives(shared):
    result = run("list", shared.path, "--format", "csv")
    assert result.exit_code == 0
    assert "HistoryRO" in result.stdout


def test_facets_that_lead_back_to_themselves_are_followed_once(directory):
    parents = member(ids.OP_CALL, "parent", returns="Node", ref="Node")
    contracts = make_contracts() | {"Node": interface("Node", parents)}
    directory.write("contracts.toml", contracts_to_toml(contracts))
    share(
        directory,
        '[offer.Child]\ninterface = "Node"\ncall = ["parent"]\nreturns = { parent = "Parent" }\n'
        '[offer.Parent]\ninterface = "Node"\ncall = ["parent"]\nreturns = { parent = "Child" }\n',
    )
    directory.replace('ledger = "FeedLedger"', 'ledger = "FeedLedger"\nnode = "Child"')
    policies = directory.load()
    assert {"Child", "Parent"} <= policies.policies[0].offers.keys()
    assert policies.warnings == ()


def test_what_comes_with_an_unused_facet_is_not_warned_of_by_itself(directory):
    share(directory, '[offer.Spare]\ninterface = "Ledger"\ncall = ["entries"]\niterate = true\n')
    assert [warning.message for warning in directory.load().warnings] == ["no policy uses the facet Spare"]


@pytest.mark.parametrize("mistake", ["Spare = 5", "_spare = { interface = 'History', length = true }"])
def test_a_mistake_in_one_of_two_shared_files_is_named_once(directory, mistake):
    share(directory, f"[offer]\n{mistake}\n", HISTORY.replace("HistoryRO", "Other"))
    assert [where for where, _, _ in directory.problems()] == ["shared.toml:4"]


def test_what_an_unreachable_facet_leads_to_is_not_warned_of(shared):
    shared.replace(
        "[offer.FeedLedger]",
        '[offer.Spare]\ninterface = "Ledger"\ncall = ["history"]\nreturns = { history = "HistoryRO" }\n'
        "[offer.FeedLedger]",
    )
    shared.replace('history = "HistoryRO"\n', 'history = "opaque"\n')
    messages = [warning.message for warning in shared.load().warnings]
    assert messages == ["no root, restore, lend or result gives the peer the facet Spare"]
