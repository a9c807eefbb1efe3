"""The commands of the how-to pages run as they are written, from a CA to the comparison of two audit logs."""

import re
import subprocess
import sys
import time

import pytest

import caprpc
from caprpc import Denied
from tests.docs.howto import Terminal, blocks, write

INTERFACES = '''"""What the shop offers."""

from collections.abc import Iterator
from decimal import Decimal

from caprpc import Interface, method


class Ledger(Interface):
    @method(effect="read")
    def balance(self, account: str) -> Decimal: ...

    @method(effect="write")
    def post(self, account: str, amount: int, currency: str) -> int: ...


class LedgerAdmin(Interface):
    @method(effect="admin")
    def close_account(self, account: str) -> None: ...
'''
SERVICE = """from decimal import Decimal

from shop.interfaces import Ledger, LedgerAdmin


class Book(Ledger, LedgerAdmin):
    def balance(self, account):
        return Decimal(12)

    def post(self, account, amount, currency):
        return 1

    def close_account(self, account):
        pass


def roots():
    book = Book()
    return {"ledger": book, "admin": book}
"""
ADMIN = """caprpc = 1
kind = "policy"
name = "ops-admin"
owner = "ops@acme.example"
reason = "OPS-12: account administration"
[peer]
ca = ["@ACME@"]
spiffe = ["spiffe://acme.example/alice"]
[roots]
admin = "Administration"
[offer.Administration]
interface = "LedgerAdmin"
call = ["close_account"]
[audit]
arguments = "digest"
"""
NARROWED = """[offer.FeedLedger.args.post]
amount = { min = 0.01, max = 10_000 }
[audit]
arguments = "digest"
"""
PARTNER = """caprpc = 1
kind = "policy"
name = "acme"
owner = "feed@org-b.example"
reason = "the feed"
[peer]
ca = ["@ACME@"]
spiffe = ["spiffe://acme.example/server"]
[accept.Ledger]
call = ["balance", "post"]
[accept.LedgerAdmin]
call = ["close_account"]
"""
PARTNER_INDEX = """caprpc = 1
kind = "directory"
version = 1
policies = ["acme.toml"]
contracts = "contracts.toml"
audit = "../../from-org-b/audit"
"""


