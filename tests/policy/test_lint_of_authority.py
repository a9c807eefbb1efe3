"""What lint says of authority that is easily given without meaning to."""

import json

import pytest

from tests.policy.conftest import CA
from tests.policy.test_policy_tools import ADMIN

SHARED = """\
caprpc = 1
kind   = "facets"
[offer.Wide]
interface = "Ledger"
set = ["limit"]
"""


@pytest.fixture
def lint(run, directory):
    """Return a function that gives the findings of one code, as place and message."""

    def findings(code):
        found = json.loads(run("lint", directory.path, "--format", "json").stdout)["findings"]
        return [(f"{one['file']}:{one['line']}", one["message"]) for one in found if one["code"] == code]

    return findings


@pytest.fixture
def two(directory):
    """Have a second policy in the directory, and a file with a shared facet; returns a function that writes both."""

    def write(second):
        directory.write("ops.toml", second)
        directory.write("shared.toml", SHARED)
        directory.replace('["org-b.toml"]', '["org-b.toml", "ops.toml"]\nfacets = ["shared.toml"]', "caprpc.toml")
        directory.replace('reach = ["LedgerAdmin"]', 'reach = ["LedgerAdmin"]\nexcept = ["ops-admin"]', "caprpc.toml")

    return write


def test_a_ca_of_two_organizations_is_found(lint, two, directory):
    two(ADMIN)
    assert lint("shared-ca") == [
        ("org-b.toml:9", f"the CA {CA} may speak for acme.example, org-b.example (policies ops-admin, org-b-feed)")
    ]
    directory.replace("2" * 64, "3" * 64, "ops.toml")
    assert lint("shared-ca") == []


def test_a_ca_of_one_trust_domain_is_not(lint, two):
    two(ADMIN.replace("acme.example/ops", "org-b.example/ops"))
    assert lint("shared-ca") == []


def test_grants_for_whoever_has_the_secret_are_found(lint, directory):
    directory.replace("[offer.FeedLedger]", '[restore.kept]\nas = "HistoryRO"\n[offer.FeedLedger]')
    assert lint("bearer-restore") == []
    directory.replace('[restore.kept]\nas = "HistoryRO"\n', '[restore.kept]\nas = "HistoryRO"\nbearer = true\n')
    text = "policy org-b-feed lets whoever has the secret of a grant restore kept as HistoryRO"
    assert lint("bearer-restore") == [("org-b.toml:16", text)]


def test_an_object_of_ours_that_may_be_handed_back_is_found(lint, directory):
    assert lint("takes-own") == []
    directory.replace('ledger = "FeedLedger"', 'ledger = "FeedLedger"\nsink = "Sinks"')
    sinks = '[offer.Sinks]\ninterface = "Sink"\ncall = ["update"]\n'
    directory.replace("[offer.FeedLedger]", f"{sinks}[offer.FeedLedger]")
    text = "Ledger.subscribe takes a Sink, and gets our own object if the peer hands back one that it holds"
    assert lint("takes-own") == [("org-b.toml:22", text)]


def test_a_finding_about_a_shared_facet_is_one_for_each_policy(lint, two, directory):
    contracts = (directory.path / "contracts.toml").read_text()
    setter = contracts.index('operation = "set"\nname = "limit"')
    directory.write("contracts.toml", contracts[:setter] + contracts[setter:].replace('"read"', '"write"', 1))
    tagged = ADMIN.replace("[peer]", 'tags = ["external"]\n[peer]').replace('"Admin"', '"Admin"\nwide = "Wide"', 1)
    two(tagged)
    directory.replace('ledger = "FeedLedger"', 'ledger = "FeedLedger"\nwide = "Wide"')
    assert lint("write-without-rate") == [
        ("shared.toml:5", f"Ledger.limit (set) (policy {name}) has the effect 'write' and no rate")
        for name in ("org-b-feed", "ops-admin")
    ]
