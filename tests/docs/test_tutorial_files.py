"""The tutorial's files as they lie in the repository: policies load, contracts are those of its code."""

import shutil
from datetime import UTC, datetime

import pytest

from caprpc.interface import interface_closure
from caprpc.policy import PolicySet, contracts_to_toml

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def files(repository):
    return repository / "docs" / "tutorials" / "first_service"


@pytest.fixture
def load(files, tmp_path):
    def load(side):
        copied = tmp_path / side
        shutil.copytree(files / "policies" / side, copied)
        for path in (copied, *copied.iterdir()):
            path.chmod(0o700 if path.is_dir() else 0o600)
        return PolicySet.load(copied, now=NOW)

    return load


@pytest.mark.parametrize("side", ["server", "client"])
def test_contracts_are_those_of_the_code(files, side):
    """Written by ``caprpc policy contracts``; a change of the interface has to show here."""
    namespace = {}
    source = (files / "counting.py").read_text(encoding="utf-8")
    exec(compile(source, "counting.py", "exec"), namespace)
    written = (files / "policies" / side / "contracts.toml").read_text(encoding="utf-8")
    assert written == contracts_to_toml(interface_closure([namespace["LineCounter"]]))


def test_the_servers_policies_grant_alice_one_root(load):
    (policy,) = load("server").policies
    assert (policy.name, list(policy.roots)) == ("alice", ["counter"])


def test_the_clients_policies_lend_for_the_call(load):
    (policy,) = load("client").policies
    assert {lend.lifetime for lend in policy.lends.values()} == {"call"}
    assert not policy.roots
