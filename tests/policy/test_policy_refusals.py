"""Everything that must not load does not load, and the error names file and line."""

import dataclasses
import os
import time

import pytest

from caprpc.errors import PolicyError
from caprpc.policy import PolicySet

CA = "sha256:" + "2" * 64
RLO, ZWSP, NBSP, TAG = "\u202e", "\u200b", "\u00a0", "\U000e0041"

REFUSED_TEXTS = {
    # name: (text in org-b.toml, what replaces it, line of the error, part of message or hint)
    "wildcard member": ('"balance", ', '"*", ', 18, "wildcard"),
    "prefix wildcard": ('"balance", ', '"get*", ', 18, "wildcard"),
    "question mark": ('"balance", ', '"balanc?", ', 18, "wildcard"),
    "character class": ('"balance", ', '"[a-z]", ', 18, "wildcard"),
    "wildcard principal": ("org-b.example/treasury/feed", "org-b.example/*", 11, "wildcard"),
    "wildcard root": ("ledger =", '"*" =', 14, "wildcard"),
    "private member": ('"balance", ', '"_balance", ', 18, "begins with '_'"),
    "dunder member": ('"balance", ', '"__class__", ', 18, "begins with '_'"),
    "private root": ("ledger =", "_ledger =", 14, "begins with '_'"),
    "private facet": ("[offer.HistoryRO]", "[offer._HistoryRO]", 31, "begins with '_'"),
    "non-ascii member": ('"balance", ', '"b\u0430lance", ', 18, "U+0430"),
    "fullwidth underscore": ('"balance", ', '"\uff3fbalance", ', 18, "U+FF3F"),
    "ligature": ('"balance", ', '"\ufb01nd", ', 18, "U+FB01"),
    "mathematical letter": ('"balance", ', '"\U0001d41balance", ', 18, "only ASCII"),
    "combining": ('"balance", ', '"balance\u0301", ', 18, "U+0301"),
    "non-ascii key": ("ledger =", '"l\u0435dger" =', 14, "U+0435"),
    "non-ascii principal": ("org-b.example/treasury/feed", "org-b.example/tr\u0435asury", 11, "U+0435"),
    "escaped non-ascii member": ('"balance", ', '"b\\u0430lance", ', 18, "U+0430"),
    "escaped bidi member": ('"balance", ', '"b\\u202elance", ', 18, "U+202E"),
    "escaped newline in member": ('"balance", ', '"balance\\n", ', 18, "U+000A"),
    "escaped nul in member": ('"balance", ', '"balance\\u0000", ', 18, "U+0000"),
    "trailing space in member": ('"balance", ', '"balance ", ', 18, "U+0020"),
    "tab in principal": ("treasury/feed", "treasury/feed\t", 11, "U+0009"),
    "escaped bidi in reason": ("SEC-2044:", "SEC\\u202e-2044:", 5, "U+202E"),
    "bidi in reason": ("SEC-2044:", f"SEC{RLO}-2044:", 5, "U+202E"),
    "bidi in comment": ("[audit]", f"[audit] # {RLO}", 54, "U+202E"),
    "zero width in comment": ("[audit]", f"[audit] # {ZWSP}", 54, "U+200B"),
    "no-break space": ("[audit]", f"[audit]{NBSP}# x", 54, "U+00A0"),
    "tag character": ("[audit]", f"[audit] # {TAG}", 54, "U+E0041"),
    "hangul filler": ("[audit]", "[audit] # \u3164", 54, "U+3164"),
    "variation selector": ("[audit]", "[audit] # \ufe0f", 54, "U+FE0F"),
    "line separator": ("[audit]", "[audit] # \u2028", 54, "U+2028"),
    "carriage return": ("[audit]\n", "[audit]\r\n", 54, "Unix line ends"),
    "form feed": ("[audit]", "[audit]\x0c", 54, "U+000C"),
    "unknown key": ("reason =", "raeson =", 5, "did you mean 'reason'?"),
    "unknown table": ("[accept.Sink]", "[acept.Sink]", 41, "did you mean 'accept'?"),
    "unknown key of an offer": ('call = ["balance"', 'alow = ["balance"', 18, "unknown key 'alow'"),
    "misspelt list": ('call = ["balance"', 'cal = ["balance"', 18, "did you mean 'call'?"),
    "deny list": ('get  = ["currency"]', 'deny  = ["currency"]', 19, "unknown key 'deny'"),
    "key in the wrong table": ("in_flight = 8", "[limits.in_flight]", 51, "must be an integer"),
    "include": ('kind   = "policy"', 'kind   = "policy"\ninclude = "x.toml"', 3, "unknown key 'include'"),
    "extends": ('kind   = "policy"', 'kind   = "policy"\nextends = "x.toml"', 3, "unknown key 'extends'"),
    "unknown limit": ("in_flight = 8", "in_fligth = 8", 51, "did you mean 'in_flight'?"),
    "unknown member limit": ("per_second = 2", "per_minute = 2", 24, "unknown key 'per_minute'"),
    "duplicate key": ('kind   = "policy"', 'kind   = "policy"\nkind = "policy"',
        3, "duplicate key 'kind', first at line 2"),
    "duplicate table": ("[audit]", "[peer]", 54, "duplicate table [peer], first at line 9"),
    "duplicate member": ('"balance", "history"', '"balance", "balance"', 18, "stands twice"),
    "duplicate principal": (
        '"spiffe://org-b.example/treasury/feed"',
        '"spiffe://org-b.example/treasury/feed", "spiffe://org-b.example/treasury/feed"',
        11,
        "stands twice",
    ),
    "duplicate value": ('["EUR", "USD"]', '["EUR", "EUR"]', 22, "stands twice"),
    "templating in owner": ("treasury-security@", "${OWNER}@", 4, "no templating"),
    "templating in member": ('"balance", ', '"{{ member }}", ', 18, "no templating"),
    "templating in value": ('["EUR", "USD"]', '["${CURRENCY}"]', 22, "no templating"),
    "naive date-time": ("2999-06-30T00:00:00Z", "2999-06-30T00:00:00", 7, "offset from UTC"),
    "date only": ("2999-06-30T00:00:00Z", "2999-06-30", 7, "must be a date-time"),
    "date as text": ("2999-06-30T00:00:00Z", '"2999-06-30T00:00:00Z"', 7, "must be a date-time"),
    "no ca": (f'ca     = ["{CA}"]', "", 9, "'ca' is missing"),
    "empty ca": (f'ca     = ["{CA}"]', "ca = []", 10, "empty list"),
    "ca as text": (f'ca     = ["{CA}"]', f'ca = "{CA}"', 10, "must be a list"),
    "short ca": ("sha256:22", "sha256:", 10, "64 lower-case"),
    "upper-case ca": (CA, "sha256:" + "A" * 64, 10, "64 lower-case"),
    "no spiffe": ('spiffe = ["spiffe://org-b.example/treasury/feed"]', "", 9, "'spiffe' is missing"),
    "whole trust domain": ("spiffe://org-b.example/treasury/feed", "spiffe://org-b.example", 11, "a path must follow"),
    "spiffe in upper case": ("spiffe://org-b.example", "spiffe://ORG-B.example", 11, "lower case"),
    "spiffe with trailing dot": ("spiffe://org-b.example", "spiffe://org-b.example.", 11, "trust domain"),
    "spiffe with port": ("spiffe://org-b.example", "spiffe://org-b.example:80", 11, "trust domain"),
    "spiffe with dots": ("treasury/feed", "treasury/../feed", 11, "segment"),
    "spiffe with trailing slash": ("treasury/feed", "treasury/feed/", 11, "segment"),
    "spiffe with query": ("treasury/feed", "treasury/feed?x", 11, "wildcard"),
    "spiffe with percent": ("treasury/feed", "treasury/fee%64", 11, "segment"),
    "https identity": ("spiffe://org-b.example", "https://org-b.example", 11, "spiffe://"),
    "common name": ("spiffe://org-b.example/treasury/feed", "CN=org-b", 11, "spiffe://"),
    "peer without table": ("[peer]", "[peerless]", 9, "unknown key 'peerless'"),
    "empty list": ('get  = ["currency"]', "get  = []", 19, "empty list"),
    "text where a list belongs": ('get  = ["currency"]', 'get  = "currency"', 19, "must be a list"),
    "table where a list belongs": ('get  = ["currency"]', "get  = {currency = true}", 19, "must be a list"),
    "number in a list of names": ('get  = ["currency"]', "get  = [1]", 19, "list of texts"),
    "list where a table belongs": ("[peer]", "[[peer]]", 9, "must be a table"),
    "list of offers": ("[offer.HistoryRO]", "[[offer.HistoryRO]]", 31, "must be a table"),
    "table where a list of tables belongs": ("[[lend]]", "[lend]", 44, "must be a list"),
    "bool where a number is expected": ("in_flight = 8", "in_flight = true", 51, "must be an integer"),
    "bool as rate": ("per_second = 2", "per_second = true", 24, "must be a number"),
    "bool as bound": ("max = 10_000", "max = true", 21, "must be a number"),
    "text as bound": ("max = 10_000", 'max = "10"', 21, "must be a number"),
    "nan bound": ("max = 10_000", "max = nan", 21, "finite"),
    "infinite bound": ("max = 10_000", "max = inf", 21, "finite"),
    "nan rate": ("per_second = 2", "per_second = nan", 24, "finite"),
    "infinite rate": ("per_second = 2", "per_second = inf", 24, "finite"),
    "zero rate": ("per_second = 2", "per_second = 0", 24, "between"),
    "negative rate": ("per_second = 2", "per_second = -1", 24, "between"),
    "negative timeout": ("per_second = 2", "timeout_s = -1", 24, "between"),
    "endless timeout": ("per_second = 2", "timeout_s = 1e18", 24, "between"),
    "nan timeout": ("per_second = 2", "timeout_s = nan", 24, "finite"),
    "burst without rate": ("per_second = 2", "burst = 2", 24, "needs 'per_second'"),
    "empty limit": ("per_second = 2\n", "", 23, "limits nothing"),
    "float where an integer belongs": ("in_flight = 8", "in_flight = 8.0", 51, "must be an integer"),
    "huge integer": ("in_flight = 8", f"in_flight = {10**40}", 51, "between"),
    "monstrous integer": ("in_flight = 8", "in_flight = " + "9" * 5000, 51, "more than 64 characters"),
    "huge bound": ("max = 10_000", "max = 1e400", 21, "too large"),
    "65-bit bound": ("max = 10_000", f"max = {2**63}", 21, "64 bits"),
    "deep list": ("in_flight = 8", "in_flight = " + "[" * 200 + "]" * 200, 51, "nested more than"),
    "deep table": ("in_flight = 8", "in_flight = " + "{a=" * 200 + "1" + "}" * 200, 51, "nested more than"),
    "deep key": ("in_flight = 8", "a." * 3000 + "a = 1", 51, "more than 8 parts"),
    "deep header": ("[audit]", "[" + "a." * 3000 + "a]", 54, "more than 8 parts"),
    "widened depth": ("in_flight = 8", "max_depth = 33", 51, "between 2 and 32"),
    "widened integers": ("in_flight = 8", "max_int_bits = 4097", 51, "between"),
    "zero in flight": ("in_flight = 8", "in_flight = 0", 51, "between"),
    "no root facet": ('ledger = "FeedLedger"', 'ledger = "FeedLegder"', 14, "did you mean 'FeedLedger'?"),
    "opaque root": ('ledger = "FeedLedger"', 'ledger = "opaque"', 14, "there is no [offer.opaque]"),
    "derived facet by name": ('ledger = "FeedLedger"', 'ledger = "HistoryRO/iterator"', 14, "is not a name"),
    "facet named opaque": ("[offer.LinesOnly]", "[offer.opaque]", 36, "is not a name for a facet"),
    "no such interface": ('interface = "Ledger"', 'interface = "Legder"', 17, "did you mean 'Ledger'?"),
    "no interface": ('interface = "Ledger"\n', "", 16, "'interface' is missing"),
    "member not declared": ('"balance", ', '"ballance", ', 18, "did you mean 'balance'?"),
    "inherited-looking member": ('"balance", ', '"mro", ', 18, "no member 'mro'"),
    "prefix trick": ('"balance", ', '"exposed_balance", ', 18, "no member"),
    "member under the wrong operation": ('get  = ["currency"]', 'get  = ["balance"]', 19, "it can stand in 'call'"),
    "set of a read-only attribute": ('get  = ["currency"]', 'set  = ["currency"]', 19, "it can stand in 'get'"),
    "flag false": ("length = true", "length = false", 34, "can only be true"),
    "flag as text": ("length = true", 'length = "true"', 34, "can only be true"),
    "flag not declared": ("length = true", "invoke = true", 34, "does not declare 'invoke'"),
    "nothing offered": ("iterate = true\nlength = true\n", "", 31, "grants nothing"),
    "args of a member not granted": ("[offer.FeedLedger.args.post]", "[offer.FeedLedger.args.pots]", 20, "not granted"),
    "args of no parameter": ("amount   =", "amuont   =", 21, "did you mean 'amount'?"),
    "unknown part of a rule": ("max = 10_000", "maximum = 10_000", 21, "did you mean 'max'?"),
    "pattern rule": ('currency = { in = ["EUR", "USD"] }', 'currency = { regex = "(a+)+$" }',
        22, "unknown key 'regex'"),
    "bound on a text": ('{ in = ["EUR", "USD"] }', "{ min = 1 }", 22, "says nothing about str"),
    "prefix of a number": ("min = 0.01,", 'prefix = "1",', 21, "says nothing about Decimal"),
    "number in a list of texts": ('["EUR", "USD"]', '["EUR", 1]', 22, "no argument could pass"),
    "text in a list of numbers": ("{ min = 0.01, max = 10_000 }", '{ in = ["x"] }', 21, "no argument could pass"),
    "min above max": ("min = 0.01,", "min = 10_001,", 21, "no argument could pass"),
    "in and const": ('{ in = ["EUR", "USD"] }', '{ in = ["EUR"], const = "EUR" }', 22, "exclude each other"),
    "empty in": ('["EUR", "USD"]', "[]", 22, "with something in it"),
    "empty rule": ("{ min = 0.01, max = 10_000 }", "{}", 21, "demands nothing"),
    "bad chars": ('{ in = ["EUR", "USD"] }', '{ chars = ["A-Z", "xyz"] }', 22, "range such as 'A-Z'"),
    "negative length": ('{ in = ["EUR", "USD"] }', "{ max_len = -1 }", 22, "between"),
    "limit of a member not granted": ("[offer.FeedLedger.limit.post]", "[offer.FeedLedger.limit.get]",
        23, "not granted"),
    "returns without facet": ('history = "HistoryRO"\n', "", 18, "no facet says what the peer may do"),
    "returns unknown facet": ('history = "HistoryRO"', 'history = "HistoryR0"', 26, "did you mean 'HistoryRO'?"),
    "returns facet of another interface": ('history = "HistoryRO"', 'history = "LinesOnly"', 26, "is for TextLines"),
    "returns of a member that returns none": ('subscribe = "opaque"', 'subscribe = "opaque"\nbalance = "opaque"',
        28, "returns no"),
    "returns of a member not granted": ('subscribe = "opaque"', 'subscribe = "opaque"\nentries = "opaque"',
        28, "not granted"),
    "record of no parameter": ('post = ["account", "amount"]', 'post = ["acount"]', 29, "did you mean 'account'?"),
    "record of a member not granted": ('post = ["account", "amount"]', 'pots = ["account"]', 29, "not granted"),
    "accept of no interface": ("[accept.Sink]", "[accept.Sin]", 41, "did you mean 'Sink'?"),
    "accept of no member": ('["update", "load"]', '["updat", "load"]', 42, "did you mean 'update'?"),
    "accept with args": ('call = ["update", "load"]', 'args = {update = {}}\ncall = ["load"]',
        42, "unknown key 'args'"),
    "lend to no interface": ('"Sink.load"', '"Snik.load"', 45, "did you mean 'Sink'?"),
    "lend to no member": ('"Sink.load"', '"Sink.laod"', 45, "did you mean 'load'?"),
    "lend without member": ('"Sink.load"', '"Sink"', 45, "is not INTERFACE.MEMBER"),
    "lend to everything": ('"Sink.load"', '"Sink.*"', 45, "wildcard"),
    "lend to no parameter": ('param = "source"', 'param = "sauce"', 46, "did you mean 'source'?"),
    "lend to a parameter by value": ('to = "Sink.load"\nparam = "source"', 'to = "Sink.update"\nparam = "line"',
        47, "takes no reference"),
    "lend as unknown facet": ('as = "LinesOnly"', 'as = "LineOnly"', 47, "did you mean 'LinesOnly'?"),
    "lend as another interface": ('as = "LinesOnly"', 'as = "HistoryRO"', 47, "is for History"),
    "lend for ever": ('lifetime = "call"', 'lifetime = "forever"', 48, "'call', 'connection', or seconds"),
    "lend for no time": ('lifetime = "call"', "lifetime = 0", 48, "between"),
    "lend for bool": ('lifetime = "call"', "lifetime = true", 48, "must be a number"),
    "lend twice": ("[limits]", '[[lend]]\nto = "Sink.load"\nparam = "source"\nas = "LinesOnly"\nlifetime = 1\n[limits]',
        50, "two lends"),
    "audit off": ('level = "decision"', 'level = "none"', 55, "'deny' or 'decision' or 'outcome'"),
    "audit fails open": ('on_failure = "refuse"', 'on_failure = "allow"', 56, "does not happen"),
    "no name": ('name   = "org-b-feed"\n', "", 1, "'name' is missing"),
    "name with a slash": ('"org-b-feed"', '"../org-b"', 3, "is not a name"),
    "no kind": ('kind   = "policy"\n', "", 1, "'kind' is missing"),
    "unknown kind": ('kind   = "policy"', 'kind   = "polizy"', 2, "'kind' must be"),
    "wrong kind": ('kind   = "policy"', 'kind   = "contracts"', 2, "where 'policy' is expected"),
    "no language": ("caprpc = 1\n", "", 1, "'caprpc' is missing"),
    "future language": ("caprpc = 1", "caprpc = 2", 1, "language version 2"),
    "not toml": ("[audit]", "audit {", 54, "not TOML"),
    "open string": ('level = "decision"', 'level = "decision', 55, "not closed"),
    "bad escape": ('level = "decision"', 'level = "\\q"', 55, "not TOML"),
    "yaml": ("[audit]", "audit: &x", 54, "not TOML"),
    "table over a value": ("[audit]", "[name]", 54, "not TOML"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "part"), REFUSED_TEXTS.values(), ids=REFUSED_TEXTS)
