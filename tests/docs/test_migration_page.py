"""Each row of the page for RPyC users has code that runs, and a reason where there is nothing."""

import ast
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import caprpc
from caprpc.testing.deployment import Deployment

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "migrate-from-rpyc.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`]+)`")
PEER = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{}"]\n'
MODULE = "migrated_service"
FEATURES = """
    rpyc.Service exposed_ @rpyc.exposed conn.root ALIASES classpartial on_connect on_disconnect
    allow_public_attrs allow_getattr allow_setattr allow_delattr allow_pickle _rpyc_getattr restricted
    operators isinstance iteration buffiter generators with callbacks by-value obtain deliver async_
    AsyncResult timed BgServingThread bind_threads exceptions ThreadedServer ThreadPoolServer ForkingServer
    OneShotServer GeventServer Unix connect_thread connect_stream connect_subproc ssl_connect authenticators
    ssh_connect zerodeploy classic teleport registry RPyC ping compress counting protocols
""".split()


(SOURCE,) = [text for language, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")) if language == "python"]


def rows():
    """Yield the cells of each row of the page's tables."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("|") and not line.startswith(("|---", "| RPyC |")):
            yield [cell.strip() for cell in line.strip("|").split("|")]


ROWS = list(rows())


@pytest.fixture(scope="module")
def service():
    """The module of the page, importable while the tests run, because interfaces look names up in their module."""
    module = ModuleType(MODULE)
    sys.modules[MODULE] = module
    exec(compile(SOURCE, MODULE, "exec"), module.__dict__)
    yield module
    del sys.modules[MODULE]


@pytest.fixture(scope="module")
def deployed(service, tmp_path_factory):
    """Directories of the server and of the client, with the policies of the page."""
    offer, accept = [text for language, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")) if language == "toml"]
    deployment = Deployment(tmp_path_factory.mktemp("site"))
    interfaces = [service.Ledger, service.Account]
    return (
        deployment.side("server", {"client": PEER.format("client") + offer}, interfaces),
        deployment.side("client", {"server": PEER.format("server") + accept}, interfaces),
    )


@pytest.fixture
def connected(service, deployed, tmp_path):
    """The names that stand for a service of its own for each row: some of them change what others read."""
    serving, dialing = deployed
    logs = tmp_path / "logs"
    running = caprpc.Server({"ledger": service.LedgerOfAcme()}, **serving.directories, audit=logs / "server")
    url = running.listen("127.0.0.1:0")
    with running, caprpc.connect(url, **dialing.directories, audit=logs / "client") as peer:
        yield {"peer": peer, "ledger": peer.root("ledger", service.Ledger), "url": url}


@pytest.fixture
def names(service, deployed, connected, tmp_path, monkeypatch):
    """What the code of a row may use: the names that the page introduces."""
    serving, dialing = deployed
    given = {**service.__dict__, **connected, "directory": tmp_path}
    given["server"] = {**serving.directories, "audit": tmp_path / "server"}
    given["client"] = {**dialing.directories, "audit": tmp_path / "client"}
    served = f"{SOURCE}\n\ndef roots():\n    return {{'ledger': ledger_for}}\n"
    (tmp_path / "child_service.py").write_text(served, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(PAGE.parents[2])]))
    given["command"] = [sys.executable, "-m", "caprpc", "serve", "child_service:roots", "--fd", "{fd}"]
    for option, value in {**serving.directories, "audit": tmp_path / "child"}.items():
        given["command"] += [f"--{option}", str(value)]
    yield given
    if "service" in given:
        given["service"].stop(0.0)


def run(code, names):
    """Run one line; return the value of its last expression."""
    *first, last = ast.parse(code).body
    if not isinstance(last, ast.Expr):
        exec(compile(code, MODULE, "exec"), names)
        return None
    exec(compile(ast.Module(first, []), MODULE, "exec"), names)
    return eval(compile(ast.Expression(last.value), MODULE, "eval"), names)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.sub(r"\W+", "-", row[0]).strip("-"))
def test_each_row_has_code_that_runs_and_a_reason_if_there_is_nothing(row, names):
    assert len(row) == 3, "a row has three cells: RPyC, here, code"
    _, here, code = row
    lines = CODE.findall(code)
    assert here
    assert lines, "no code"
    assert not here.startswith("**Nothing") or re.fullmatch(r"\*\*Nothing\*\*.*[:;,] .{40,}", here), "no reason"
    for line in lines:
        source, _, wanted = line.partition(" # ")
        if wanted.startswith("raises "):
            with pytest.raises(Exception) as caught:
                run(source, names)
            assert type(caught.value).__name__ == wanted.removeprefix("raises ")
        else:
            value = run(source, names)
            assert not wanted or repr(value) == wanted


def test_the_page_takes_every_feature_in_turn():
    said = " ".join(row[0] for row in ROWS)
    assert [feature for feature in FEATURES if feature not in said] == []


@pytest.mark.parametrize(
    ("row", "missing"),
    [
        (["`new`", "**Nothing**: for a reason that is long enough to be one of those that count", ""], "no code"),
        (["`new`", "**Nothing**: no", "`1 + 1 # 2`"], "no reason"),
    ],
    ids=["code", "reason"],
)
def test_a_row_without_code_or_without_reason_would_be_found(row, missing, names):
    with pytest.raises(AssertionError, match=missing):
        test_each_row_has_code_that_runs_and_a_reason_if_there_is_nothing(row, names)
