"""Edges of the validator and the guard that mutation testing found untested: one test for each that matters."""

from dataclasses import replace
from decimal import Decimal

import pytest

from caprpc import ids
from caprpc.contract import InterfaceContract
from caprpc.errors import PolicyError
from caprpc.limits import DEFAULT_LIMITS, KIB, MIB
from caprpc.policy import (
    ArgumentBudget,
    Guard,
    HeldArguments,
    Holding,
    Lend,
    MemberLimit,
    Pool,
    Pools,
    PrincipalQuotas,
    grant_line,
)
from caprpc.policy.arguments import ArgumentRule
from caprpc.policy.attenuation import MOST_MEMBERS, Narrowing, keys_of, rules_of, word_of
from caprpc.policy.contracts import change, contracts_to_toml
from caprpc.policy.derived import DerivedFacet, base_of
from caprpc.policy.document import MAX_TEXT_CHARS
from caprpc.policy.guard import narrowed
from caprpc.policy.limits import CONNECTIONS, RANGES
from caprpc.policy.model import Restorable
from caprpc.policy.narrowing import narrower_lends
from caprpc.policy.pools import SharedGlitches
from caprpc.policy.problems import MAX_PROBLEMS, Problems, suggest
from caprpc.policy.quotas import Usage
from caprpc.policy.restores import LEAST_SECONDS, MOST_SECONDS, narrower_restores
from tests.policy.conftest import NOW, make_contracts

LEND = Lend("Sink", "load", "source", "LinesOnly", "call", None, "x.toml:1")
LARGEST = 1.7976931348623157e308


class TestLends:
    @pytest.mark.parametrize(
        ("old", "new", "left"),
        [
            ("call", "connection", "call"),
            ("connection", "call", "call"),
            ("call", 5.0, "call"),
            (5.0, "call", "call"),
            ("connection", 5.0, 5.0),
            (5.0, "connection", 5.0),
            (5.0, 3.0, 3.0),
            (3.0, 5.0, 3.0),
            ("connection", "connection", "connection"),
        ],
    )
    def test_the_shorter_life_is_left(self, old, new, left):
        key = ("Sink", "load", "source")
        found = narrower_lends({key: replace(LEND, lifetime=old)}, {key: replace(LEND, lifetime=new)})
        assert found[key].lifetime == left

    @pytest.mark.parametrize(
        ("old", "new", "left"), [(None, 3, 3), (3, None, 3), (3, 2, 2), (2, 3, 2), (None, None, None)]
    )
    def test_the_fewer_uses_are_left(self, old, new, left):
        key = ("Sink", "load", "source")
        found = narrower_lends({key: replace(LEND, max_uses=old)}, {key: replace(LEND, max_uses=new)})
        assert found[key].max_uses == left

    def test_one_that_differs_does_not_take_the_others_with_it(self):
        first, second, third = ("Sink", "load", "a"), ("Sink", "load", "b"), ("Sink", "load", "c")
        old = {first: LEND, third: LEND}
        new = {first: replace(LEND, facet="Other"), second: LEND, third: LEND}
        assert list(narrower_lends(old, new)) == [third]