class Site:
    """A service and a partner, made by the commands of the pages."""

    def __init__(self, directory):
        self.directory = directory
        self.keys = Terminal(directory, "run-a-private-ca", {" /etc/feed/": " etc/feed/"})
        self.policies = Terminal(directory, "write-a-policy")
        self.fingerprints = {}
        self.said = {}
        """What the commands of a page wrote."""

    def make_keys(self):
        """Run ``run-a-private-ca``, up to the revocation; the partner has a CA of its own."""
        run, said = self.keys, self.said
        (self.directory / "etc" / "feed").mkdir(parents=True, mode=0o700)
        said["init"] = run("caprpc pki init pki --trust-domain acme.example")
        run("caprpc pki issue pki server --role server --dns rpc.acme.example")
        run("caprpc pki issue pki alice --role client")
        run("caprpc pki issue pki feed --role client --spiffe-path /treasury/feed --out /etc/feed/identity")
        partner = Terminal(self.directory)
        said["partner"] = partner("caprpc pki init org-b --trust-domain org-b.example")
        partner("caprpc pki issue org-b feed --role client --spiffe-path /treasury/feed")
        partner("caprpc pki trust org-b/feed pki/ca.pem pki/crl.pem")
        for name in ("ca", "crl"):
            (self.directory / f"org-b-{name}.pem").write_bytes((self.directory / "org-b" / f"{name}.pem").read_bytes())
        said["trust"] = run("caprpc pki trust pki/server org-b-ca.pem org-b-crl.pem")
        self.fingerprints = {
            "@ACME@": re.search("sha256:[0-9a-f]{64}", said["init"]).group(),
            "@ORG_B@": re.search("sha256:[0-9a-f]{64}", said["partner"]).group(),
        }

    def make_policies(self):
        """Run ``write-a-policy``."""
        run, said, server = self.policies, self.said, self.directory / "policies" / "server"
        write(self.directory / "shop" / "__init__.py", "")
        write(self.directory / "shop" / "interfaces.py", INTERFACES)
        write(self.directory / "shop" / "service.py", SERVICE)
        index, _, policy, never = blocks("write-a-policy", "toml")
        run("mkdir -m 755 -p policies/server")
        said["contracts"] = run("caprpc policy contracts shop.interfaces --write policies/server/contracts.toml")
        run("caprpc pki show partner-ca.pem", **{"partner-ca.pem": "org-b-ca.pem"})
        said["schema"] = run("caprpc policy schema --kind policy > caprpc-policy.schema.json")
        policy = policy.replace("sha256:" + "2" * 64, self.fingerprints["@ORG_B@"])
        write(server / "caprpc.toml", index)
        write(server / "org-b.toml", policy.replace('"balance", "post"', '"ballance", "post"'), 0o620)
        run("chmod -R go-w policies/server")
        check = "caprpc policy check policies/server --contracts shop.interfaces"
        said["mistake"] = run(check, 3)
        write(server / "org-b.toml", policy + NARROWED)
        write(server / "ops-admin.toml", ADMIN.replace("@ACME@", self.fingerprints["@ACME@"]))
        write(server / "caprpc.toml", index.replace('["org-b.toml"]', '["org-b.toml", "ops-admin.toml"]') + never)
        said["check"] = run(check)
        partner = self.directory / "org-b" / "policies"
        write(partner / "caprpc.toml", PARTNER_INDEX)
        write(partner / "acme.toml", PARTNER.replace("@ACME@", self.fingerprints["@ACME@"]))
        write(partner / "contracts.toml", (server / "contracts.toml").read_text(encoding="utf-8"))

    def serve_and_call(self):
        """Let the partner do what it may, and once what it may not."""
        from shop.interfaces import Ledger, LedgerAdmin
        from shop.service import roots

        ours = {"identity": self.directory / "pki" / "server", "policies": self.directory / "policies" / "server"}
        theirs = {"identity": self.directory / "org-b" / "feed", "policies": self.directory / "org-b" / "policies"}
        server = caprpc.Server(roots(), **ours)
        address = server.listen("127.0.0.1:0")
        with server, caprpc.connect(address, **theirs) as peer:
            ledger = peer.root("ledger", Ledger)
            ledger.balance("A")
            ledger.post("A", 10_000, "EUR")
            with pytest.raises(Denied) as refused:
                peer.root("admin", LedgerAdmin)
            self.reference = refused.value.reference
            # Each side cosigns the other's checkpoints, of which there is one a second.
            log, until = self.directory / "audit" / "server", time.monotonic() + 30
            while not (list(log.glob("*.cosigned")) and list(log.glob("*.witness"))):
                assert time.monotonic() < until, "nothing was cosigned"
                time.sleep(0.02)
        text = Terminal(self.directory)("caprpc audit query audit/server --member post --json")
        self.posted = next(line for line in text.splitlines() if '"post"' in line)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site after the partner's visit; modules of its directory are forgotten at the end."""
    path = list(sys.path)
    made = Site(tmp_path_factory.mktemp("site"))
    sys.path.insert(0, str(made.directory))
    try:
        made.make_keys()
        made.make_policies()
        made.serve_and_call()
        yield made
    finally:
        sys.path[:] = path
        for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
            del sys.modules[name]


