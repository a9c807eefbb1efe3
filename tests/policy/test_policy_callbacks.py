"""``callbacks``: how many calls one call may cause; read, refused, narrowed, compared and shown like other limits."""

import json

import pytest
from click.testing import CliRunner

from caprpc import ids
from caprpc.analysis.difference import difference
from caprpc.cli import main
from caprpc.limits import DEFAULT_LIMITS
from caprpc.policy import Guard, PrincipalQuotas
from tests.policy.conftest import PolicyDirectory

MEMBER = ("per_second = 2", "per_second = 2\ncallbacks = 20")


def of_post(guard):
    return guard.check(guard.facet("FeedLedger"), ids.OP_CALL, "post", 0.0).limit.callbacks


def test_of_a_member_and_of_a_connection(load_with):
    policy = load_with(MEMBER, ("in_flight = 8", "in_flight = 8\ncallbacks = 90")).policies[0]
    assert of_post(Guard(policy, PrincipalQuotas())) == 20
    assert policy.limits.callbacks == 90
    assert DEFAULT_LIMITS.callbacks == 65_536


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("callbacks = -1", "between"),
        ("callbacks = 2_147_483_649", "between"),
        ("callbacks = 1.5", "must be an integer"),
        ("callbacks = true", "must be an integer"),
        ('callbacks = "many"', "must be an integer"),
        ("callback = 5", "callbacks"),
    ],
)
def test_refused_with_its_line(directory, text, said):
    directory.replace("per_second = 2", text)
    where, message, hint = directory.problems()[0]
    assert where.startswith("org-b.toml:24")
    assert said in message + hint


def test_a_facet_as_a_whole_has_none(directory):
    header = "[offer.FeedLedger.limit.post]"
    directory.replace(header, f"[offer.FeedLedger.limit]\ncallbacks = 3\n{header}")
    [(where, message, _)] = directory.problems()
    assert where.startswith("org-b.toml:24")
    assert "limit of one member, not of a facet" in message


def test_zero_is_a_limit_and_not_its_absence(load_with):
    assert of_post(Guard(load_with(("per_second = 2", "callbacks = 0")).policies[0], PrincipalQuotas())) == 0


@pytest.mark.parametrize(("now", "most"), [("callbacks = 5", 5), ("callbacks = 50", 20), ("per_second = 2", 20)])
def test_a_reload_only_narrows(directory, now, most):
    directory.replace("per_second = 2", "callbacks = 20")
    guard = Guard(directory.load().policies[0], PrincipalQuotas())
    directory.replace("callbacks = 20", now)
    guard.narrow(directory.load().policies[0])
    assert of_post(guard) == most


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ("callbacks = 5", "callbacks = 6", "wider"),
        ("callbacks = 6", "callbacks = 5", "narrower"),
        ("callbacks = 5", "timeout_s = 5", "wider"),
        ("callbacks = 0", "callbacks = 1", "wider"),
    ],
)
def test_diff_weighs_it(directory, tmp_path, old, new, verdict):
    newer = PolicyDirectory(tmp_path / "newer")
    directory.replace("per_second = 2", old)
    newer.replace("per_second = 2", new)
    [found] = difference(directory.load(), newer.load())
    assert (found.verdict, found.subject) == (verdict, "Ledger.post: limits")


def test_diff_weighs_that_of_the_connection(directory, tmp_path):
    newer = PolicyDirectory(tmp_path / "newer")
    newer.replace("in_flight = 8", "in_flight = 8\ncallbacks = 70_000")
    [found] = difference(directory.load(), newer.load())
    assert (found.verdict, found.subject, found.new) == ("wider", "limits.callbacks", "70000")


def test_list_shows_it_and_the_schema_knows_it(directory):
    directory.replace("per_second = 2", "callbacks = 2_000_000")
    rows = json.loads(CliRunner().invoke(main, ["policy", "list", str(directory.path), "--format", "json"]).stdout)
    assert {row["member"]: row["limits"] for row in rows}["Ledger.post"] == "callbacks = 2000000"
    schema = json.loads(CliRunner().invoke(main, ["policy", "schema", "--kind", "policy"]).stdout)
    bounds = {"type": "integer", "minimum": 0, "maximum": 2**31}
    limit = schema["properties"]["offer"]["additionalProperties"]["properties"]["limit"]
    assert limit["additionalProperties"]["properties"]["callbacks"] == bounds
    assert schema["properties"]["limits"]["properties"]["callbacks"] == bounds