class TestGuard:
    def test_recorded_arguments_are_those_that_both_record(self, directory):
        guard = Guard(directory.load().policies[0], PrincipalQuotas())
        directory.replace('post = ["account", "amount"]', 'post = ["amount", "currency"]')
        guard.narrow(directory.load().policies[0])
        assert guard.check(guard.facet("FeedLedger"), ids.OP_CALL, "post", 0.0).record == {"amount"}

    def test_limits_are_counted_for_each_member(self, load_with):
        guard = Guard(
            load_with(
                (
                    "[offer.FeedLedger.limit.post]",
                    "[offer.FeedLedger.limit.balance]\nper_day = 1\n[offer.FeedLedger.limit.post]",
                )
            ).policies[0],
            PrincipalQuotas(),
        )
        guard.check(guard.facet("FeedLedger"), ids.OP_CALL, "balance", 0.0)
        guard.check(guard.facet("FeedLedger"), ids.OP_CALL, "post", 0.0)

    def test_connections_that_are_closed_too_often_give_no_credit(self):
        quotas = PrincipalQuotas()
        quotas.close_connection()
        assert [quotas.open_connection(1), quotas.open_connection(1)] == [True, False]

    def test_the_last_connection_that_is_closed_frees_its_place(self):
        quotas = PrincipalQuotas()
        assert quotas.open_connection(1)
        quotas.close_connection()
        assert quotas.open_connection(1)

    def test_permit_narrowed_twice_names_that_of_the_policy(self, load_with):
        guard = Guard(load_with().policies[0], PrincipalQuotas())
        permit = guard.check(guard.facet("FeedLedger"), ids.OP_CALL, "post", 0.0)
        once = narrowed(permit, {"amount": ArgumentRule(maximum=5)})
        twice = narrowed(once, {"amount": ArgumentRule(maximum=4)})
        assert (permit.origin, once.origin, twice.origin) == (None, permit, permit)
        assert narrowed(permit, {}) is permit

    def test_root_without_a_facet_is_on_record_as_the_root(self, load_with):
        guard = Guard(load_with().policies[0], PrincipalQuotas())
        assert guard.check(guard.roots, ids.OP_ROOT, "", 0.0).facet == "root"
        assert guard.check(guard.roots, ids.OP_ROOT, "ledger", 0.0).facet == "FeedLedger"

    def test_opaque_stays_without_what_every_holder_may_do_after_a_reload(self, directory):
        guard = Guard(directory.load().policies[0], PrincipalQuotas())
        directory.replace("per_second = 2", "per_second = 1")
        guard.narrow(directory.load().policies[0])
        assert guard.facet("opaque").permits.implicit == {}
        assert (ids.OP_ATTENUATE, "") in guard.facet("FeedLedger").permits.implicit

    def test_a_facet_that_comes_back_gives_a_live_reference_nothing(self, directory):
        policy = directory.load().policies[0]
        guard = Guard(policy, PrincipalQuotas())
        facet = guard.facet("HistoryRO")
        offers = {name: offer for name, offer in policy.offers.items() if name != "HistoryRO"}
        guard.narrow(replace(policy, offers=offers))
        assert (dict(facet.permits), facet.permits.implicit) == ({}, {})
        guard.narrow(policy)
        assert (dict(facet.permits), facet.permits.implicit) == ({}, {})


class TestArguments:
    def test_the_largest_float_is_a_number(self):
        rule = ArgumentRule(minimum=0)
        assert (rule.fault(LARGEST), rule.fault(float("inf"))) == ("", "finite")
        assert ArgumentRule(maximum=0).fault(-LARGEST) == ""

    def test_zero_is_not_below_zero_and_a_zero_with_a_sign_is(self):
        rule = ArgumentRule(minimum=0)
        assert [rule.fault(Decimal(text)) for text in ("0", "-0", "0.00", "1")] == ["", "min", "", ""]

    def test_what_has_no_length_and_what_is_no_value_fail(self):
        assert ArgumentRule(max_len=3).fault(7) == "max_len"
        assert ArgumentRule(values=frozenset({("number", 7)})).fault(b"7") == "in"
        assert ArgumentRule(values=frozenset({("number", 7)})).fault(Decimal("NaN")) == "in"


class TestRules:
    RULE = 'currency = { in = ["EUR", "USD"] }'

    @pytest.mark.parametrize(
        ("rule", "message"),
        [
            ('{ prefix = "\\u00e4" }', "'prefix' has other characters than printable ASCII"),
            ('{ prefix = "${HOME}" }', "'prefix' "),
            ('{ in = ["EUR\\u007f"] }', "has other characters than printable ASCII"),
            ('{ in = ["\\u0007EUR"] }', "has other characters than printable ASCII"),
            ('{ const = "EUR\\u007f" }', "has other characters than printable ASCII"),
            ('{ chars = ["\\u00e4"] }', "has other characters than printable ASCII"),
            ('{ chars = ["a-\\u00e4"] }', "has other characters than printable ASCII"),
            ('{ chars = ["z-a"] }', "is neither one character nor a range such as 'A-Z'"),
            ('{ chars = ["a.z"] }', "is neither one character nor a range such as 'A-Z'"),
            ('{ chars = ["a-"] }', "is neither one character nor a range such as 'A-Z'"),
        ],
    )
    def test_texts_that_no_reader_would_understand_are_refused(self, directory, rule, message):
        directory.replace(self.RULE, f"currency = {rule}")
        ((where, text, _),) = directory.problems()
        assert where == "org-b.toml:22"
        assert message in text

    def test_a_range_of_one_character_is_one(self, load_with):
        rules = load_with((self.RULE, 'currency = { chars = ["a-a", " ", "~"] }')).policies[0].offers["FeedLedger"]
        assert rules.grants[ids.OP_CALL, "post"].arguments["currency"].chars == {"a", " ", "~"}

    def test_a_member_without_parameters_has_none_to_name(self, directory):
        directory.replace(
            "[offer.FeedLedger.limit.post]",
            "[offer.FeedLedger.args.history]\nx = { max = 1 }\n[offer.FeedLedger.limit.post]",
        )
        ((_, text, hint),) = directory.problems()
        assert (text, hint) == ("'history' has no parameter 'x'", "it takes no parameters that have names")


