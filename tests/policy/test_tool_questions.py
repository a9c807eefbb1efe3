"""Questions with a wrong word: an answer about what is not there would read like one about what was meant."""

import os
import subprocess

import pytest

from caprpc.audit import AuditLog
from tests.policy.conftest import FEED
from tests.policy.test_policy_tools import TESTS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("reach", "--peer", "org-b-fed"), "there is no policy 'org-b-fed' in {}; did you mean 'org-b-feed'?"),
        (("list", "--peer", "org-b-fed"), "there is no policy 'org-b-fed'"),
        (("can-i", "--peer", "org-b-fed", "Ledger.post"), "there is no policy 'org-b-fed'"),
        (("explain", "--peer", "org-b-fed", "Ledger.post"), "there is no policy 'org-b-fed'"),
        (("reach", "--peer", "org-b-feed", "LedgerAdmn"), "no facet or interface 'LedgerAdmn' in {}; did you mean"),
        (("list", "--who-can", "Ledger.pots"), "interface Ledger has no member 'pots'; did you mean 'post'?"),
        (("list", "--who-can", "Leger.post"), "declares the interface 'Leger'; did you mean 'Ledger'?"),
        (("can-i", "--peer", "org-b-feed", "Ledger.post", "amont=1"), "no parameter 'amont'; did you mean 'amount'?"),
    ],
)
def test_a_name_that_nothing_has_is_a_mistake_and_no_answer(run, directory, words, message):
    result = run(words[0], directory.path, *words[1:])
    assert result.exit_code == 2, result.output
    assert message.format(directory.path) in result.stderr
    assert result.stdout == ""


def test_a_principal_that_no_policy_names_has_an_answer(run, directory):
    peer = "spiffe://nobody.example/x"
    assert run("reach", directory.path, "--peer", peer, "Ledger").exit_code == 1
    listed = run("list", directory.path, "--peer", peer)
    assert listed.exit_code == 1
    assert listed.stderr == f"{peer} may do nothing: no policy names it, and it is not let in at all\n"
    one = run("list", directory.path, "--peer", "org-b-feed", "--who-can", "LedgerAdmin.wipe")
    assert one.stderr == "org-b-feed may not use LedgerAdmin.wipe\n"


def test_a_member_that_no_contract_declares_is_denied_and_said_to_be_none(run, directory):
    result = run("can-i", directory.path, "--peer", "org-b-feed", "Ledger.pots")
    assert (result.exit_code, result.stdout.partition(":")[0]) == (1, "no")
    assert result.stderr == "note: no contract declares Ledger.pots; did you mean 'post'?\n"
    assert "did you mean 'Ledger'?" in run("can-i", directory.path, "--peer", "org-b-feed", "Leger.post").stderr


def test_a_text_parameter_takes_what_looks_like_a_number_as_a_text(run, directory):
    directory.replace('currency = { in = ["EUR", "USD"] }', 'currency = { in = ["42", "true"] }')
    for text in ("42", '"42"', "true"):
        assert run(
            "can-i", directory.path, "--peer", FEED, "Ledger.post", "account=A", "amount=5", f"currency={text}"
        ).stdout.startswith("yes")


@pytest.mark.parametrize(
    ("old", "new", "message", "code"),
    [
        (
            'peer = "org-b-feed"\nmay  =',
            'peer = "org-b-fed"\nmay  =',
            "there is no policy 'org-b-fed'",
            "no-such-policy",
        ),
        ('may_not = "Ledger.post"', 'may_not = "Ledger.pots"', "has no member 'pots'", "no-such-member"),
        ('may_not = "Ledger.post"', 'may_not = "Leger.post"', "declares the interface 'Leger'", "no-contract"),
        ('reaches_not = "LedgerAdmin"', 'reaches_not = "LedgerAdmn"', "interface 'LedgerAdmn'", "no-such-facet"),
        ('facet = "FeedLedger"', 'facet = "FeedLedgr"', "there is no facet 'FeedLedgr'", "no-such-facet"),
    ],
)
def test_an_expectation_about_nothing_does_not_load(directory, old, new, message, code):
    assert TESTS.count(old) == 1
    directory.write("tests.toml", TESTS.replace(old, new))
    directory.replace('audit = "../audit"', 'audit = "../audit"\ntests = ["tests.toml"]', "caprpc.toml")
    line = TESTS.replace(old, new)[: TESTS.index(old) + new.index(new.split("\n")[0])].count("\n") + 1
    ((where, text, hint),) = directory.problems()
    assert message in text
    assert hint.startswith("did you mean")
    assert where == f"tests.toml:{line}"


def test_an_expectation_may_speak_of_what_the_policies_do_not_use(directory):
    more = """\
[[expect]]
id = "T5"
peer = "spiffe://nobody.example/x"
may_not = "LedgerAdmin.wipe"
[[expect]]
id = "T6"
peer = "org-b-feed"
may = "History"
operation = "iterate"
[[expect]]
id = "T7"
peer = "org-b-feed"
may_not = "Anything.x"
operation = "restore"
"""
    directory.write("tests.toml", TESTS + more)
    directory.replace('audit = "../audit"', 'audit = "../audit"\ntests = ["tests.toml"]', "caprpc.toml")
    assert len(directory.load().expectations) == 7