def test_text_is_refused_at_its_line(directory, old, new, line, part):
    directory.replace(old, new)
    problems = directory.problems()
    at_line = [f"{message}\n{hint}" for where, message, hint in problems if where == f"org-b.toml:{line}"]
    assert any(part in text for text in at_line), problems


@pytest.mark.parametrize("name", ["mathematical letter", "bidi in reason", "non-ascii member"])
def test_messages_are_printable_ascii(directory, name):
    directory.replace(*REFUSED_TEXTS[name][:2])
    for where, message, hint in directory.problems():
        assert (where + message + hint).isascii()


COLUMNS = {
    # name: (text in org-b.toml, what replaces it, line and column of the error)
    "a name in a list": ('"history", "post"', '"histori", "post"', 18, 20),
    "a character in a comment": ("[audit]", f"[audit] # {RLO}", 54, 11),
    "no toml": ("[audit]", "audit {", 54, 7),
    "an open string": ('level = "decision"', 'level = "decision', 55, 9),
    "a bad escape": ('level = "decision"', 'level = "\\q"', 55, 12),
    "a bad escape in a key": ('level = "decision"', '"lev\\q" = "decision"', 55, 1),
    "a long number": ("max = 10_000", "max = " + "9" * 100, 21, 32),
    "a number that no decimal holds": ("max = 10_000", "max = 1e99999999999999999999", 21, 32),
    "a duplicate table": ("[audit]", "[peer]", 54, 1),
    "a rule": ('history = "HistoryRO"\n', "", 18, 1),
    "the end of the file": ('on_failure = "refuse"\n', "on_failure =", 56, 13),
}