class TestNarrowings:
    @pytest.mark.parametrize(
        ("only", "error"),
        [
            ("post", TypeError),
            ({"iterate": False}, ValueError),
            ({"iterate": 1}, ValueError),
            ({"nonsense": True}, ValueError),
            ({"nonsense": ["post"]}, ValueError),
            ({"call": ["post"], "nonsense": ["post"]}, ValueError),
            ({"call": ["post"], "iterate": "yes"}, ValueError),
            ({"call": ["not a name"]}, ValueError),
            (["_private"], ValueError),
            ([7], ValueError),
            ([], ValueError),
            ([f"m{number}" for number in range(MOST_MEMBERS + 1)], ValueError),
        ],
    )
    def test_what_is_no_narrowing_is_refused(self, only, error):
        with pytest.raises(error, match="only="):
            keys_of(only)

    def test_flags_and_lists_stand_for_their_operations(self):
        assert keys_of({"call": ["post"], "iterate": True}) == [
            frozenset({(ids.OP_CALL, "post")}),
            frozenset({(ids.OP_ITERATE, ""), (ids.OP_NEXT, ""), (ids.OP_CLOSE, "")}),
        ]
        assert len(keys_of([f"m{number}" for number in range(MOST_MEMBERS)])) == MOST_MEMBERS

    @pytest.mark.parametrize(
        "args",
        [
            7,
            {"post": 7},
            {"post": {"amount": 7}},
            {7: {}},
            {"post": {7: {}}},
            {"post": {"amount": {7: 1}}},
            {"post": {"amount": {"max": {}}}},
            {f"m{number}": {} for number in range(MOST_MEMBERS + 1)},
        ],
        ids=range(8),
    )
    def test_rules_that_are_none_are_refused(self, args):
        with pytest.raises(ValueError, match="args="):
            rules_of(args)

    def test_tables_are_bounded(self):
        most = {f"m{number}": {"a": {"max": 1}} for number in range(MOST_MEMBERS)}
        assert len(rules_of(most)) == MOST_MEMBERS
        with pytest.raises(ValueError, match="args="):
            rules_of({**most, "more": {"a": {"max": 1}}})

    def test_a_derived_facet_knows_what_it_is_derived_from(self, load_with):
        guard = Guard(load_with().policies[0], PrincipalQuotas())
        base = guard.facet("FeedLedger")
        derived = DerivedFacet(base, [], revocable=True)
        assert base_of(derived) is base
        assert base_of(base) is base
        assert (ids.OP_REVOKE, "") in derived.permits.implicit
        assert (ids.OP_REVOKE, "") not in DerivedFacet(base, [], revocable=False).permits.implicit
        assert (ids.OP_REVOKE, "") not in DerivedFacet(guard.facet("opaque"), [], revocable=True).permits.implicit

    def test_floats_are_what_they_are_written_as(self):
        assert rules_of({"post": {"amount": {"max": 0.1}}})["post"]["amount"].maximum == Decimal("0.1")
        assert rules_of({"post": {"amount": {"in": [0.1, 2]}}})["post"]["amount"].values == frozenset(
            {("number", Decimal("0.1")), ("number", 2)}
        )

    def test_reading_an_attribute_has_no_arguments_to_narrow(self):
        rule = {"value": ArgumentRule(maximum=1)}
        narrowing = Narrowing(None, {"limit": rule, "invoke": rule})
        assert narrowing.rules_for((ids.OP_GET, "limit")) == {}
        assert narrowing.rules_for((ids.OP_SET, "limit")) == rule
        assert narrowing.rules_for((ids.OP_INVOKE, "")) == rule
        assert (word_of((ids.OP_INVOKE, "")), word_of((ids.OP_CALL, "post")), word_of((ids.OP_ROOT, ""))) == (
            "invoke",
            "post",
            "",
        )


