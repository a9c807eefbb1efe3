"""The reference of the policy language and the code say the same."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from caprpc import ids
from caprpc.errors import ERROR_CODES
from caprpc.policy import REASONS, MemberLimit, Refused
from caprpc.policy.listed import FLAGS, LISTS

DOCS = Path(__file__).resolve().parents[2] / "docs"
REFERENCE = (DOCS / "reference" / "policy.md").read_text()
HOW_TO = (DOCS / "how-to" / "write-a-policy.md").read_text()


def blocks(text: str) -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def contracts(directory):
    """Add the interface that the page has and the example does not."""
    members = "".join(
        f'[[interface.BalanceSink.member]]\noperation = "call"\nname = "{name}"\neffect = "write"\n'
        for name in ("update", "closed")
    )
    recorded = (
        (directory.path / "contracts.toml").read_text().replace('reference = "Sink"', 'reference = "BalanceSink"')
    )
    directory.write("contracts.toml", recorded + "[interface.BalanceSink]\n" + members)


def test_policy_of_the_reference_loads(directory, contracts):
    (policy,) = [block for block in blocks(REFERENCE) if 'kind   = "policy"' in block]
    directory.write("org-b.toml", policy)
    assert directory.load().policies[0].name == "org-b-feed"


def test_index_of_the_reference_loads(directory):
    (index,) = [block for block in blocks(REFERENCE) if "[[never]]" in block]
    directory.write("caprpc.toml", index)
    assert directory.load().version == 7


def test_lend_of_the_reference_has_every_key(directory):
    (lend,) = [block for block in blocks(REFERENCE) if block.startswith("[[lend]]")]
    replaced = lend.replace("LineCounter.line_counter", "Sink.update").replace("fileobj", "line")
    directory.write("org-b.toml", (directory.path / "org-b.toml").read_text() + replaced)
    ((_, message, _),) = directory.problems()
    assert "takes no reference" in message


def test_policy_of_the_how_to_loads(directory):
    (policy,) = [block for block in blocks(HOW_TO) if 'kind   = "policy"' in block]
    directory.write("org-b.toml", policy)
    assert directory.load().warnings == ()


@pytest.mark.parametrize(
    "word", [*sorted(LISTS), *sorted(FLAGS), *(field.name for field in fields(MemberLimit)), *sorted(REASONS)]
)
def test_reference_has_every_word(word):
    assert re.search(rf"`{word}\b", REFERENCE)


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_reference_says_what_the_peer_sees(reason):
    refused = Refused(reason, rule="", facet="", operation=ids.OP_CALL, member="", policy="")
    assert refused.code in ERROR_CODES
    (row,) = [
        line
        for line in REFERENCE.splitlines()
        if line.startswith("|") and f"`{reason}`" in line.split("|")[1] and line.split("|")[3].strip().startswith("`")
    ]
    assert row.split("|")[3].strip() == f"`{refused.code}`"
