"""``caprpc policy schema``: what editors check is what the parser takes."""

import json
import tomllib
from collections import defaultdict
from datetime import datetime
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from caprpc.audit.notes import KIND_LOG, NoteSigner
from caprpc.bundles import Signers
from caprpc.cli import main
from caprpc.cli.policy_schema import SCHEMAS
from caprpc.policy.document import Table

ROOT = Path(__file__).resolve().parents[2]
FORMATS = jsonschema.FormatChecker()

RESTORE = """
[restore.ledger]
as = "FeedLedger"
bearer = true
max_for_s = 60
"""

FACETS = """\
caprpc = 1
kind = "facets"
[offer.AdminRO]
interface = "Ledger"
set = ["limit"]
[offer.AdminRO.args.limit]
value = { min = 1 }
[offer.AdminRO.limit.limit]
per_second = 1
"""

FLAGGED = """
[[interface.Flagged.member]]
operation = "call"
name = "post"
effect = "write"
idempotent = true
parameters = [{ name = "token", type = "str", reference = "Sink", required = true, sensitive = true }]
"""

TESTS = """\
caprpc = 1
kind = "tests"
[[expect]]
id = "T1"
peer = "org-b-feed"
may = "Ledger.post"
args = { amount = 1 }
"""


def as_json(value):
    """Return what an editor hands to the schema: date-times are texts."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list) else value


def mistakes(text):
    data = as_json(tomllib.loads(text))
    schema = SCHEMAS[data["kind"]]()
    validator = jsonschema.Draft202012Validator(schema, format_checker=FORMATS)
    return [error.message for error in validator.iter_errors(data)]


def shipped() -> list:
    paths = sorted([*ROOT.glob("policies/**/*.toml"), *ROOT.glob("docs/**/policies/**/*.toml")])
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_schema_is_valid_and_printed(kind):
    result = CliRunner().invoke(main, ["policy", "schema", "--kind", kind])
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    jsonschema.Draft202012Validator.check_schema(printed)
    assert printed["properties"]["kind"] == {"const": kind}


@pytest.mark.parametrize("path", shipped())
def test_shipped_file_is_valid(path):
    assert mistakes(path.read_text()) == []


def test_shipped_files_are_of_several_kinds():
    kinds = {tomllib.loads(parameter.values[0].read_text())["kind"] for parameter in shipped()}
    assert kinds >= {"directory", "policy", "contracts"}


def test_a_loan_that_says_nothing_of_a_time_is_valid_to_schema_and_parser(directory):
    directory.replace('lifetime = "call"\n', "")
    assert mistakes((directory.path / "org-b.toml").read_text()) == []
    directory.load()


def test_files_of_the_tests_are_valid(directory):
    for file in directory.path.iterdir():
        assert mistakes(file.read_text()) == []
    assert mistakes(TESTS) == []


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("org-b.toml", "caprpc = 1", "caprpc = 2"),
        ("org-b.toml", 'name   = "org-b-feed"', ""),
        ("org-b.toml", 'name   = "org-b-feed"', 'name = "org b"'),
        ("org-b.toml", "not_after = 2999-06-30T00:00:00Z", "not_after = 2999"),
        ("org-b.toml", "spiffe://org-b.example/treasury/feed", "spiffe://org-b.example/*"),
        ("org-b.toml", "spiffe://org-b.example/treasury/feed", "spiffe://org-b.example/../feed"),
        ("org-b.toml", "spiffe://org-b.example/treasury/feed", "spiffe://Org-B.example/feed"),
        ("org-b.toml", "sha256:2222", "sha256:22"),
        ("org-b.toml", 'interface = "Ledger"', 'interfaces = "Ledger"'),
        ("org-b.toml", '"balance", ', '"_balance", '),
        ("org-b.toml", '"balance", ', '"post", '),
        ("org-b.toml", 'get  = ["currency"]', "get = []"),
        ("org-b.toml", "length = true", "length = false"),
        ("org-b.toml", "min = 0.01", "mim = 0.01"),
        ("org-b.toml", "min = 0.01", 'min = "0.01"'),
        ("org-b.toml", 'in = ["EUR", "USD"]', "in = []"),
        ("org-b.toml", "per_second = 2", "per_second = 0"),
        ("org-b.toml", "per_second = 2", "burst = 2"),
        ("org-b.toml", 'history = "HistoryRO"', "history = true"),
        ("org-b.toml", 'post = ["account", "amount"]', 'post = "account"'),
        ("org-b.toml", 'lifetime = "call"', 'lifetime = "forever"'),
        ("org-b.toml", 'to = "Sink.load"', 'to = "load"'),
        ("org-b.toml", "in_flight = 8", "in_flight = 4097"),
        ("org-b.toml", "connections = 2", "connections = 0"),
        ("org-b.toml", 'level = "decision"', 'level = "none"'),
        ("org-b.toml", 'on_failure = "refuse"', 'on_failure = "allow"'),
        ("caprpc.toml", "version = 7", "version = 0"),
        ("caprpc.toml", "version = 7", 'include = "x.toml"'),
        ("caprpc.toml", '"org-b.toml"', '"../org-b.toml"'),
        ("caprpc.toml", 'id = "N1"', ""),
    ],
)
def test_mistake_is_marked_by_schema_and_parser(directory, file, old, new):
    directory.replace(old, new, file)
    assert mistakes((directory.path / file).read_text()) != []
    assert directory.problems()


@pytest.mark.parametrize(("old", "new"), [("may =", "maybe ="), ('may = "Ledger.post"', ""), ("id =", "ids =")])
def test_mistake_in_expectations_is_marked(old, new):
    assert mistakes(TESTS.replace(old, new)) != []


def keys_at(schema, path):
    """Return where the schema of a table stands, with a star for names and numbers, and the keys that it has."""
    place = []
    for step in path:
        if isinstance(step, int):
            schema, step = schema["items"], "*"
        elif step in schema.get("properties", {}):
            schema = schema["properties"][step]
        else:
            schema, step = schema["additionalProperties"], "*"
        place.append(step)
    return ".".join(place), set(schema["properties"])


def test_keys_are_those_that_the_parser_takes(directory, monkeypatch, tmp_path):
    taken, listed = defaultdict(set), {}
    finish = Table.finish

    def spy(table, known=()):
        known = tuple(known)
        kind = kinds[table._file]
        place, keys = keys_at(SCHEMAS[kind](), table._path)
        listed[kind, place] = keys
        taken[kind, place] |= {*table._taken, *known}
        finish(table, known)

    kinds = {"caprpc.toml": "directory", "org-b.toml": "policy", "contracts.toml": "contracts"}
    kinds |= {"shared.toml": "facets", "tests.toml": "tests", "signers.toml": "signers"}
    monkeypatch.setattr(Table, "finish", spy)
    directory.replace("contracts =", 'facets = ["shared.toml"]\ntests = ["tests.toml"]\ncontracts =', "caprpc.toml")
    directory.write("shared.toml", FACETS)
    assert mistakes(FACETS) == []
    directory.write("tests.toml", TESTS)
    directory.replace('tags   = ["external"]', 'tags   = ["external"]\nnot_before = 2026-01-01T00:00:00Z')
    directory.write("org-b.toml", (directory.path / "org-b.toml").read_text() + RESTORE)
    directory.write("contracts.toml", (directory.path / "contracts.toml").read_text() + FLAGGED)
    directory.load()
    signer = NoteSigner.generate("alice.example", KIND_LOG).key
    signers = tmp_path / "signers.toml"
    signers.write_text(f'caprpc = 1\nkind = "signers"\nthreshold = 1\nstate = "state"\nkeys = ["{signer}"]\n')
    assert mistakes(signers.read_text()) == []
    signers.chmod(0o600)
    Signers.load(signers)

    assert listed == taken
    assert {kind for kind, _ in taken} == SCHEMAS.keys()
    assert {place for kind, place in taken if kind == "policy"} == {
        *("", "peer", "restore.*", "offer.*", "offer.*.args.*.*", "offer.*.limit.*", "accept.*", "lend.*", "limits"),
        "audit",
    }
