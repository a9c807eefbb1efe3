"""The README's example is real: its code declares what its policies grant, and the policies load."""

import ast
import inspect
import re
from datetime import UTC, datetime

import pytest

from caprpc.ids import OP_CALL, OP_INVOKE, OP_ITERATE
from caprpc.interface import interface_closure
from caprpc.policy import PolicySet, contracts_to_toml

HEAD = 'caprpc = 1\nkind = "policy"\nname = "{name}"\nowner = "readme@example.org"\nreason = "the README"\n'
INDEX = """\
caprpc = 1
kind = "directory"
version = 1
policies = ["peer.toml"]
contracts = "contracts.toml"
audit = "../audit"
"""
CLIENT_PEER = '[peer]\nca = ["sha256:…"]\nspiffe = ["spiffe://example.org/server"]\n'
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def blocks(repository, language):
    page = (repository / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def contracts(repository):
    """The contracts of the interface that the README declares."""
    namespace = {}
    exec(compile(blocks(repository, "python")[0], "README.md", "exec"), namespace)
    return interface_closure([namespace["LineCounter"]])


@pytest.fixture
def load(tmp_path, contracts):
    def load(text):
        directory = tmp_path / "policies"
        directory.mkdir(mode=0o700)
        files = {
            "caprpc.toml": INDEX,
            "peer.toml": HEAD.format(name="readme") + text.replace("sha256:…", "sha256:" + "2" * 64),
            "contracts.toml": contracts_to_toml(contracts),
        }
        for name, content in files.items():
            (directory / name).write_text(content, encoding="utf-8")
            (directory / name).chmod(0o600)
        return PolicySet.load(directory, now=NOW).policies[0]

    return load


def test_the_servers_policy_grants_one_member_of_one_root(repository, load):
    policy = load(blocks(repository, "toml")[0])
    assert list(policy.roots) == ["counter"]
    assert ("TextLines", OP_CALL, "readlines") in policy.accepts
    assert ("Callable", OP_INVOKE, "") in policy.accepts
    assert ("TextLines", OP_ITERATE, "") in policy.accepts


def test_the_clients_policy_lends_two_parameters_for_the_call(repository, load):
    policy = load(CLIENT_PEER + blocks(repository, "toml")[1])
    lent = {key: (lend.facet, lend.lifetime) for key, lend in policy.lends.items()}
    assert lent == {
        ("LineCounter", "line_counter", "fileobj"): ("LinesOnly", "call"),
        ("LineCounter", "line_counter", "function"): ("CallOnly", "call"),
    }


def test_calls_of_the_public_api_fit_its_signatures(repository):
    """``caprpc.serve(…)`` and ``caprpc.connect(…)`` of the README bind to the functions there are."""
    import caprpc

    called = set()
    for block in blocks(repository, "python"):
        for node in ast.walk(ast.parse(block)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and ast.unparse(node.func.value) == "caprpc"
            ):
                keywords = {keyword.arg: keyword.value for keyword in node.keywords}
                inspect.signature(getattr(caprpc, node.func.attr)).bind(*node.args, **keywords)
                called.add(node.func.attr)
    assert called == {"serve", "connect"}
