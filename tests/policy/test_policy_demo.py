"""The policies that come with CapRPC load, but for the fingerprint that the operator has to fill in."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from caprpc import ids
from caprpc.policy import Guard, PolicySet, PrincipalQuotas

POLICIES = Path(__file__).resolve().parents[2] / "policies"
NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def load(tmp_path):
    def load(name: str) -> PolicySet:
        target = tmp_path / name
        target.mkdir(mode=0o755)
        for file in (POLICIES / name).iterdir():
            # A checkout may have any mode; a policy directory may not.
            shutil.copyfile(file, target / file.name)
            (target / file.name).chmod(0o644)
        return PolicySet.load(target, now=NOW)

    return load


@pytest.mark.parametrize("name", sorted(path.name for path in POLICIES.iterdir() if path.is_dir()))
def test_shipped_policies_load_and_warn_of_the_placeholder_only(load, name):
    warnings = load(name).warnings
    assert warnings
    assert all("placeholder" in warning.message for warning in warnings)


def test_server_grants_one_root(load):
    (policy,) = load("demo-server").policies
    guard = Guard(policy, PrincipalQuotas())
    assert set(guard.roots.permits) == {(ids.OP_ROOT, "counter"), (ids.OP_ROOT, "")}
    assert set(guard.facet("Counting").permits) == {(ids.OP_CALL, "line_counter"), (ids.OP_CALL, "misbehave")}


def test_client_lends_lines_and_a_call_for_the_length_of_the_call(load):
    (policy,) = load("demo-client").policies
    guard = Guard(policy, PrincipalQuotas())
    for member in ("line_counter", "misbehave"):
        file, function = (guard.lend("LineCounter", member, parameter) for parameter in ("fileobj", "function"))
        assert (file.lifetime, function.lifetime) == ("call", "call")
        assert set(guard.facet(file.facet).permits) == {(ids.OP_CALL, "readlines"), (ids.OP_ITERATE, "")}
        assert set(guard.facet(function.facet).permits) == {(ids.OP_INVOKE, "")}
    assert guard.roots.permits == {}
