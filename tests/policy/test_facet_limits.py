"""``[offer.FACET.limit]`` itself: what all members of a facet share, enforced, compared and shown."""

import json
import threading

import pytest
from click.testing import CliRunner

from caprpc import ids
from caprpc.analysis.difference import difference
from caprpc.analysis.lint import lint
from caprpc.analysis.usage import Event, unused
from caprpc.cli import main
from caprpc.policy import Guard, MemberLimit, PrincipalQuotas, Refused
from caprpc.policy.quotas import BothLimiters, Usage
from tests.policy.conftest import FEED, NOW, PolicyDirectory

HEADER = "[offer.FeedLedger.limit.post]"
CALLS = ((ids.OP_CALL, "balance"), (ids.OP_CALL, "post"), (ids.OP_GET, "currency"), (ids.OP_CALL, "history"))


def whole(text: str) -> tuple[str, str]:
    return HEADER, f"[offer.FeedLedger.limit]\n{text}\n{HEADER}"


def take(guard: Guard, key, now: float = 0.0, facet: str = "FeedLedger") -> str:
    try:
        guard.check(guard.facet(facet), *key, now)
    except Refused as refused:
        return refused.reason if refused.code == "limit" else pytest.fail(refused.reason)
    return ""


@pytest.fixture
def guard_with(load_with):
    return lambda text: Guard(load_with(whole(text)).policies[0], PrincipalQuotas())