@pytest.mark.parametrize(("old", "new", "line", "column"), COLUMNS.values(), ids=COLUMNS)
def test_refusal_names_the_column(directory, old, new, line, column):
    directory.replace(old, new)
    with pytest.raises(PolicyError) as caught:
        directory.load()
    assert (f"org-b.toml:{line}", column) in [(one.where, one.column) for one in caught.value.problems]


HINTS = {
    "wildcard member": "write each name out: a letter, then letters, digits and '_'",
    "name with a slash": "write a letter or digit, then letters, digits, '.', '_' and '-'",
    "short ca": "write what this prints: caprpc pki show",
    "wildcard principal": "write one ID out, such as spiffe://org-b.example/treasury/feed",
    "bool where a number is expected": "write: in_flight = 1",
    "zero in flight": "write: in_flight = 1",
    "widened depth": "write: max_depth = 32",
    "text where a list belongs": 'write: get = ["..."]',
    "key in the wrong table": "write: in_flight = 1",
    "list where a table belongs": "write: [peer]",
    "table where a list of tables belongs": "write: [[lend]]",
    "returns facet of another interface": "name a facet for History, or 'opaque'",
    "lend to a parameter by value": "delete the lend: what is passed by value needs none",
    "future language": "write: caprpc = 1",
}


