"""The examples of the how-to pages run as they are written."""

import asyncio
import concurrent.futures
import re
import textwrap
from pathlib import Path

import pytest

import caprpc
import caprpc.aio

PAGES = ("pipeline-and-futures", "deadlines-and-cancellation")
HOW_TO = Path(__file__).resolve().parents[3] / "docs" / "how-to"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks():
    for page in PAGES:
        text = (HOW_TO / f"{page}.md").read_text(encoding="utf-8")
        for number, block in enumerate(BLOCK.findall(text)):
            yield pytest.param(block, id=f"{page}-{number}")


@pytest.mark.parametrize("block", list(blocks()))
def test_example_runs(block, make_ledgers):
    is_async = "await " in block or "caprpc.aio" in block
    ledgers = make_ledgers("blocking", "aio" if is_async else "blocking")

    async def scenario(face, ledger):
        names = {"caprpc": caprpc, "asyncio": asyncio, "concurrent": concurrent, "ledger": ledger, "peer": face.peer}
        if not is_async:
            exec(block, names)
            return
        exec(f"async def example():\n{textwrap.indent(block, '    ')}", names)
        await names["example"]()

    ledgers.run(scenario)
