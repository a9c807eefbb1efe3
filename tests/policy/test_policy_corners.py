"""Corners of the validator and of the quotas, one test for each."""

import math
import os
from dataclasses import replace

import pytest

from caprpc import ids
from caprpc.errors import PolicyError
from caprpc.policy import MemberLimit
from caprpc.policy.listed import grant_word
from caprpc.policy.model import Grant
from caprpc.policy.problems import Problems
from caprpc.policy.quotas import Bucket, Usage, Usages
from caprpc.policy.refused import Refused
from caprpc.policy.source import MAX_FILE_BYTES, decode

RULE = "org-b.toml:1"


def grant(**limit):
    return Grant(ids.OP_CALL, "post", RULE, {}, MemberLimit(**limit), None, frozenset())


def told(problems):
    with pytest.raises(PolicyError) as caught:
        problems.raise_if_any()
    return [problem.where for problem in caught.value.problems]


class TestFiles:
    def test_a_file_may_be_as_long_as_the_limit_and_no_longer(self, directory):
        text = (directory.path / "org-b.toml").read_text()
        directory.write("org-b.toml", text + "#" * (MAX_FILE_BYTES - len(text.encode())))
        directory.load()
        directory.write("org-b.toml", text + "#" * (MAX_FILE_BYTES - len(text.encode()) + 1))
        ((where, message, _),) = [one for one in directory.problems() if one[0] == "org-b.toml"]
        assert (where, message) == ("org-b.toml", f"more than {MAX_FILE_BYTES} bytes")

    def test_loading_leaves_no_descriptor_open(self, directory):
        directory.load()
        before = os.listdir("/proc/self/fd")
        directory.load()
        assert os.listdir("/proc/self/fd") == before

    def test_bytes_that_are_no_text_are_told_at_their_line_also_behind_an_empty_first_one(self):
        problems = Problems()
        assert decode(b"\n\xff", "org-b.toml", problems) is None
        assert told(problems) == ["org-b.toml:2"]

    def test_of_characters_that_nobody_sees_twenty_are_told(self):
        problems = Problems()
        assert decode("a\u200b\n".encode() * 30, "org-b.toml", problems) is None
        assert len(told(problems)) == 20


class TestWords:
    def test_limits_that_limit_nothing_are_refused(self, directory):
        directory.replace("[limits]\nin_flight = 8\nconnections = 2\n", "[limits]\n")
        assert ("[limits] is empty", "delete the table") in [one[1:] for one in directory.problems()]

    @pytest.mark.parametrize(
        ("operation", "member", "word"),
        [(ids.OP_CALL, "post", "post"), (ids.OP_GET, "limit", "limit"), (ids.OP_LENGTH, "", "length")],
    )
    def test_a_grant_is_called_by_its_member_else_by_its_flag(self, operation, member, word):
        assert grant_word(operation, member) == word

    def test_facets_that_are_made_are_not_suggested_for_a_restore(self, directory):
        directory.replace("[limits]\n", '[restore.books]\nas = "FeedLedgr"\n[limits]\n')
        (hint,) = [hint for _, message, hint in directory.problems() if message == "there is no [offer.FeedLedgr]"]
        assert hint == "did you mean 'FeedLedger'?"
        directory.replace('"FeedLedgr"', '"Zzz"')
        (hint,) = [hint for _, message, hint in directory.problems() if message == "there is no [offer.Zzz]"]
        assert hint == "known here: FeedLedger, HistoryRO, LinesOnly"

    def test_returns_of_a_word_that_is_known_in_one_list_is_judged_by_that(self, directory):
        directory.replace('get  = ["currency"]', 'get  = ["currency", "balance"]')
        directory.replace('subscribe = "opaque"', 'subscribe = "opaque"\nbalance = "HistoryRO"')
        assert "'balance' returns no reference" in [message for _, message, _ in directory.problems()]

    def test_returns_of_a_word_that_is_known_nowhere_is_complained_of_once(self, directory):
        directory.replace('"subscribe"]', '"subscribe", "gone"]')
        directory.replace('subscribe = "opaque"', 'subscribe = "opaque"\ngone = "HistoryRO"')
        said = [message for _, message, _ in directory.problems()]
        assert any("gone" in message for message in said)
        assert "'gone' returns no reference" not in said

    def test_returns_of_an_interface_that_is_not_known_are_not_judged(self, directory):
        directory.replace(
            "[limits]\n", '[offer.New]\ninterface = "Nowhere"\ncall = ["a"]\nreturns = { a = "HistoryRO" }\n[limits]\n'
        )
        said = [message for _, message, _ in directory.problems()]
        assert any("Nowhere" in message for message in said)
        assert "'a' returns no reference" not in said

    @pytest.mark.parametrize("declared", ["Any", "Optional[int]", "Union[int, str]", "object"])
    def test_rules_of_a_parameter_that_takes_more_than_one_type_are_not_judged_by_it(self, directory, declared):
        directory.replace('type = "Decimal"', f'type = "{declared}"', "contracts.toml")
        directory.replace("amount   = { min = 0.01, max = 10_000 }", "amount   = { max_len = 3 }")
        directory.load()

    def test_a_refusal_prints_as_its_reason(self):
        refused = Refused(
            "per_second", rule=RULE, facet="FeedLedger", operation=ids.OP_CALL, member="post", policy="sha256:1"
        )
        assert str(refused) == "per_second"


class TestQuotas:
    def test_a_step_back_of_the_clock_neither_earns_nor_costs(self):
        bucket = Bucket("per_second", 10.0, 1.0)
        bucket.earn(100.0)
        bucket.spent = 5.0
        bucket.earn(90.0)
        assert (bucket.spent, bucket.stamp) == (5.0, 100.0)
        bucket.earn(math.nan)
        assert (bucket.spent, bucket.stamp) == (5.0, 100.0)
        bucket.earn(102.0)
        assert bucket.spent == 3.0

    def test_calls_that_are_not_counted_while_they_run_take_no_place_of_those_that_are(self):
        usage = Usage("")
        rate, both = usage.limiter(MemberLimit(per_hour=50)), usage.limiter(MemberLimit(per_hour=50, in_flight=1))
        for _ in range(3):
            with rate.lock:
                rate.count(1.0, 1)
            assert rate.take(1.0) == ""
            rate.give_back()
        assert both.take(1.0) == ""
        assert both.take(1.0) == "in_flight"

    def test_nothing_is_counted_where_no_limit_is(self):
        usages = Usages()
        assert usages.limiter("FeedLedger", grant()) is None
        assert usages.limiter("FeedLedger", grant(), MemberLimit()) is None
        assert usages.limiter("FeedLedger", grant(), MemberLimit(per_hour=1)) is not None
        ending = replace(grant(), operation=ids.OP_CLOSE)
        assert usages.limiter("FeedLedger", ending, MemberLimit(per_hour=1)) is None