@pytest.mark.parametrize(("name", "hint"), HINTS.items(), ids=HINTS)
def test_refusal_suggests_what_to_write(directory, name, hint):
    old, new, line, _ = REFUSED_TEXTS[name]
    directory.replace(old, new)
    assert hint in [said for where, _, said in directory.problems() if where == f"org-b.toml:{line}"]


INDEX_TEXTS = {
    "version missing": ("version = 7\n", "", 1, "'version' is missing"),
    "version zero": ("version = 7", "version = 0", 3, "between"),
    "version as text": ("version = 7", 'version = "7"', 3, "must be an integer"),
    "version as bool": ("version = 7", "version = true", 3, "must be an integer"),
    "no policies": ('policies = ["org-b.toml"]', "policies = []", 4, "empty list"),
    "policy elsewhere": ('["org-b.toml"]', '["../org-b.toml"]', 4, "in one directory"),
    "policy by absolute path": ('["org-b.toml"]', '["/etc/org-b.toml"]', 4, "in one directory"),
    "glob of policies": ('["org-b.toml"]', '["*.toml"]', 4, "wildcard"),
    "hidden policy": ('["org-b.toml"]', '[".org-b.toml"]', 4, "is not the name"),
    "other ending": ('["org-b.toml"]', '["org-b.yaml"]', 4, "is not the name"),
    "listed twice": ('["org-b.toml"]', '["org-b.toml", "org-b.toml"]', 4, "stands twice"),
    "index as policy": ('["org-b.toml"]', '["org-b.toml", "caprpc.toml"]', 4, "is no policy"),
    "contracts as policy": ('["org-b.toml"]', '["org-b.toml", "contracts.toml"]', 4, "is no policy"),
    "contracts missing": ('contracts = "contracts.toml"\n', "", 1, "'contracts' is missing"),
    "audit missing": ('audit = "../audit"\n', "", 1, "'audit' is missing"),
    "audit empty": ('audit = "../audit"', 'audit = ""', 6, "is empty"),
    "audit inside": ('audit = "../audit"', 'audit = "audit"', 6, "cannot lie in the policy directory"),
    "audit is the directory": ('audit = "../audit"', 'audit = "."', 6, "cannot lie in the policy directory"),
    "unknown key": ("version = 7", "version = 7\nmode = 'permissive'", 4, "unknown key 'mode'"),
    "unlisted": ('["org-b.toml"]', '["org-c.toml"]', 4, "not listed"),
    "never without id": ('id = "N1"\n', "", 8, "'id' is missing"),
    "never without reach": ('reach = ["LedgerAdmin"]', "", 8, "'reach' is missing"),
    "never of the unknown": ('reach = ["LedgerAdmin"]', 'reach = ["LedgerAdmn"]', 11, "did you mean 'LedgerAdmin'?"),
    "wrong kind": ('kind = "directory"', 'kind = "policy"', 2, "where 'directory' is expected"),
}