END = "not_after = 2999-06-30T00:00:00Z"
NEVER = '[[never]]\ntext = "x"\nreach = ["LedgerAdmin"]\n'
NAMED = NEVER + 'id = "N1"\n'
HEAD = 'caprpc = 1\nkind = "contracts"\n'
MEMBER = HEAD + '[[interface.X.member]]\nname = "x"\n'
LONG = f'"spiffe://org-b.example/{"a/" * 1_020}bb"'
REFUSED = {
    "ends when it begins": ("org-b.toml", END, f"{END}\n{END.replace('after', 'before')}", "it never holds"),
    "no uses": ("org-b.toml", 'lifetime = "call"', 'lifetime = "call"\nmax_uses = 0', "between"),
    "two of one name": ("caprpc.toml", "[[never]]", f"{NAMED}[[never]]", "the id 'N1' is taken at caprpc.toml:8"),
    "unknown key of an invariant": ("caprpc.toml", 'id = "N1"', 'id = "N1"\nextra = 1', "unknown key 'extra'"),
    "two, after one without a name": ("caprpc.toml", "[[never]]", f"{NEVER}{NAMED}[[never]]", "is taken at"),
    "contracts without interfaces": ("contracts.toml", None, HEAD, "'interface' is missing"),
    "member without an operation": ("contracts.toml", None, MEMBER, "'operation' is missing"),
    "parameter without a type": (
        *("contracts.toml", None),
        MEMBER + 'operation = "call"\nparameters = [{ name = "a" }]\n',
        "a parameter needs",
    ),
    "unknown key of a parameter": (
        *("contracts.toml", None),
        MEMBER + 'operation = "call"\nparameters = [{ name = "a", type = "int", kind = 1 }]\n',
        "unknown key 'kind'",
    ),
    "a long name": ("org-b.toml", '"spiffe://org-b.example/treasury/feed"', LONG, "longer than"),
    "backslash in a file name": ("caprpc.toml", '"org-b.toml"', "'a\\b.toml'", "has a directory in it"),
    "empty name": ("org-b.toml", 'name   = "org-b-feed"', 'name   = ""', "is empty"),
}


