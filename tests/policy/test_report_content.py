"""What stands in the report: each part is read back from the page and compared with what the files and the log say."""

import base64
import hashlib
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

from caprpc.audit import AuditLog
from tests.policy.conftest import CA, FEED
from tests.policy.test_policy_tools import ADMIN


class Page(HTMLParser):
    """The page as headings, tables by the heading that they stand under, and drawings."""

    def __init__(self, text):
        super().__init__()
        self.text = text
        self.tables = {}
        self.drawings = []
        self.lists = {}
        self.tags = set()
        self.attributes = {}
        self._section = self._heading = ""
        self._taking = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value)
        if tag in ("h2", "h3", "td", "th", "li"):
            self._taking = ""
        elif tag == "tr":
            self.tables.setdefault(self._heading, []).append([])
        elif tag == "svg":
            self.drawings.append([])
        elif tag == "text":
            self._taking = ""

    def handle_data(self, data):
        if self._taking is not None:
            self._taking += data

    def handle_endtag(self, tag):
        if tag == "h2":
            self._section = self._heading = self._taking
        elif tag == "h3":
            self._heading = f"{self._section}: {self._taking}"
        elif tag in ("td", "th"):
            self.tables[self._heading][-1].append(self._taking)
        elif tag == "li":
            self.lists.setdefault(self._heading, []).append(self._taking)
        elif tag == "text":
            self.drawings[-1].append(self._taking)
        if tag in ("h2", "h3", "td", "th", "li", "text"):
            self._taking = None

    def rows(self, heading):
        return self.tables[heading][1:]


@pytest.fixture
def report(run, tmp_path):
    def make(directory, *words):
        target = tmp_path / "report.html"
        result = run("report", directory.path, "--html", target, *words)
        assert result.exit_code == 0, result.output
        return Page(target.read_text(encoding="utf-8"))

    return make


@pytest.fixture
def two(directory):
    """Two peers: a partner, and operators who alone may wipe, which administers; ``Ledger.post`` writes."""
    directory.write("admin.toml", ADMIN)
    directory.replace('["org-b.toml"]', '["org-b.toml", "admin.toml"]', "caprpc.toml")
    directory.replace('reach = ["LedgerAdmin"]', 'reach = ["LedgerAdmin"]\nexcept = ["ops-admin"]', "caprpc.toml")
    for name, effect in (("wipe", "admin"), ("post", "write")):
        old = f'name = "{name}"\neffect = '
        directory.replace(f'{old}"read"', f'{old}"{effect}"', "contracts.toml")
    return directory


def test_the_matrix_has_every_member_by_effect_and_says_what_nobody_may(report, two):
    page = report(two)
    head, *rows = page.tables["Who may use what"]
    assert head == ["member", "effect", "org-b-feed", "ops-admin", ""]
    matrix = {row[0]: row[1:] for row in rows}
    declared = sum(len(contract.members) for contract in two.load().contracts.values())
    assert len(rows) == len(matrix) == declared
    assert [row[1] for row in rows] == sorted((row[1] for row in rows), key=["admin", "write", "read"].index)
    assert matrix["LedgerAdmin.wipe"] == ["admin", "no", "yes", ""]
    assert matrix["Ledger.post"] == ["write", "limited", "no", ""]
    assert matrix["Ledger.balance"] == ["read", "yes", "no", ""]
    assert matrix["Ledger.limit (set)"] == ["read", "no", "no", "nobody"]


def test_each_peer_has_its_graph_from_the_roots_on(report, two):
    page = report(two)
    feed, admin = page.drawings
    assert {"the peer", "FeedLedger", "HistoryRO", "LinesOnly", "root ledger", "call history"} <= set(feed)
    assert "<title>lent to Sink.load (source)</title>" in page.text, (
        "a label without room is cut, and whole in its title"
    )
    assert set(admin) == {"the peer", "Admin", "LedgerAdmin", "root admin"}


def test_what_is_lent_names_parameter_facet_and_time(report, two):
    two.replace('lifetime = "call"', "lifetime = 90\nmax_uses = 7")
    assert report(two).rows("org-b-feed: What we lend to the peer") == [
        ["Sink.load (source)", "LinesOnly", "call readlines, iterate", "for 90 s, at most 7 uses", "org-b.toml:44"]
    ]


def test_what_is_lent_in_no_call_says_never(report, two):
    two.replace('call = ["update", "load"]', 'call = ["update"]')
    ((*_, span, _),) = report(two).rows("org-b-feed: What we lend to the peer")
    assert span == "for the call (never: the call is not accepted)"