@pytest.mark.parametrize(("old", "new", "line", "part"), INDEX_TEXTS.values(), ids=INDEX_TEXTS)
def test_index_is_refused_at_its_line(directory, old, new, line, part):
    directory.replace(old, new, "caprpc.toml")
    problems = directory.problems()
    at_line = [f"{message}\n{hint}" for where, message, hint in problems if where == f"caprpc.toml:{line}"]
    assert any(part in text for text in at_line), problems


def test_all_problems_are_reported_together(directory):
    directory.replace('"balance", ', '"*", ')
    directory.replace("in_flight = 8", "in_flight = true")
    directory.replace("version = 7", "version = 0", "caprpc.toml")
    wheres = [where for where, _, _ in directory.problems()]
    assert wheres == ["caprpc.toml:3", "org-b.toml:18", "org-b.toml:51"]


def second_policy(directory, *replacements):
    text = (directory.path / "org-b.toml").read_text().replace('"org-b-feed"', '"second"')
    for old, new in replacements:
        assert text.count(old) == 1
        text = text.replace(old, new)
    directory.write("second.toml", text)
    directory.replace('["org-b.toml"]', '["org-b.toml", "second.toml"]', "caprpc.toml")


def test_two_policies_for_one_certificate_are_refused(directory):
    second_policy(directory)
    ((where, message, _),) = directory.problems()
    assert where == "second.toml:9"
    assert "org-b.toml:9" in message