@pytest.mark.parametrize(("file", "old", "new", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(directory, file, old, new, message):
    if old is None:
        directory.write(file, new)
    else:
        directory.replace(old, new, file)
    found = [said for where, said, _ in directory.problems() if where.startswith(file)]
    assert any(message in said for said in found), found


TEST_FILE = 'caprpc = 1\nkind = "tests"\n'
EXPECT = TEST_FILE + '[[expect]]\nid = "T1"\npeer = "org-b-feed"\nmay = "Ledger.post"\n'
EXPECTATIONS = {
    "none": (TEST_FILE, "'expect' is missing"),
    "empty": (TEST_FILE + "expect = []\n", "is an empty list"),
    "no name": (EXPECT.replace('id = "T1"\n', ""), "'id' is missing"),
    "no peer": (EXPECT.replace('peer = "org-b-feed"\n', ""), "'peer' is missing"),
    "a peer that is none": (EXPECT.replace("org-b-feed", "spiffe://"), "spiffe"),
    "a label that is none": (EXPECT.replace("org-b-feed", "org b"), "org b"),
    "a member that is none": (EXPECT.replace("Ledger.post", "Ledger._post"), "Ledger._post"),
    "one bad, then two alike": (
        EXPECT.replace('id = "T1"\n', "") + EXPECT.removeprefix(TEST_FILE) * 2,
        "the id 'T1' is taken at",
    ),
}


@pytest.mark.parametrize(("text", "message"), EXPECTATIONS.values(), ids=EXPECTATIONS)
def test_expectations_refused(directory, text, message):
    directory.replace(
        'contracts = "contracts.toml"', 'contracts = "contracts.toml"\ntests = ["tests.toml"]', "caprpc.toml"
    )
    directory.write("tests.toml", text)
    found = [said for where, said, _ in directory.problems() if where.startswith("tests.toml:")]
    assert any(message in said for said in found), found


def test_expectation_keeps_its_operation(directory):
    directory.replace(
        'contracts = "contracts.toml"', 'contracts = "contracts.toml"\ntests = ["tests.toml"]', "caprpc.toml"
    )
    directory.write("tests.toml", EXPECT.replace('"Ledger.post"', '"Ledger.currency"\noperation = "get"'))
    assert [one.operation for one in directory.load().expectations] == [ids.OP_GET]


def test_policy_that_ends_at_this_moment_is_warned_of(directory):
    directory.replace("2999-06-30T00:00:00Z", NOW.isoformat().replace("+00:00", "Z"))
    assert [warning.code for warning in directory.load().warnings if warning.code == "expired"] == ["expired"]


def test_fields_of_a_policy_are_those_of_its_file(directory):
    directory.replace('level = "decision"', 'level = "outcome"\ndurability = "sync"\narguments = "digest"')
    directory.replace('lifetime = "call"', 'lifetime = "connection"')
    policy = directory.load().policies[0]
    assert (policy.owner, policy.reason) == ("treasury-security@acme.example", "SEC-2044: intraday feed")
    assert (policy.audit_level, policy.audit_durability, policy.audit_arguments) == ("outcome", "sync", "digest")
    assert [lend.lifetime for lend in policy.lends.values()] == ["connection"]


def test_a_placeholder_for_the_key_of_a_ca_is_warned_of(directory):
    directory.replace("2" * 64, "0" * 64)
    assert "placeholder" in [warning.code for warning in directory.load().warnings]


class TestContracts:
    def test_texts_survive_writing_and_reading(self, directory):
        doc = 'The Ledger~ "of" \\ all.'
        contracts = {name: replace(one, doc=doc) for name, one in make_contracts().items()}
        directory.write("contracts.toml", contracts_to_toml(contracts))
        assert {one.doc for one in directory.load().contracts.values()} == {doc}
        assert contracts_to_toml({"X": InterfaceContract("X", {}, "")}).count("doc") == 0

    def test_idempotence_is_part_of_what_was_reviewed(self):
        post = make_contracts()["Ledger"].members[ids.OP_CALL, "post"]
        assert change(post, post) == ""
        assert "idempotent" in change(post, replace(post, idempotent=True))

    def test_only_what_changed_is_named(self, directory):
        reviewed = directory.load().contracts["Ledger"].members[ids.OP_CALL, "post"]
        assert change(reviewed, replace(reviewed, effect="admin")) == (
            f"has changed in the code: the effect was {reviewed.effect}, is admin"
        )

    def test_plain_texts_are_written_as_they_are(self, directory):
        text = contracts_to_toml({"X": InterfaceContract("X", {}, 'a ~ "b" \\ \u00e4\nmore\nand more')})
        assert 'doc = "a ~ \\"b\\" \\\\ \\U000000E4"\n' in text


class TestDirectory:
    def test_a_kind_that_is_none_is_one_mistake(self, directory):
        directory.replace('kind   = "policy"', 'kind   = "nonsense"')
        ((where, text, _),) = directory.problems()
        assert (where, text) == (
            "org-b.toml:2",
            "'kind' must be 'directory' or 'contracts' or 'policy' or 'facets' or 'tests', not 'nonsense'",
        )

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("zzz.toml", "list it in 'policies', or move it elsewhere"),
            ("org-b.tom", "list it in 'policies', or move it elsewhere"),
            ("org-bb.toml", "did you mean 'org-b.toml'?"),
        ],
    )
    def test_an_unlisted_file_has_a_hint(self, directory, name, hint):
        directory.write(name, "")
        assert [one for _, text, one in directory.problems() if "is not listed" in text] == [hint]

    @pytest.mark.parametrize(
        ("line", "message", "hint"),
        [
            ('audit = "log"', "the audit log cannot lie in the policy directory", 'write: audit = "../audit"'),
            (
                'audit = "../audit"\nrevoked = "REVOKED"',
                "the list of the revoked cannot lie in the policy directory",
                'write: revoked = "../state/REVOKED"',
            ),
        ],
    )
    def test_what_changes_lies_elsewhere(self, directory, line, message, hint):
        directory.replace('audit = "../audit"', line, "caprpc.toml")
        assert [problem[1:] for problem in directory.problems()] == [(message, hint)]

    def test_the_log_is_where_it_really_is_and_the_list_where_it_is_said_to_be(self, directory):
        above = directory.path.parent
        (above / "real").mkdir()
        (above / "link").symlink_to(above / "real")
        directory.replace('audit = "../audit"', 'audit = "../link/a"\nrevoked = "../link/r"', "caprpc.toml")
        policies = directory.load()
        assert policies.audit_directory == (above / "real" / "a").resolve()
        assert policies.revoked_file == above / "link" / "r"