def test_what_we_may_do_with_their_objects(report, two):
    lists = report(two).lists
    assert lists == {"org-b-feed: What we may do with the peer's objects": ["Sink.update", "Sink.load"]}


def test_invariants_and_who_is_excepted(report, two):
    page = report(two)
    row = ["N1", "nobody reaches LedgerAdmin", "LedgerAdmin", "ops-admin", "caprpc.toml:8"]
    assert page.rows("What must never happen") == [row]
    assert "All of them hold: these files would not load otherwise." in page.text


def test_what_the_peer_may_do_with_arguments_limits_way_and_rule(report, two):
    rows = {row[0]: row[1:] for row in report(two).rows("org-b-feed: What the peer may do")}
    rules = 'amount { min = 0.01, max = 10000 }; currency { in = ["EUR", "USD"] }'
    assert rows["Ledger.post"] == ["write", rules, "per_second = 2", "values", "root ledger", "org-b.toml:18"]
    way = "root ledger > call history"
    assert rows["History (iterate)"] == ["read", "any", "none", "HistoryRO/iterator", way, "org-b.toml:33"]


def test_changes_since_an_older_version(report, two, newer):
    two.replace("version = 7", "version = 8", "caprpc.toml")
    page = report(two, "--since", newer.path)
    changed = {(row[0], row[1], row[2], row[3]) for row in page.rows("Changes since version 7")}
    assert ("new", "spiffe://acme.example/ops", "LedgerAdmin.wipe", "root admin") in changed
    assert ("changed", "all peers", "Ledger.post: declared as", "") in changed


def test_what_a_log_never_needed(report, two, tmp_path):
    log = AuditLog.open(tmp_path / "log", name="server")
    fields = {"peer": FEED, "facet": "FeedLedger", "operation": "call", "decision": "permit"}
    for member in ("balance", "history", "subscribe"):
        log.relation(FEED).record("decision", **fields, member=member)
    log.close()
    rows = report(two, "--log", tmp_path / "log").rows("Never used, as far as the log goes")
    assert ["grant", "org-b-feed: Ledger.post (FeedLedger) was never used", "org-b.toml:18"] in rows
    assert ["policy", "policy ops-admin: its peer has done nothing", "admin.toml:6"] in rows
    assert not any("Ledger.balance" in row[1] for row in rows)


@pytest.mark.parametrize(
    ("left", "mark"),
    [
        (None, "without end"),
        (timedelta(days=31, hours=1), ""),
        (timedelta(days=29, hours=1), " (29 days)"),
        (timedelta(hours=-1), " (ended)"),
    ],
    ids=["never", "later", "soon", "over"],
)
def test_how_long_each_policy_holds(report, directory, left, mark):
    end = None if left is None else datetime.now(UTC) + left
    directory.replace(
        "not_after = 2999-06-30T00:00:00Z", "" if end is None else f"not_after = {end:%Y-%m-%dT%H:%M:%SZ}"
    )
    ((name, peer, owner, reason, until),) = report(directory).rows("Policies and how long they hold")
    assert (name, peer, owner, reason) == (
        "org-b-feed",
        FEED,
        "treasury-security@acme.example",
        "SEC-2044: intraday feed",
    )
    assert until == (mark if end is None else f"{end:%Y-%m-%d}{mark}")


def test_what_is_written_down_and_out_of_reach(report, two):
    two.replace("[offer.HistoryRO]", '[offer.Spare]\ninterface = "History"\nlength = true\n[offer.HistoryRO]')
    assert "Written down and out of reach: Spare (org-b.toml:31)." in report(two).text


def test_nothing_is_loaded_and_no_style_runs_but_its_own(report, two):
    page = report(two)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page.text)
    (style,) = re.findall(r"<style>(.*?)</style>", page.text, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "a", "audio", "video"}
    assert not {"src", "href", "style", "srcset", "action"} & page.attributes.keys()
    assert not any(name.startswith("on") for name in page.attributes)
    assert "url(" not in style
    assert "@import" not in style


def test_no_score_is_given(report, two):
    assert not re.search(r"\bscore\b|\bgrade\b|\d\s*/\s*10\b", report(two).text, re.I)


def test_texts_of_policies_are_no_markup(report, two):
    two.replace("SEC-2044: intraday feed", "<b onclick=x>&amp;")
    page = report(two)
    assert page.rows("Policies and how long they hold")[0][3] == "<b onclick=x>&amp;"
    assert "onclick" not in page.attributes


def test_each_peer_is_named_with_the_key_of_its_ca(report, directory):
    assert CA in report(directory).text.replace("<wbr>", "")