def test_two_policies_that_share_one_of_several_pairs_are_refused(directory):
    second_policy(
        directory,
        (f'["{CA}"]', f'["sha256:{"7" * 64}", "{CA}"]'),
        ('["spiffe://', '["spiffe://x.example/a", "spiffe://'),
    )
    assert [where for where, _, _ in directory.problems()] == ["second.toml:9"]


def test_same_principal_under_another_anchor_is_another_peer(directory):
    second_policy(directory, (CA, "sha256:" + "7" * 64))
    assert len(directory.load().policies) == 2


def test_two_policies_of_one_name_are_refused(directory):
    second_policy(directory, ('"second"', '"org-b-feed"'), (CA, "sha256:" + "7" * 64))
    ((where, message, _),) = directory.problems()
    assert where == "second.toml:1"
    assert "org-b.toml" in message


def test_invariant_that_a_policy_breaks_is_refused_at_the_rule_that_breaks_it(directory):
    directory.replace('reach = ["LedgerAdmin"]', 'reach = ["History"]', "caprpc.toml")
    ((where, message, hint),) = directory.problems()
    assert where == "org-b.toml:18"
    assert "HistoryRO" in message
    assert "N1" in message
    assert hint == "nobody reaches LedgerAdmin"


def test_invariant_names_facets_too_and_excepts_policies(directory):
    directory.replace('reach = ["LedgerAdmin"]', 'reach = ["FeedLedger"]', "caprpc.toml")
    assert directory.problems()[0][0] == "org-b.toml:14"
    directory.replace('reach = ["FeedLedger"]', 'reach = ["FeedLedger"]\nexcept = ["org-b-feed"]', "caprpc.toml")
    directory.load()


def test_facet_that_nobody_can_hold_is_a_warning(directory):
    directory.replace('ledger = "FeedLedger"', 'history = "HistoryRO"')
    warnings = [(warning.where, warning.message) for warning in directory.load().warnings]
    assert warnings == [("org-b.toml:16", "no root, restore, lend or result gives the peer the facet FeedLedger")]