class TestMessages:
    def test_an_exception_for_a_policy_that_there_is_is_no_mistake(self, directory):
        directory.replace(
            'text = "nobody reaches LedgerAdmin"',
            'text = "nobody reaches LedgerAdmin"\nexcept = ["org-b-feed"]',
            "caprpc.toml",
        )
        assert directory.load().warnings == ()

    def test_an_unreachable_facet_is_one_warning_with_all_that_comes_with_it(self, directory):
        directory.replace(
            "[offer.HistoryRO]",
            '[offer.Spare]\ninterface = "Ledger"\ncall = ["entries"]\niterate = true\n[offer.HistoryRO]',
        )
        assert [one.message for one in directory.load().warnings] == [
            "no root, restore, lend or result gives the peer the facet Spare"
        ]

    def test_an_accept_that_is_missing_is_asked_for_where_it_belongs(self, directory):
        directory.replace("[accept.Sink]", "[accept.Subscription]")
        found = [hint for _, text, hint in directory.problems() if "the peer may pass a Sink" in text]
        assert found == ["write [accept.Sink], or do not grant the member"]

    def test_an_unknown_key_outside_of_tables_is_said_to_be_there(self, directory):
        directory.replace('name   = "org-b-feed"', 'nome   = 1\nname   = "org-b-feed"')
        assert [text for _, text, _ in directory.problems()] == ["unknown key 'nome' at the top of the file"]

    def test_long_words_are_cut_and_long_texts_refused(self, directory):
        directory.replace('call = ["balance",', f'call = ["{"b" * 200}", "balance",')
        ((_, text, _),) = [one for one in directory.problems() if "bbb" in one[1]]
        assert f"'{'b' * 100}...'" in text
        assert "b" * 101 not in text
        directory.replace('reason = "SEC-2044: intraday feed"', f'reason = "{"x" * (MAX_TEXT_CHARS + 1)}"')
        assert any(f"has more than {MAX_TEXT_CHARS} characters" in text for _, text, _ in directory.problems())


class TestListed:
    def test_member_that_is_not_declared_hides_none_that_follow(self, directory):
        directory.replace(
            'call = ["balance", "history", "post", "subscribe"]', 'call = ["balanse", "histori", "post", "subscribe"]'
        )
        found = [said for _, said, _ in directory.problems()]
        assert [word in " ".join(found) for word in ("'balanse'", "'histori'")] == [True, True]

    def test_hint_names_members_and_flags(self, directory):
        directory.replace("iterate = true\nlength = true", "iterate = true\nlength = true\ncontains = true")
        [hint] = [hint for _, said, hint in directory.problems() if "does not declare 'contains'" in said]
        assert hint == "what it declares: iterate, length"

    def test_iterate_needs_something_that_gives_iterators(self, directory):
        stop = '[offer.Stop]\ninterface = "Subscription"\ncall = ["stop"]\niterate = true\n'
        directory.replace("[offer.HistoryRO]", f"{stop}[offer.HistoryRO]")
        assert any("does not declare 'iterate'" in said for _, said, _ in directory.problems())

    def test_line_that_grants(self):
        assert (grant_line(ids.OP_CALL, "post"), grant_line(ids.OP_NEXT, "")) == ('call = ["post"]', "iterate = true")
        assert grant_line(ids.OP_ROOT, "x") == ""


class TestProblems:
    def test_at_most_so_many_are_kept(self):
        problems = Problems()
        for number in range(MAX_PROBLEMS + 5):
            problems.add("x.toml:1", str(number), code="empty")
            problems.warn("x.toml:1", str(number), code="empty")
        assert len(problems.warnings) == MAX_PROBLEMS

    def test_the_first_is_the_first(self):
        problems = Problems()
        assert problems.first == ""
        problems.add("x.toml:2", "one", code="empty")
        problems.add("x.toml:1", "two", code="empty")
        assert problems.first == "one"

    def test_suggestions(self):
        assert suggest("cal", ["call", "calls"]) == "did you mean 'call'?"
        assert suggest("x", []) == ""
        twenty = [f"word{number:02}" for number in range(20)]
        assert suggest("?", twenty) == f"known here: {', '.join(twenty)}"
        assert suggest("?", [*twenty, "zz"]) == f"known here: {', '.join(twenty)}, ..."


