"""The example policies at work: each peer of the ledger does what its policy says, over both servers, and no more."""

import asyncio
import importlib.util
import json
import shutil
import threading
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner

import caprpc
import caprpc.aio
from caprpc.cli import main
from caprpc.testing.pki import ThrowawayPki

ROOT = Path(__file__).parents[2]
PLACEHOLDER = "sha256:" + "0" * 64
PEERS = {
    "server": "spiffe://acme.example/ledger",
    "reader": "spiffe://readers.example/feed",
    "partner": "spiffe://org-b.example/treasury",
    "ops": "spiffe://acme.example/ops/console",
}


def load_example(name: str):
    specification = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "docs" / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


ledger = load_example("ledger")


class Site:
    """Identities under one CA, and copies of the example policies with its fingerprint filled in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        pki = ThrowawayPki()
        self.ca = pki.ca("Example")
        for name, spiffe in PEERS.items():
            pki.write_identity(path / "pki" / name, self.ca.leaf(spiffe, dns_names=("localhost",)), trust=[self.ca])

    def policies(self, name: str) -> Path:
        target = self.path / "policies" / name
        if not target.exists():
            target.mkdir(parents=True, mode=0o700)
            for file in (ROOT / "policies" / name).iterdir():
                copy = target / file.name
                copy.write_text(file.read_text().replace(PLACEHOLDER, self.ca.fingerprint))
                copy.chmod(0o600)
        return target

    def client(self, peer: str, policies: Path) -> dict[str, Path]:
        return {"identity": self.path / "pki" / peer, "policies": policies, "audit": self.path / "audit" / peer}

    def visitor(self, peer: str) -> dict[str, Path]:
        """Return what a peer without an example policy of its own uses: it asks for everything there is."""
        target = self.path / "policies" / peer
        target.mkdir(parents=True, mode=0o700)
        (target / "caprpc.toml").write_text(
            'caprpc = 1\nkind = "directory"\nversion = 1\npolicies = ["l.toml"]\ncontracts = "contracts.toml"\n'
            'audit = "../../audit"\n'
        )
        shutil.copy(ROOT / "policies" / "ledger-server" / "contracts.toml", target)
        (target / "l.toml").write_text(
            f'caprpc = 1\nkind = "policy"\nname = "l"\n[peer]\nca = ["{self.ca.fingerprint}"]\n'
            f'spiffe = ["{PEERS["server"]}"]\n[accept.Ledger]\ncall = ["balance", "history", "post"]\n'
            'get = ["currency"]\niterate = true\n[accept.LedgerAdmin]\ncall = ["open_account", "close_account"]\n'
        )
        for file in target.iterdir():
            file.chmod(0o600)
        return self.client(peer, target)


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


@pytest.fixture(params=["blocking", "aio"])
def url(request, site):
    """The ledger, served under the example policies."""
    sides = {
        "identity": site.path / "pki" / "server",
        "policies": site.policies("ledger-server"),
        "audit": site.path / "audit" / "server",
    }
    if request.param == "blocking":
        server = caprpc.Server(ledger.roots(), **sides)
        address = server.listen("127.0.0.1:0")
        with server:
            yield address
        return
    found, stop = [], threading.Event()
    ready = threading.Event()

    async def serve():
        server = caprpc.aio.Server(ledger.roots(), **sides)
        found.append(server.listen("127.0.0.1:0"))
        async with server:
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield found[0]
    finally:
        stop.set()
        thread.join()


def records(site):
    lines = []
    for path in sorted((site.path / "audit" / "server").rglob("*.jsonl")):
        lines += [json.loads(line) for line in path.read_text().splitlines()]
    return lines


def test_a_public_reader_reads_what_is_published_and_nothing_else(site, url):
    with caprpc.connect(url, **site.visitor("reader")) as peer:
        books = peer.root("ledger", ledger.Ledger)
        assert books.balance("alpha") == Decimal(0)
        assert books.currency == "EUR"
        assert list(books.history("beta")) == []
        with pytest.raises(caprpc.RemoteError) as caught:
            books.balance("gamma")
        assert caught.value.code == "invalid-arguments"
        with pytest.raises(caprpc.Denied):
            books.post("beta", Decimal(5), "X")
        with pytest.raises(caprpc.Denied):
            peer.root("admin", ledger.LedgerAdmin)


def test_a_partner_posts_subscribes_and_loads_a_file_that_stays_at_home(site, url, tmp_path):
    seen, steps = [], []

    class Sink(ledger.BalanceSink):
        def update(self, account: str, balance: Decimal) -> None:
            seen.append((account, balance))

    file = tmp_path / "postings.txt"
    file.write_text("beta 1.50 A-1\nbeta 2.50 A-2\n")
    with caprpc.connect(url, **site.client("partner", site.policies("ledger-partner"))) as peer:
        books = peer.root("ledger", ledger.Ledger)
        subscription = books.subscribe(Sink())
        assert books.post("beta", Decimal("10.25"), "INV-1") == Decimal("10.25")
        assert seen == [("beta", Decimal("10.25"))]
        with file.open(encoding="utf-8") as postings:
            assert books.load(postings, steps.append) == 2
        assert steps == [1, 2]
        subscription.cancel()
        assert books.post("beta", Decimal(1), "INV-2") == Decimal("15.25")
        assert len(seen) == 1
        for amount, reference, account in ((10_001, "INV-3", "beta"), (1, "in v", "beta"), (1, "INV-3", "alpha")):
            with pytest.raises(caprpc.RemoteError) as caught:
                books.post(account, Decimal(amount), reference)
            assert caught.value.code == "invalid-arguments"
    kept = [record["args"] for record in records(site) if record.get("member") == "post" and "args" in record]
    assert {"account": "beta", "amount": "10.25", "reference": "INV-1"} in kept


def test_operators_administer_and_do_not_post(site, url):
    with caprpc.connect(url, **site.visitor("ops")) as peer:
        admin, books = peer.root("admin", ledger.LedgerAdmin), peer.root("ledger", ledger.Ledger)
        admin.open_account("gamma-2")
        assert books.balance("gamma-2") == Decimal(0)
        admin.close_account("gamma-2", "the approval code")
        with pytest.raises(ledger.UnknownAccount):
            books.balance("gamma-2")
        with pytest.raises(caprpc.Denied):
            books.post("alpha", Decimal(1), "X")
    assert "the approval code" not in json.dumps(records(site))


@pytest.mark.parametrize("name", ["ledger-server", "ledger-partner", "demo-server", "demo-client"])
def test_example_policies_load(site, name):
    assert CliRunner().invoke(main, ["policy", "check", str(site.policies(name))]).exit_code == 0


def test_the_ledger_example_is_clean_and_no_grant_of_it_is_untested(site, tmp_path):
    directory = str(shutil.copytree(site.policies("ledger-server"), tmp_path / "linted"))
    for number, file in enumerate(sorted(Path(directory).glob("*.toml"))):
        # The organizations of the example have a CA each.
        file.write_text(file.read_text().replace(site.ca.fingerprint, f"sha256:{number:064x}"))
    assert CliRunner().invoke(main, ["policy", "lint", directory]).stdout.endswith("0 findings\n")
    tested = CliRunner().invoke(main, ["policy", "test", directory, "--coverage"])
    assert tested.exit_code == 0, tested.stdout


def test_the_contracts_of_the_example_are_those_of_its_code():
    from caprpc.interface import interface_closure
    from caprpc.policy import contracts_to_toml

    declared = contracts_to_toml(interface_closure([ledger.Ledger, ledger.LedgerAdmin]))
    for name in ("ledger-server", "ledger-partner"):
        assert (ROOT / "policies" / name / "contracts.toml").read_text() == declared
