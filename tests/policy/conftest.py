"""A policy directory to break, and contracts to check it against."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from caprpc import ids
from caprpc.cli import main
from caprpc.contract import InterfaceContract, MemberContract, ParameterContract
from caprpc.errors import ConfigurationError, PolicyError
from caprpc.peer import PeerIdentity
from caprpc.policy import PolicySet, contracts_to_toml
from caprpc.policy.problems import CODES

NOW = datetime(2026, 11, 22, tzinfo=UTC)
CA = "sha256:" + "2" * 64
FEED = "spiffe://org-b.example/treasury/feed"

POLICY = f"""\
caprpc = 1
kind   = "policy"
name   = "org-b-feed"
owner  = "treasury-security@acme.example"
reason = "SEC-2044: intraday feed"
tags   = ["external"]
not_after = 2999-06-30T00:00:00Z

[peer]
ca     = ["{CA}"]
spiffe = ["{FEED}"]

[roots]
ledger = "FeedLedger"

[offer.FeedLedger]
interface = "Ledger"
call = ["balance", "history", "post", "subscribe"]
get  = ["currency"]
[offer.FeedLedger.args.post]
amount   = {{ min = 0.01, max = 10_000 }}
currency = {{ in = ["EUR", "USD"] }}
[offer.FeedLedger.limit.post]
per_second = 2
[offer.FeedLedger.returns]
history = "HistoryRO"
subscribe = "opaque"
[offer.FeedLedger.record]
post = ["account", "amount"]

[offer.HistoryRO]
interface = "History"
iterate = true
length = true

[offer.LinesOnly]
interface = "TextLines"
call = ["readlines"]
iterate = true

[accept.Sink]
call = ["update", "load"]

[[lend]]
to = "Sink.load"
param = "source"
as = "LinesOnly"
lifetime = "call"

[limits]
in_flight = 8
connections = 2

[audit]
level = "decision"
on_failure = "refuse"
"""

INDEX = """\
caprpc = 1
kind = "directory"
version = 7
policies = ["org-b.toml"]
contracts = "contracts.toml"
audit = "../audit"

[[never]]
id = "N1"
text = "nobody reaches LedgerAdmin"
reach = ["LedgerAdmin"]
"""


def member(operation: int, name: str, *parameters: ParameterContract, returns: str = "None", ref: str | None = None):
    return (operation, name), MemberContract(operation, name, parameters, returns, ref, "read")


def parameter(name: str, kind: str, reference: str | None = None, required: bool = True) -> ParameterContract:
    return ParameterContract(name, kind, reference, required)


def interface(name: str, *members) -> InterfaceContract:
    return InterfaceContract(name, dict(members), f"The {name}.")


def make_contracts() -> dict[str, InterfaceContract]:
    post = [
        parameter("account", "str"),
        parameter("amount", "Decimal"),
        parameter("currency", "str", required=False),
        parameter("tags", "list[str]", required=False),
    ]
    found = [
        interface(
            "Ledger",
            member(ids.OP_CALL, "balance", parameter("account", "str"), returns="Decimal"),
            member(ids.OP_CALL, "history", returns="History", ref="History"),
            member(ids.OP_CALL, "post", *post),
            member(ids.OP_CALL, "subscribe", parameter("sink", "Sink", "Sink"), returns="Sub", ref="Subscription"),
            member(ids.OP_CALL, "entries", returns="Iterator[str]", ref="Iterator"),
            member(ids.OP_CALL, "length", returns="int"),
            member(ids.OP_LENGTH, "", returns="int"),
            member(ids.OP_GET, "currency", returns="str"),
            member(ids.OP_GET, "limit", returns="int"),
            member(ids.OP_SET, "limit", parameter("value", "int")),
        ),
        interface("LedgerAdmin", member(ids.OP_CALL, "wipe")),
        interface(
            "History",
            member(ids.OP_ITERATE, "", returns="Iterator[str]", ref="Iterator"),
            member(ids.OP_LENGTH, "", returns="int"),
        ),
        interface("Subscription", member(ids.OP_CALL, "stop")),
        interface(
            "Sink",
            member(ids.OP_CALL, "update", parameter("line", "str")),
            member(ids.OP_CALL, "load", parameter("source", "TextLines", "TextLines"), returns="int"),
        ),
        interface(
            "TextLines",
            member(ids.OP_CALL, "readlines", returns="Iterator[str]", ref="Iterator"),
            member(ids.OP_CALL, "read", parameter("size", "int", required=False), returns="str"),
            member(ids.OP_ITERATE, "", returns="Iterator[str]", ref="Iterator"),
        ),
    ]
    return {contract.name: contract for contract in found}


class PolicyDirectory:
    """A directory of policy files that a test can change and load."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o755)
        self.write("caprpc.toml", INDEX)
        self.write("org-b.toml", POLICY)
        self.write("contracts.toml", contracts_to_toml(make_contracts()))

    def write(self, name: str, text: str | bytes) -> None:
        file = self.path / name
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        file.chmod(0o644)

    def replace(self, old: str, new: str, file: str = "org-b.toml") -> None:
        text = (self.path / file).read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
        self.write(file, text.replace(old, new))

    def load(self, previous: PolicySet | None = None) -> PolicySet:
        return PolicySet.load(self.path, now=NOW, previous=previous)

    def problems(self, previous: PolicySet | None = None) -> list[tuple[str, str, str]]:
        with pytest.raises(PolicyError) as caught:
            self.load(previous)
        files: dict[str, list[str]] = {}
        for problem in caught.value.problems:
            self._check_form(problem, files)
        return [(problem.where, problem.message, problem.hint) for problem in caught.value.problems]

    def _check_form(self, problem: ConfigurationError, files: dict[str, list[str]]) -> None:
        """Each problem has a code of the list and a suggestion, and, if it is on a line, a column within that line."""
        assert problem.code in CODES, problem
        assert problem.hint, f"nothing is suggested: {problem}"
        name, _, line = problem.where.rpartition(":")
        if line.isdecimal():
            if name not in files:
                files[name] = (self.path / name).read_bytes().decode("utf-8", "replace").split("\n")
            lines = files[name]
            assert problem.column is not None, f"no column: {problem}"
            assert 1 <= problem.column <= len(lines[int(line) - 1]) + 1, problem


@pytest.fixture
def directory(tmp_path: Path) -> PolicyDirectory:
    return PolicyDirectory(tmp_path / "policies")


@pytest.fixture
def load_with(directory: PolicyDirectory) -> Callable[..., PolicySet]:
    """Load the example with some of its text replaced."""

    def load(*replacements: tuple[str, str]) -> PolicySet:
        for old, new in replacements:
            directory.replace(old, new)
        return directory.load()

    return load


def identity(anchor: str = CA, principal: str = FEED) -> PeerIdentity:
    return PeerIdentity(principal, anchor, "sha256:" + "a" * 64, (), 4e9, "test")


@pytest.fixture
def make_identity() -> Callable[..., PeerIdentity]:
    return identity


@pytest.fixture
def newer(tmp_path):
    """A copy of the example that a test changes: the candidate."""
    return PolicyDirectory(tmp_path / "newer")


@pytest.fixture
def run():
    """Run ``caprpc policy`` with these words."""
    return lambda *words: CliRunner().invoke(main, ["policy", *map(str, words)])