class Counted:
    """A table of a connection: how much is in it, and which pool it was told to belong to."""

    def __init__(self) -> None:
        self.count = 0
        self.pool = None

    def __len__(self) -> int:
        return self.count

    def belong(self, pool) -> None:
        self.pool = pool


class TestQuotas:
    def test_equal_limits_have_one_limiter(self):
        usage = Usage()
        limit = MemberLimit(per_hour=3)
        first = usage.limiter(limit)
        assert usage.limiter(MemberLimit(per_hour=3)) is first
        assert usage.limiter(MemberLimit(per_hour=4)) is not first

    def test_a_new_limit_starts_with_the_most_that_was_counted(self):
        usage = Usage()
        low, high = usage.limiter(MemberLimit(per_day=50)), usage.limiter(MemberLimit(per_day=60))
        assert low.take(0.0, 10) == ""
        high.buckets[0].spent = 30.0
        assert usage.limiter(MemberLimit(per_day=70)).buckets[0].spent == 30.0

    @pytest.mark.parametrize(("rate", "seconds"), [("per_second", 1), ("per_hour", 3_600), ("per_day", 86_400)])
    def test_rates_refill_in_their_own_time(self, rate, seconds):
        limiter = Usage().limiter(MemberLimit(**{rate: 2.0}))
        assert [limiter.take(0.0) for _ in range(3)] == ["", "", rate]
        assert limiter.take(seconds * 0.49) == rate
        assert [limiter.take(seconds * 0.51), limiter.take(seconds * 0.51)] == ["", rate]


class TestRestores:
    @pytest.mark.parametrize("good", [LEAST_SECONDS, MOST_SECONDS])
    @pytest.mark.parametrize("name", ["max_for_s"])
    def test_bounds(self, directory, name, good):
        restore = f'[restore.ledger]\nas = "FeedLedger"\n{name} = '
        directory.replace("[roots]", f"{restore}{good}\n[roots]")
        assert directory.load().policies[0].restores["ledger"].max_for_s == good
        directory.replace(f"{name} = {good}", f"{name} = {good * (0.99 if good == LEAST_SECONDS else 1.01)}")
        assert any("must be between" in said for _, said, _ in directory.problems())

    def test_they_are_one_second_and_ten_years(self):
        assert (LEAST_SECONDS, MOST_SECONDS) == (1.0, 315_360_000.0)

    def test_a_mistake_in_one_entry_hides_none_in_the_next(self, directory):
        more = '[restore.a]\nas = 5\n[restore.b]\nas = "Nothing"\n[restore.c]\nas = "Neither"\n'
        directory.replace("[offer.FeedLedger]", more + "[offer.FeedLedger]")
        assert [where for where, _, _ in directory.problems()] == ["org-b.toml:17", "org-b.toml:19", "org-b.toml:21"]

    @pytest.mark.parametrize(
        ("old", "new", "left"), [(True, True, True), (True, False, False), (False, True, False), (False, False, False)]
    )
    def test_who_may_hold_it_is_what_both_say(self, old, new, left):
        before, after = (Restorable("a", "F", bearer, None, "x.toml:1") for bearer in (old, new))
        assert narrower_restores({"a": before}, {"a": after})["a"].bearer is left


class TestPools:
    def test_a_pool_that_nobody_has_joined_has_no_room(self):
        assert not Pool("knob").has_room(Counted())

    def test_what_has_left_is_not_counted(self):
        pool, one, other = Pool("knob"), Counted(), Counted()
        for table in (one, other):
            pool.join(table, 8, 2)
        one.count = 6
        other.count = pool.share
        assert not pool.has_room(other)
        pool.leave(one)
        assert one.pool is None
        assert pool.has_room(other)

    def test_leaving_frees_all(self):
        pools, held = Pools(ArgumentBudget(1)), Holding(*(Counted() for _ in range(5)), HeldArguments())
        pools.join(DEFAULT_LIMITS, 1, held)
        joined = [pools.in_flight, pools.callbacks, pools.pipelined, pools.exports, pools.imports]
        assert [table.pool for table in held[:5]] == joined
        pools.leave(held)
        assert [table.pool for table in held[:5]] == [None] * 5
        assert not pools.arguments._tables