def test_run_a_private_ca(site):
    run, said = site.keys, site.said
    assert said["init"].splitlines()[0] == "Made a CA for acme.example in pki."
    assert "pki/server now accepts certificates of org-b-ca.pem." in said["trust"]
    listed = run("caprpc pki list pki")
    assert re.search(r"^alice +client +valid .* spiffe://acme.example/alice ", listed, re.MULTILINE)
    assert "spiffe://acme.example/server" in run("caprpc pki show pki/server --format json")
    revoked = run("caprpc pki revoke pki alice")
    assert revoked.startswith("Revoked alice (spiffe://acme.example/alice), serial ")
    assert "revoked" in run("caprpc pki list pki")
    assert not run.left()


def test_write_a_policy(site):
    assert site.said["contracts"] == "policies/server/contracts.toml: written\n"
    (wanted,) = [block for block in blocks("write-a-policy", "console") if "ballance" in block]
    assert site.said["mistake"].splitlines() == wanted.splitlines()[1:]
    assert '"$schema"' in (site.directory / "caprpc-policy.schema.json").read_text(encoding="utf-8")
    assert not site.policies.left()


def test_read_the_audit_log(site):
    log = site.directory / "audit" / "server"
    run = Terminal(site.directory, "read-the-audit-log", {"R-7KQ2M9XW4HTA": site.reference})
    (segment,) = log.glob("spiffe-org-b-*.000001.jsonl")
    lines = segment.read_text(encoding="utf-8").splitlines()
    place = f"{segment.name}:{lines.index(site.posted) + 1}"
    explained = run("caprpc explain R-7KQ2M9XW4HTA --audit audit/server")
    (wanted,) = [block for block in blocks("read-the-audit-log", "console") if "it means" in block]
    labels = re.findall(r"^  (\w+(?: \w+)?)  +", wanted, re.MULTILINE)
    assert set(labels) <= {*re.findall(r"^  (\w+(?: \w+)?)  +", explained, re.MULTILINE)}
    assert "not-granted" in explained
    assert "post" in run("caprpc audit show audit/server --peer org-b.example --since 1h")
    assert site.reference in run("caprpc audit show audit/server --decision deny --last 20")
    assert run("caprpc audit show audit/server --kind reject") == ""
    assert "hmac:" in run("caprpc audit show audit/server --json --member post | jq .args")
    assert re.search(r"^intact: \d+ records in \d relations$", run("caprpc audit verify audit/server"), re.MULTILINE)
    keys = run("caprpc audit verify --json audit/server | jq -r '.relations[].keys[]' > server.vkeys")
    assert keys.count("+") >= 2
    assert "intact" in run("caprpc audit verify audit/server --key server.vkeys")
    assert site.reference in run("caprpc audit query audit/server --reference R-7KQ2M9XW4HTA")
    of_record = {"spiffe-org-b-example-….000001.jsonl:812": place}
    run("caprpc audit prove audit/server/spiffe-org-b-example-….000001.jsonl:812 > r812.tlog-proof", **of_record)
    run("caprpc audit check-proof r812.tlog-proof --key server.vkeys")
    of_record = {"audit/server/….000001.jsonl:812": f"audit/server/{place}"}
    opened = run(
        "caprpc audit open audit/server/….000001.jsonl:812 amount --key audit/server/redact.key", **of_record
    ).strip()
    of_record = {"….000001.jsonl:812": f"audit/server/{place}", "5b1c…": opened}
    assert run("caprpc audit open ….000001.jsonl:812 amount 10000 --key 5b1c…", **of_record) == (
        "yes: amount was 10000 (JSON int)\n"
    )
    # Without -f, which ends with Ctrl-C alone.
    assert site.reference in run("caprpc audit tail -f audit/server --decision deny", **{" -f": ""})
    run("caprpc audit export --to ocsf audit/server > events.jsonl")
    assert "intact" in run("caprpc audit verify --archived audit/server")
    assert not run.left()


def test_the_audit_log_from_a_program(site, monkeypatch, capsys):
    monkeypatch.chdir(site.directory)
    (code,) = blocks("read-the-audit-log", "python")
    exec(compile(code, "read-the-audit-log", "exec"), {})
    assert site.reference in capsys.readouterr().out


