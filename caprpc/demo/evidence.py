"""From an attack to the audit record that refused it, and to the lines of policy that decided."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from caprpc.audit import Entry, Selection, select
from caprpc.policy import PolicySet


def record_of(log: Path, *, reference: str = "", address: str = "") -> Entry | None:
    """Return the record with a reference number, or the rejection of whoever came from an address."""
    selection = Selection(reference=reference) if reference else Selection(kind="reject")
    for entry in select(log, selection):
        if entry.record is not None and (reference or entry.record.text("address") == address):
            return entry
    return None


def rule_text(policies: Path, rule: str) -> list[str]:
    """Return the line that a rule such as ``server.toml:19`` names, and what follows in its table, with numbers."""
    file, _, number = rule.rpartition(":")
    if not file or not number.isdecimal():
        return []
    lines = (policies / file).read_text(encoding="utf-8").splitlines()
    start = int(number) - 1
    return [f"{file}:{at + 1}:  {lines[at]}" for at in _table(lines, start)]


def lend_rule(policies: Path, interface: str, member: str, parameter: str) -> str:
    """Return the rule of the ``[[lend]]`` by which an object went to a parameter."""
    loaded = PolicySet.load(policies, now=datetime.now(UTC))
    for policy in loaded.policies:
        for lend in policy.lends.values():
            if (lend.interface, lend.member, lend.parameter) == (interface, member, parameter):
                return lend.rule
    return ""


def peer_rule(policies: Path) -> str:
    """Return the rule that says whom the only policy is for."""
    return PolicySet.load(policies, now=datetime.now(UTC)).policies[0].peer_rule


def _table(lines: list[str], start: int) -> Iterator[int]:
    """Yield the number of a line and of those below it, up to the next table; comments and blank lines are left out."""
    yield start
    for at in range(start + 1, len(lines)):
        text = lines[at].strip()
        if text.startswith("["):
            return
        if text and not text.startswith("#"):
            yield at