class TestFiles:
    """What lies in the directory, and who could have written it."""

    def test_unlisted_file_is_refused(self, directory):
        directory.write("org-c.toml", "")
        ((where, message, _),) = directory.problems()
        assert where == "caprpc.toml:4"
        assert "org-c.toml" in message

    @pytest.mark.parametrize("name", ["org-b.toml~", ".org-b.toml.swp", "README.md", "#org-b.toml#"])
    def test_leftovers_are_refused(self, directory, name):
        directory.write(name, "")
        assert any(name in message for _, message, _ in directory.problems())

    def test_subdirectory_is_refused(self, directory):
        (directory.path / "more").mkdir()
        assert any("'more'" in message for _, message, _ in directory.problems())

    def test_missing_file_is_refused(self, directory):
        (directory.path / "org-b.toml").unlink()
        ((where, message, hint),) = directory.problems()
        assert (where, message) == ("org-b.toml", "the file cannot be opened: No such file or directory")
        assert hint == "create it, or correct the name"

    def test_missing_index_is_refused(self, directory):
        (directory.path / "caprpc.toml").unlink()
        assert directory.problems()[0][0] == "caprpc.toml"

    @pytest.mark.parametrize("name", ["org-b.toml", "caprpc.toml", "contracts.toml"])
    def test_symbolic_link_is_refused(self, directory, tmp_path, name):
        (directory.path / name).rename(tmp_path / name)
        (directory.path / name).symlink_to(tmp_path / name)
        assert (name, "the file is a symbolic link") in [(where, message) for where, message, _ in directory.problems()]

    @pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o620])
    @pytest.mark.parametrize("name", ["org-b.toml", "caprpc.toml", "contracts.toml"])
    def test_file_that_others_can_write_is_refused(self, directory, name, mode):
        (directory.path / name).chmod(mode)
        _, message, hint = next(problem for problem in directory.problems() if problem[0] == name)
        assert f"mode {mode:04o}" in message
        assert "chmod" in hint

    def test_what_others_could_have_written_is_not_even_read(self, directory):
        directory.replace("per_second = 2", "per_secnd = 2")
        (directory.path / "org-b.toml").chmod(0o666)
        assert [where for where, _, _ in directory.problems()] == ["org-b.toml"]

    @pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777])
    def test_directory_that_others_can_write_is_refused(self, directory, mode):
        directory.path.chmod(mode)
        assert any("the directory is writable" in message for _, message, _ in directory.problems())

    def test_parent_that_everybody_can_write_is_refused_unless_sticky(self, directory):
        directory.path.parent.chmod(0o777)
        ((_, message, _),) = directory.problems()
        assert "directory above" in message
        for mode in (0o1777, 0o775):
            directory.path.parent.chmod(mode)
            directory.load()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    @pytest.mark.parametrize("name", ["org-b.toml", "."])
    def test_foreign_owner_is_refused(self, directory, name):
        directory.replace("per_second = 2", "per_secnd = 2")
        os.chown(directory.path / name, 12345, -1)
        messages = [message for _, message, _ in directory.problems()]
        assert any("belongs to user 12345" in message for message in messages)
        assert name == "." or len(messages) == 1, "a file of somebody else is not even read"

    def test_foreign_owner_is_seen_by_any_user(self, directory, monkeypatch):
        owner = directory.path.stat().st_uid
        monkeypatch.setattr("os.geteuid", lambda: owner + 1)
        if owner == 0:
            directory.load()
        else:
            assert any("belongs to user" in message for _, message, _ in directory.problems())

    def test_directory_that_is_a_link_is_refused(self, directory, tmp_path):
        link = tmp_path / "link"
        link.symlink_to(directory.path)
        directory.path = link
        ((_, message, _),) = directory.problems()
        assert "directory" in message

    def test_missing_directory_is_refused(self, directory, tmp_path):
        directory.path = tmp_path / "nowhere"
        ((where, message, _),) = directory.problems()
        assert where == str(tmp_path / "nowhere")
        assert "No such file" in message

    def test_pipe_does_not_block(self, directory):
        (directory.path / "org-b.toml").unlink()
        os.mkfifo(directory.path / "org-b.toml", 0o600)
        assert ("org-b.toml", "not a regular file") in [(where, message) for where, message, _ in directory.problems()]

    def test_directory_in_place_of_a_file_is_refused(self, directory):
        (directory.path / "org-b.toml").unlink()
        (directory.path / "org-b.toml").mkdir()
        assert directory.problems()[0][0] == "org-b.toml"

    def test_file_is_opened_once_and_judged_on_its_descriptor(self, directory, monkeypatch):
        """What was checked is what is read, although another file has taken the name in between (CAP-PO-07)."""
        opened = []
        real_open, real_fstat = os.open, os.fstat

        def counting_open(path, *args, **kwargs):
            opened.append(str(path))
            return real_open(path, *args, **kwargs)

        def swapping_fstat(descriptor):
            status = real_fstat(descriptor)
            evil = directory.path / "org-b.toml"
            if len(opened) > 1 and opened[-1] == "org-b.toml":
                evil.unlink()
                evil.write_text("evil")
            return status

        monkeypatch.setattr(os, "open", counting_open)
        monkeypatch.setattr(os, "fstat", swapping_fstat)
        # What is parsed is what was opened first: the other one would be no TOML. That there is another is said.
        assert [(where, said) for where, said, _ in directory.problems()] == [
            ("org-b.toml", "the file was changed while the directory was read")
        ]
        assert opened.count("org-b.toml") == 2

    def test_byte_order_mark_is_refused(self, directory):
        directory.write("org-b.toml", b"\xef\xbb\xbf" + (directory.path / "org-b.toml").read_bytes())
        ((where, message, _),) = directory.problems()
        assert where == "org-b.toml:1"
        assert "byte order mark" in message

    def test_utf_16_is_refused(self, directory):
        directory.write("org-b.toml", (directory.path / "org-b.toml").read_text().encode("utf-16"))
        assert directory.problems()[0][0] == "org-b.toml:1"

    def test_broken_utf_8_is_refused_at_its_line(self, directory):
        directory.write("org-b.toml", (directory.path / "org-b.toml").read_bytes().replace(b"SEC-2044", b"SEC\xff2044"))
        ((where, message, _),) = directory.problems()
        assert where == "org-b.toml:5"
        assert "0xff" in message

    def test_large_file_is_refused_without_reading_it_all(self, directory):
        with (directory.path / "org-b.toml").open("ab") as file:
            file.truncate(100 * 1024 * 1024)
        started = time.process_time()
        ((_, message, _),) = directory.problems()
        assert "1048576 bytes" in message
        assert time.process_time() - started < 1

    @pytest.mark.parametrize(
        "bomb",
        [
            "x = " + "[" * 1_000_000,
            "x = " + "{a=" * 300_000,
            "a." * 500_000 + "a = 1",
            "x = [" + "[]," * 300_000 + "]",
            "\n".join(f"a{i} = 1" for i in range(90_000)),
            "\n".join(f"[a{i}.b.c.d]" for i in range(60_000)),
            "[[a]]\n" * 170_000,
            "x = " + "1" * 1_000_000,
            'x = "' + "\\\\" * 500_000,
            'x = """' + '"' * 1_000_000,
            "x = '''" + "''" * 500_000,
            "# " + "\u202e" * 300_000,
            "\u202e\n" * 250_000,
            "=" * 1_000_000,
            '"' * 1_000_000,
        ],
        ids=range(15),
    )
    def test_bomb_is_refused_in_less_than_a_second(self, directory, bomb):
        directory.write("org-b.toml", bomb)
        started = time.process_time()
        problems = directory.problems()
        assert time.process_time() - started < 1
        assert len(problems) < 300


