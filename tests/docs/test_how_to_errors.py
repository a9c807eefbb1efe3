"""The examples of the guide to errors run, over sockets, with the policies of the page."""

import re

import caprpc
from caprpc.testing.deployment import Deployment

PEER = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{}"]\n'


def test_errors(repository, tmp_path):
    text = (repository / "docs" / "how-to" / "errors.md").read_text(encoding="utf-8")
    declare, implement, *examples = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    offer, accept = re.findall(r"^```toml\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    names = {"caprpc": caprpc, "__name__": "how_to"}
    for block in (declare, implement):
        exec(compile(block, "how-to", "exec"), names)
    deployment = Deployment(tmp_path)
    server = deployment.side("server", {"client": PEER.format("client") + offer}, [names["Ledger"]])
    client = deployment.side("client", {"server": PEER.format("server") + accept}, [names["Ledger"]])
    serving = caprpc.Server({"ledger": names["LedgerOfAcme"]()}, **server.directories, audit=tmp_path / "server-audit")
    address = serving.listen("127.0.0.1:0")
    with serving, caprpc.connect(address, **client.directories, audit=tmp_path / "client-audit") as peer:
        names["peer"] = peer
        for block in examples:
            exec(compile(block, "how-to", "exec"), names)
    assert names["text"] == "no account B"
    assert "peer's side" in names["notes"][0]
    assert isinstance(names["refused"], TypeError)
    assert names["stopped"] == "seen enough"
    assert names["after"]