def git(site, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@acme.example", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, *words], cwd=site.directory, check=True, capture_output=True)


def test_review_a_policy_change(site):
    run = Terminal(site.directory, "review-a-policy-change")
    policy = site.directory / "policies" / "server" / "org-b.toml"
    git(site, "init")
    git(site, "add", "policies")
    git(site, "commit", "-m", "policies")
    git(site, "tag", "v1")
    before = policy.read_text(encoding="utf-8")
    write(policy, before.replace("max = 10_000", "max = 20_000"))
    run("caprpc policy check policies/server")
    changed = run("caprpc policy diff --git main policies/server", 1)
    assert "wider    Ledger.post: arguments, through root ledger: amount { min = 0.01, max = 10000 } -> " in changed
    assert changed.splitlines()[-1] == "1 wider; somebody may do more than before"
    run(
        "caprpc policy can-i policies/server --peer org-b-feed Ledger.post account=A amount=15000 currency=EUR",
    )
    reach = "caprpc policy reach policies/server --peer org-b-feed LedgerAdmin"
    assert run(reach, 1) == "LedgerAdmin: unreachable for org-b-feed\n"
    unused = run("caprpc policy unused policies/server --log audit/server --since 2026-10-01", 1)
    assert "policy ops-admin: its peer has done nothing" in unused
    run("caprpc policy learn policies/server --log audit/server --write policies/draft")
    draft = "".join(path.read_text(encoding="utf-8") for path in (site.directory / "policies" / "draft").glob("*.toml"))
    assert "post" in draft
    assert "Administration" not in draft
    subprocess.run(["cp", "-r", "policies/server", "policies/candidate"], cwd=site.directory, check=True)
    candidate = site.directory / "policies" / "candidate" / "org-b.toml"
    write(candidate, before.replace("max = 10_000", "max = 9_000"))
    assert "post" in run("caprpc policy shadow policies/candidate --log audit/server", 1)
    run("caprpc policy report policies/server --html report.html --git v1 --log audit/server")
    assert "<script" not in (site.directory / "report.html").read_text(encoding="utf-8")
    write(policy, before)
    assert not run.left()


def test_witness_and_reconcile(site):
    run, keys = Terminal(site.directory, "witness-and-reconcile"), Terminal(site.directory)
    for line in ("jq -r .note audit/server/*.cosigned", "jq -r .note audit/server/*.witness"):
        assert "\n\n\u2014 " in run(line)
    run("caprpc audit query audit/server --kind checkpoint", None)
    keys("caprpc audit verify --json from-org-b/audit | jq -r '.relations[].keys[]' > org-b.vkeys")
    assert "intact" in run("caprpc audit verify from-org-b/audit --key org-b.vkeys")
    said = run("caprpc audit reconcile audit/server from-org-b/audit")
    assert re.search(r"^\d+ connections? and \d+ calls in both logs, 0 differences, 0 undecided$", said, re.MULTILINE)
    assert not run.left()


def test_run_a_server(site):
    run = Terminal(site.directory, "run-a-server")
    run.instead = {"/etc/ledger/policies": "policies/server", "/etc/ledger/identity": "pki/server"}
    run.instead |= {"/var/log/ledger-audit": "audit/server", "R-7KQ2M9XW4HTA": site.reference}
    run("caprpc policy check /etc/ledger/policies")
    run("caprpc pki show /etc/ledger/identity")
    run("caprpc policy check /etc/ledger/policies && systemctl reload ledger", **{" && systemctl reload ledger": ""})
    run("caprpc audit verify /var/log/ledger-audit")
    run("caprpc explain R-7KQ2M9XW4HTA --audit /var/log/ledger-audit")
    # These two need a server that runs: test_howto_services.py.
    assert all("/run/ledger/status" in line for line in run.left())