LIMITS = {
    "max_depth": (2, DEFAULT_LIMITS.max_depth),
    "max_int_bits": (64, DEFAULT_LIMITS.max_int_bits),
    "max_key_bytes": (32, DEFAULT_LIMITS.max_key_bytes),
    "max_error_text_bytes": (0, DEFAULT_LIMITS.max_error_text_bytes),
    "max_pair_keys": (0, DEFAULT_LIMITS.max_pair_keys),
    "callback_depth": (0, DEFAULT_LIMITS.callback_depth),
    "pipeline_depth": (0, DEFAULT_LIMITS.pipeline_depth),
    "callbacks": (0, 2**31),
    "hello_timeout_s": (0.1, DEFAULT_LIMITS.hello_timeout_s),
    "max_frame_bytes": (16 * KIB, 64 * MIB),
    "max_items": (16, 1_048_576),
    "message_references": (1, 1_048_576),
    "in_flight": (1, 4_096),
    "exports": (1, 1_048_576),
    "imports": (1, 1_048_576),
    "call_timeout_s": (0.001, 86_400),
    "idle_s": (1, 3_600),
    "frame_grace_s": (0.1, 60),
    "frame_bytes_per_s": (64, 64 * MIB),
    "write_high_water_bytes": (16 * KIB, 64 * MIB),
    "write_timeout_s": (0.1, 300),
    "principal_callbacks": (1, 131_072),
    "principal_pipelined": (1, 65_536),
    "principal_in_flight": (1, 65_536),
    "principal_argument_bytes": (16 * KIB, 65_536 * MIB),
    "principal_exports": (1, 16_777_216),
    "principal_imports": (1, 16_777_216),
    "principal_buffered_bytes": (16 * KIB, 1_024 * MIB),
    "glitch_burst": (1, 10_000),
    "glitch_per_s": (0.1, 1_000),
    "connections": (1, 10_000),
}
"""Written a second time on purpose: a bound that slips lets a policy say what would end the process."""


def test_bounds_are_these():
    assert {**RANGES, "connections": CONNECTIONS} == LIMITS


@pytest.mark.parametrize(("name", "bounds"), LIMITS.items(), ids=LIMITS)
def test_bounds_of_connections_are_held(directory, name, bounds):
    low, high = bounds
    directory.replace("in_flight = 8\nconnections = 2", f"{name} = {low}")
    for good in (low, high):
        text = (directory.path / "org-b.toml").read_text()
        directory.write("org-b.toml", text.replace(f"[limits]\n{name} = {low}", f"[limits]\n{name} = {good}"))
        policy = directory.load().policies[0]
        assert (policy.connections if name == "connections" else getattr(policy.limits, name)) == good
        directory.write("org-b.toml", text)
    step = 1 if isinstance(low, int) and isinstance(high, int) else 0.0001
    for bad in (low - step, high + step):
        text = (directory.path / "org-b.toml").read_text()
        directory.write("org-b.toml", text.replace(f"[limits]\n{name} = {low}", f"[limits]\n{name} = {bad}"))
        assert any("must be between" in said for _, said, _ in directory.problems()), bad
        directory.write("org-b.toml", text)


def test_what_many_connections_spend_on_nothing_is_earned_back_in_time_and_never_by_a_step_back():
    glitches = SharedGlitches()
    assert not glitches.spend(0.0)
    glitches = SharedGlitches()
    glitches.allow(replace(DEFAULT_LIMITS, glitch_burst=2, glitch_per_s=1.0), 1)
    assert [glitches.spend(100.0) for _ in range(3)] == [True, True, False]
    assert glitches.spend(101.0)
    assert not glitches.spend(100.5)
    assert not glitches.spend(101.9)


def test_problems_are_told_in_the_order_of_files_and_lines():
    problems = Problems()
    for where in ("b.toml:1", "a.toml:10", "a.toml:9", "a.toml:1", "a.toml"):
        problems.add(where, "wrong", code="bad-value")
    with pytest.raises(PolicyError) as raised:
        problems.raise_if_any()
    assert [one.where for one in raised.value.problems] == ["a.toml", "a.toml:1", "a.toml:9", "a.toml:10", "b.toml:1"]


def test_an_object_may_be_lent_for_one_use_and_for_no_more_than_two_to_the_31(load_with, directory):
    once = load_with(('lifetime = "call"', 'lifetime = "call"\nmax_uses = 1'))
    assert {lend.max_uses for policy in once.policies for lend in policy.lends.values()} == {1}
    directory.replace("max_uses = 1", f"max_uses = {2**31 + 1}")
    assert any("max_uses" in text for _, text, _ in directory.problems())