class TestEnforced:
    @pytest.mark.parametrize("rate", ["per_second", "per_hour", "per_day"])
    def test_all_members_count_together(self, guard_with, rate):
        guard = guard_with(f"{rate} = 3")
        assert [take(guard, key) for key in CALLS] == ["", "", "", f"facet_{rate}"]

    def test_burst_is_what_may_come_at_once(self, guard_with):
        guard = guard_with("per_second = 1\nburst = 2")
        assert [take(guard, CALLS[0]) for _ in range(3)] == ["", "", "facet_per_second"]
        assert [take(guard, CALLS[0], 1.0) for _ in range(2)] == ["", "facet_per_second"]

    def test_running_calls_of_all_members_count_until_they_end(self, guard_with):
        guard = guard_with("in_flight = 2")
        permits = [guard.check(guard.facet("FeedLedger"), *key, 0.0) for key in CALLS[:2]]
        assert take(guard, CALLS[2]) == "facet_in_flight"
        permits[0].give_back()
        assert take(guard, CALLS[2]) == ""

    def test_what_the_member_refuses_is_not_counted_for_the_facet(self, guard_with):
        guard = guard_with("per_hour = 4\nin_flight = 9")
        assert [take(guard, CALLS[1]) for _ in range(4)] == ["", "", "per_second", "per_second"]
        assert [take(guard, CALLS[0]) for _ in range(3)] == ["", "", "facet_per_hour"]

    def test_what_the_facet_refuses_is_not_counted_for_the_member(self, guard_with):
        guard = guard_with("in_flight = 1")
        running = guard.check(guard.facet("FeedLedger"), *CALLS[0], 0.0)
        assert [take(guard, CALLS[1]) for _ in range(9)] == ["facet_in_flight"] * 9
        running.give_back()
        permits = [guard.check(guard.facet("FeedLedger"), *CALLS[1], 0.0)]
        permits.pop().give_back()
        assert take(guard, CALLS[1]) == ""

    def test_refused_by_policy_is_not_counted(self, guard_with):
        guard = guard_with("per_hour = 1")
        for _ in range(5):
            with pytest.raises(Refused, match="not-granted"):
                guard.check(guard.facet("FeedLedger"), ids.OP_CALL, "wipe", 0.0)
        assert take(guard, CALLS[0]) == ""

    def test_other_facets_have_their_own(self, guard_with):
        guard = guard_with("per_hour = 1")
        assert (take(guard, CALLS[0]), take(guard, CALLS[0])) == ("", "facet_per_hour")
        assert [take(guard, (ids.OP_LENGTH, ""), facet="HistoryRO") for _ in range(9)] == [""] * 9

    def test_iterators_count_as_the_facet_they_come_from_and_closing_is_free(self, load_with):
        more = "[offer.LinesOnly.limit]\nper_hour = 3\n[accept.Sink]"
        guard = Guard(load_with(("[accept.Sink]", more)).policies[0], PrincipalQuotas())
        iterator = "LinesOnly/iterator"
        assert take(guard, (ids.OP_CALL, "readlines"), facet="LinesOnly") == ""
        assert [take(guard, (ids.OP_NEXT, ""), facet=iterator) for _ in range(3)] == ["", "", "facet_per_hour"]
        assert [take(guard, (ids.OP_CLOSE, ""), facet=iterator) for _ in range(9)] == [""] * 9

    def test_connections_of_a_principal_share_it(self, load_with):
        policy, quotas = load_with(whole("per_day = 5")).policies[0], PrincipalQuotas()
        guards = [Guard(policy, quotas) for _ in range(4)]
        assert sum(take(guard, key) == "" for guard in guards for key in CALLS[::2]) == 5
        assert take(Guard(policy, PrincipalQuotas()), CALLS[0]) == ""

    def test_equal_calls_of_a_batch_pass_all_or_none(self, guard_with):
        guard = guard_with("per_hour = 3")
        facet = guard.facet("FeedLedger")
        with pytest.raises(Refused, match="facet_per_hour"):
            guard.check(facet, *CALLS[0], 0.0, 4)
        guard.check(facet, *CALLS[0], 0.0, 3)

    @staticmethod
    def race(both: BothLimiters, passed: list[int]) -> None:
        passed.append(sum(both.take(0.0) == "" for _ in range(60)))

    def test_threads_never_pass_more_than_both_allow(self):
        for facet_most, member_most in ((50, 70), (70, 50)):
            both = BothLimiters(
                Usage("facet_").limiter(MemberLimit(per_hour=facet_most)),
                Usage().limiter(MemberLimit(per_day=member_most)),
            )
            passed: list[int] = []
            threads = [threading.Thread(target=self.race, args=(both, passed)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sum(passed) == 50


class TestReload:
    def test_limit_that_is_added_holds_at_once(self, directory):
        guard = Guard(directory.load().policies[0], PrincipalQuotas())
        directory.replace(*whole("per_day = 2"))
        guard.narrow(directory.load().policies[0])
        assert [take(guard, CALLS[0]) for _ in range(3)] == ["", "", "facet_per_day"]

    def test_limit_that_is_taken_away_goes_on_for_a_live_connection(self, directory):
        text = (directory.path / "org-b.toml").read_text()
        directory.replace(*whole("per_day = 2"))
        quotas = PrincipalQuotas()
        guard = Guard(directory.load().policies[0], quotas)
        directory.write("org-b.toml", text)
        policy = directory.load().policies[0]
        guard.narrow(policy)
        guard.narrow(policy)
        assert [take(guard, CALLS[0]) for _ in range(3)] == ["", "", "facet_per_day"]
        assert [take(Guard(policy, quotas), CALLS[0]) for _ in range(3)] == [""] * 3

    def test_the_tighter_of_two_holds_and_what_was_counted_stays_counted(self, directory):
        directory.replace(*whole("per_day = 4"))
        guard = Guard(directory.load().policies[0], PrincipalQuotas())
        assert [take(guard, CALLS[0]) for _ in range(2)] == ["", ""]
        directory.replace("per_day = 4", "per_day = 3")
        guard.narrow(directory.load().policies[0])
        directory.replace("per_day = 3", "per_day = 100")
        guard.narrow(directory.load().policies[0])
        assert [take(guard, CALLS[0]) for _ in range(2)] == ["", "facet_per_day"]


REFUSED = {
    "a limit of one call": ("timeout_s = 3", 24, "limit of one member, not of a facet"),
    "items": ("max_items = 3", 24, "limit of one member"),
    "bytes": ("max_bytes = 3", 24, "limit of one member"),
    "no number": ('per_second = "2"', 24, "must be a number"),
    "a flag": ("per_second = true", 24, "must be a number"),
    "zero": ("per_day = 0", 24, "between"),
    "not finite": ("per_hour = inf", 24, "finite"),
    "a fraction of a call": ("in_flight = 1.5", 24, "must be an integer"),
    "burst alone": ("burst = 3", 24, "needs 'per_second'"),
    "no such limit": ("per_minute = 3", 24, "is not granted by this offer"),
    "twice": ("per_day = 3\nper_day = 3", 25, "duplicate key"),
}


@pytest.mark.parametrize(("text", "line", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_with_its_line(directory, text, line, message):
    directory.replace(*whole(text))
    problems = directory.problems()
    assert any(where.startswith(f"org-b.toml:{line}") and message in said for where, said, _ in problems), problems


def test_member_named_like_a_limit_is_limited_by_its_table(directory):
    contracts = (directory.path / "contracts.toml").read_text()
    directory.write("contracts.toml", contracts.replace('name = "balance"', 'name = "burst"'))
    directory.replace('call = ["balance", ', 'call = ["burst", ')
    directory.replace(*whole("per_hour = 5\n[offer.FeedLedger.limit.burst]\nper_hour = 2"))
    guard = Guard(directory.load().policies[0], PrincipalQuotas())
    assert [take(guard, (ids.OP_CALL, "burst")) for _ in range(3)] == ["", "", "per_hour"]
    assert [take(guard, CALLS[2]) for _ in range(4)] == ["", "", "", "facet_per_hour"]


class TestTools:
    @pytest.fixture
    def run(self):
        runner = CliRunner()
        return lambda *words: runner.invoke(main, ["policy", *map(str, words)])

    @pytest.fixture
    def pair(self, directory, tmp_path):
        newer = PolicyDirectory(tmp_path / "newer")
        return directory, newer

    def differences(self, pair):
        return [(one.verdict, one.subject, one.old, one.new) for one in difference(pair[0].load(), pair[1].load())]

    def test_diff_weighs_it(self, pair):
        subject = "Ledger: limits of the facet"
        pair[1].replace(*whole("per_day = 5"))
        assert self.differences(pair) == [("narrower", subject, "none", "per_day = 5")]
        assert self.differences(pair[::-1]) == [("wider", subject, "per_day = 5", "none")]
        pair[0].replace(*whole("per_day = 4"))
        assert self.differences(pair) == [("wider", subject, "per_day = 4", "per_day = 5")]
        pair[0].replace("per_day = 4", "per_day = 5")
        assert self.differences(pair) == []

    def test_diff_sees_a_facet_that_was_split_and_counts_twice(self, pair):
        for one in pair:
            one.replace('ledger = "FeedLedger"', 'ledger = "FeedLedger"\nsecond = "FeedLedger"')
        text = (pair[1].path / "org-b.toml").read_text()
        start, end = text.index("[offer.FeedLedger]"), text.index("[offer.HistoryRO]")
        copy = text[start:end].replace("FeedLedger", "Again")
        split = (text[:end] + copy + text[end:]).replace('second = "FeedLedger"', 'second = "Again"')
        pair[1].write("org-b.toml", split)
        found = self.differences(pair)
        assert found == [("wider", "Ledger: counters of facet FeedLedger", "one for all ways", "Again, FeedLedger")]
        assert self.differences(pair[::-1]) == []

    def test_list_explain_report_and_export_show_it(self, run, directory, tmp_path):
        directory.replace(*whole("per_day = 5"))
        rows = {row["member"]: row for row in json.loads(run("list", directory.path, "--format", "json").stdout)}
        assert rows["Ledger.post"]["limits"] == "per_second = 2; facet: per_day = 5"
        assert rows["Ledger.balance"]["limits"] == "facet: per_day = 5"
        assert rows["History (length)"]["limits"] == "none"
        explained = run("explain", directory.path, "--peer", FEED, "Ledger.balance").stdout
        assert "org-b.toml:23" in explained
        assert "within the limits of the whole facet: per_day = 5" in explained
        html = tmp_path / "report.html"
        assert run("report", directory.path, "--html", html).exit_code == 0
        assert "facet: per_day = 5" in html.read_text()
        for form in ("json", "csv", "cedar"):
            assert "facet: per_day = 5" in run("export", directory.path, "--to", form).stdout, form

    def test_rate_of_the_facet_is_a_rate_to_lint(self, directory):
        directory.replace("per_second = 2", "timeout_s = 2")
        write = 'name = "post"\neffect = "write"'
        contracts = (directory.path / "contracts.toml").read_text()
        assert contracts.count('name = "post"\neffect = "read"') == 1
        directory.write("contracts.toml", contracts.replace('name = "post"\neffect = "read"', write))
        assert "write-without-rate" in [one.code for one in lint(directory.load(), now=NOW)]
        directory.replace(*whole("in_flight = 5"))
        assert "write-without-rate" in [one.code for one in lint(directory.load(), now=NOW)]
        directory.replace("in_flight = 5", "per_day = 5")
        assert "write-without-rate" not in [one.code for one in lint(directory.load(), now=NOW)]

    def test_unused_names_one_that_nobody_came_near(self, load_with):
        policies = load_with(whole("per_day = 10"))
        events = [
            Event(FEED, "FeedLedger", key, True, "", float(index), "sha256:x", {}, "")
            for index, key in enumerate(CALLS + CALLS[:1])
        ]
        texts = [(one.where, one.text) for one in unused(policies, events[:4]) if "facet FeedLedger has" in one.text]
        assert texts == [("org-b.toml:23", "org-b-feed: facet FeedLedger has per_day = 10, and at most 4 were seen")]
        assert not any("facet FeedLedger has" in one.text for one in unused(policies, events))