def test_a_policy_with_a_mistake_does_not_make_its_expectations_look_wrong(directory):
    directory.write("tests.toml", TESTS)
    directory.replace('audit = "../audit"', 'audit = "../audit"\ntests = ["tests.toml"]', "caprpc.toml")
    directory.replace("per_second = 2", "per_secnd = 2")
    assert [where for where, _, _ in directory.problems()] == ["org-b.toml:24"]


def test_what_does_not_load_is_named_with_its_directory(run, directory, tmp_path):
    from tests.policy.conftest import PolicyDirectory

    newer = PolicyDirectory(tmp_path / "newer")
    newer.replace("per_second = 2", "per_secnd = 2")
    result = run("diff", directory.path, newer.path)
    assert result.exit_code == 3
    assert f"{newer.path}/org-b.toml:24: " in result.stderr
    gone = run("diff", directory.path, tmp_path / "gone")
    assert f"\n{tmp_path / 'gone'}: the directory cannot be opened" in gone.stderr


def test_a_group_without_a_tool_is_a_mistake_of_usage(run):
    result = run()
    assert result.exit_code == 2
    assert "needs a command" in result.stderr


def test_revisions_that_are_none_are_named(run, directory):
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for words in (("init", "-q"), ("commit", "-q", "--allow-empty", "-m", "none")):
        subprocess.run(["git", "-C", directory.path.parent, *identity, *words], check=True, env=environment)
    for revision, message in (
        ("v9", f"there is no revision 'v9' here; see: git log -- {directory.path}"),
        ("HEAD..v9", "there is no revision 'v9' here"),
        ("HEAD", f"{directory.path} is not there at 'HEAD'"),
        ("..HEAD", "'' is no revision; write REV, or REV..REV"),
        ("HEAD...HEAD", "is no revision; write REV, or REV..REV"),
    ):
        result = run("diff", "--git", revision, directory.path)
        assert result.exit_code == 2, result.output
        if revision != "HEAD..v9" and revision != "HEAD...HEAD":
            assert message in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", ":1: the file begins with a byte order mark"),
        (b"caprpc = 1\n\xff", ":2: not UTF-8: byte 0xff"),
        (b"nothing", ":1: not TOML"),
        ('caprpc = 1\nkind = "approvals"\n# \u202e'.encode(), ":3: U+202E"),
    ],
)
def test_a_file_of_approvals_that_is_none_is_named_with_its_path(run, directory, tmp_path, content, message):
    file = tmp_path / "approved.toml"
    file.write_bytes(content)
    result = run("diff", directory.path, directory.path, "--approvals", file)
    assert result.exit_code == 3
    assert f"{file}{message}" in result.stderr


@pytest.mark.parametrize("tool", ["unused", "learn", "shadow"])
@pytest.mark.parametrize("since", ["yesterday", "2026-11-01T00:00:00", "2026-13-01"])
def test_a_time_that_is_none_is_refused(run, directory, tmp_path, tool, since):
    AuditLog.open(tmp_path / "log", name="server").close()
    result = run(tool, directory.path, "--log", tmp_path / "log", "--since", since)
    assert result.exit_code == 2, result.output
    assert repr(since) in result.stderr


@pytest.fixture
def logged(directory, tmp_path):
    """A log with one permitted and three refused calls of ``post`` whose arguments were not kept."""
    log = AuditLog.open(tmp_path / "log", name="server")
    relation = log.relation(FEED)
    policy = directory.load().policies[0]

    def decision(number, verdict, reason="", detail="", member="post"):
        fields = {"peer": FEED, "connection": "0" * 32, "facet": "FeedLedger", "operation": "call"}
        fields |= {"member": member, "decision": verdict, "rule": "org-b.toml:21", "policy": policy.digest}
        fields |= {"question": number, "reason": reason, "detail": detail}
        if verdict == "deny":
            fields["reference"] = f"R-AAAAAAAAAAA{number}"
        relation.record("decision", **{name: value for name, value in fields.items() if value != ""})

    decision(2, "permit")
    decision(3, "deny", "argument", "amount: max")
    decision(4, "deny", "per_second")
    log.close()
    return tmp_path / "log"


def test_a_logged_call_is_decided_by_what_the_log_says_where_it_kept_no_arguments(run, directory, logged):
    denied = run("explain", directory.path, "--log", logged, "--reference", "R-AAAAAAAAAAA3")
    assert denied.exit_code == 1, denied.output
    assert "the log says that it was refused (argument: amount: max)  (org-b.toml:21)" in denied.stdout
    assert "it depends on" not in denied.stdout
    limited = run("explain", directory.path, "--log", logged, "--reference", "R-AAAAAAAAAAA4")
    assert limited.exit_code == 4, "a rate does not say whether the arguments would have passed"


def test_a_permitted_call_is_found_by_its_line(run, directory, logged):
    (file,) = [path.name for path in logged.glob("spiffe-*.jsonl")]
    (line,) = [
        number
        for number, text in enumerate((logged / file).read_text().splitlines(), 1)
        if '"decision":"permit"' in text
    ]
    assert run("explain", directory.path, "--log", logged, "--reference", f"{file}:{line}").exit_code == 0
    directory.replace("max = 10_000", "max = 9_000")
    other = run("explain", directory.path, "--log", logged, "--reference", f"{file}:{line}")
    assert other.exit_code == 4, "another text of the policy has not decided it"
    assert "another text of the policy" in other.stdout
    assert run("explain", directory.path, "--log", logged, "--reference", f"{file}:9999").exit_code == 2
