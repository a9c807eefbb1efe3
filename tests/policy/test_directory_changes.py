"""Differences in what surrounds the policies: invariants, the list of the revoked, and what granted members take."""

import json

import pytest

NEVER = 'reach = ["LedgerAdmin"]\n'
POST = '{ name = "tags", type = "list[str]" },\n]\n'
BALANCE = '{ name = "account", type = "str", required = true },\n]\nreturns = "Decimal"'


@pytest.fixture
def changed(directory, newer, run):
    """Return a function that changes a file of the candidate, and returns the code and the differences."""

    def change(old, new, file="caprpc.toml"):
        for path in directory.path.iterdir():
            newer.write(path.name, path.read_bytes())
        newer.replace(old, new, file)
        result = run("diff", directory.path, newer.path, "--format", "json")
        rows = json.loads(result.stdout)["differences"]
        return result.exit_code, [
            tuple(row[key] for key in ("verdict", "peer", "subject", "old", "new")) for row in rows
        ]

    return change


def test_an_invariant_that_is_gone_is_told(changed, directory):
    text = (directory.path / "caprpc.toml").read_text()
    assert changed(text[text.index("[[never]]") :], "") == (
        0,
        [("changed", "all peers", "never N1", "LedgerAdmin but for nobody", "")],
    )


def test_an_exception_to_an_invariant_is_told(changed):
    assert changed(NEVER, f'{NEVER}except = ["org-b-feed"]\n') == (
        0,
        [("changed", "all peers", "never N1", "LedgerAdmin but for nobody", "LedgerAdmin but for org-b-feed")],
    )


def test_a_list_of_the_revoked_that_is_not_read_any_more_is_wider(changed, directory):
    audit = 'audit = "../audit"\n'
    directory.replace(audit, f'{audit}revoked = "../REVOKED"\n', "caprpc.toml")
    assert changed('revoked = "../REVOKED"\n', "") == (1, [("wider", "all peers", "revoked", "a list", "")])


def test_a_list_of_the_revoked_that_is_new_is_narrower(changed):
    audit = 'audit = "../audit"\n'
    found = changed(audit, f'{audit}revoked = "../REVOKED"\n')
    assert found == (0, [("narrower", "all peers", "revoked", "", "a list")])


def test_a_granted_member_that_takes_something_else_is_wider(changed):
    code, rows = changed(BALANCE, BALANCE.replace('"str"', '"Any"'), "contracts.toml")
    assert (code, rows) == (
        1,
        [
            (
                "wider",
                "all peers",
                "Ledger.balance: declaration",
                "(account: str) -> Decimal",
                "(account: Any) -> Decimal",
            )
        ],
    )


def test_an_effect_and_what_is_sensitive_are_told(changed):
    new = BALANCE.replace("required = true", "required = true, sensitive = true")
    code, rows = changed(BALANCE, new, "contracts.toml")
    assert (code, rows) == (
        0,
        [("changed", "all peers", "Ledger.balance: declared as", "read", "read, sensitive account")],
    )


def test_a_member_that_nobody_may_use_is_no_difference(changed):
    admin = 'name = "wipe"\neffect = "read"'
    assert changed(admin, admin.replace("read", "admin"), "contracts.toml") == (0, [])