class TestVersions:
    """A reload goes forwards only (CAP-PO-10)."""

    def test_same_text_loads_again(self, directory):
        assert directory.load(directory.load()).version == 7

    def test_changed_text_under_the_same_version_is_refused(self, directory):
        previous = directory.load()
        directory.replace("in_flight = 8", "in_flight = 9")
        ((where, message, hint),) = directory.problems(previous)
        assert where == "caprpc.toml"
        assert "still 7" in message
        assert "version = 8" in hint

    def test_older_version_is_refused(self, directory):
        previous = directory.load()
        directory.replace("version = 7", "version = 6", "caprpc.toml")
        ((_, message, _),) = directory.problems(previous)
        assert "older" in message

    def test_newer_version_is_taken(self, directory):
        previous = directory.load()
        directory.replace("version = 7", "version = 8", "caprpc.toml")
        directory.replace("in_flight = 8", "in_flight = 9")
        assert directory.load(previous).policies[0].limits.in_flight == 9


class TestContracts:
    """What is granted must still be what was reviewed."""

    def verify(self, loaded: PolicySet, change, complete=True):
        code = dict(loaded.contracts)
        change(code)
        try:
            loaded.verify_contracts(code, complete=complete)
        except PolicyError as exc:
            return [(problem.where, problem.message) for problem in exc.problems]
        return []

    @staticmethod
    def changed(code, interface, key, **fields):
        contract = code[interface]
        members = dict(contract.members)
        members[key] = dataclasses.replace(members[key], **fields)
        code[interface] = dataclasses.replace(contract, members=members)

    @staticmethod
    def without(code, interface, key):
        members = {k: v for k, v in code[interface].members.items() if k != key}
        code[interface] = dataclasses.replace(code[interface], members=members)

    def test_unchanged_code_passes(self, directory):
        assert self.verify(directory.load(), lambda code: None) == []

    def test_granted_member_that_vanished_is_refused(self, directory):
        problems = self.verify(directory.load(), lambda code: self.without(code, "Ledger", (1, "balance")))
        assert problems == [("org-b.toml:18", "call 'balance' of interface Ledger is gone from the code")]

    def test_granted_member_that_changed_is_refused(self, directory):
        ((where, message),) = self.verify(
            directory.load(), lambda code: self.changed(code, "Ledger", (1, "post"), parameters=())
        )
        assert where == "org-b.toml:18"
        assert "parameters were (account: str, amount: Decimal" in message

    @pytest.mark.parametrize("field", ["returns", "returns_reference", "effect"])
    def test_any_change_counts(self, directory, field):
        ((_, message),) = self.verify(
            directory.load(), lambda code: self.changed(code, "Ledger", (1, "post"), **{field: "other"})
        )
        assert message.rpartition("in the code: ")[2].startswith(
            f"the {field[:6]}" if field == "effect" else "the result"
        )

    def test_member_that_is_not_granted_may_change(self, directory):
        assert self.verify(directory.load(), lambda code: self.without(code, "Ledger", (1, "entries"))) == []

    def test_interface_that_vanished_is_refused(self, directory):
        problems = self.verify(directory.load(), lambda code: code.pop("Ledger"))
        assert len(problems) == 5

    def test_interface_that_is_not_known_yet_passes_where_knowledge_is_partial(self, directory):
        assert self.verify(directory.load(), lambda code: code.pop("Ledger"), complete=False) == []

    def test_accepted_member_that_changed_is_refused(self, directory):
        ((where, _),) = self.verify(
            directory.load(), lambda code: self.changed(code, "Sink", (1, "update"), parameters=())
        )
        assert where == "org-b.toml:42"

    def test_broken_contracts_are_refused_at_their_line(self, directory):
        text = (directory.path / "contracts.toml").read_text()
        directory.write("contracts.toml", text.replace('operation = "length"', 'operation = "lenght"', 1))
        problems = directory.problems()
        line = text.split('operation = "length"')[0].count("\n") + 1
        assert problems[0][0] == f"contracts.toml:{line}"
        assert "did you mean 'length'?" in problems[0][2]

    def test_member_that_stands_twice_in_a_contract_is_refused(self, directory):
        text = (directory.path / "contracts.toml").read_text()
        directory.write(
            "contracts.toml", text + '\n[[interface.TextLines.member]]\noperation = "iterate"\neffect = "read"\n'
        )
        assert "stands twice" in directory.problems()[0][1]
