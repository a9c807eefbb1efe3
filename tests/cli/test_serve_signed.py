"""``caprpc serve --signers``: a server that is told so uses no policies but those that enough people have signed."""

import importlib
import json
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

import caprpc
from caprpc.cli import main
from tests.cli.test_serve import DRIVERS, Process, connect, words

HERE = Path(__file__).resolve().parent


@pytest.fixture
def shop(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("shop_service")


def run(*arguments):
    return CliRunner().invoke(main, [str(word) for word in arguments], prog_name="caprpc")


class Site:
    """A shop, two people who may sign its policies, both of whom must, and the file that says so."""

    def __init__(self, path, shop):
        shop.deploy(path)
        self.path = path
        self.policies = path / "server" / "policies"
        self.signers = path / "signers.toml"
        keys = [run("policy", "keygen", f"{name}.example", "--write", path / name).stdout.strip() for name in "ab"]
        self.signers.write_text(
            'caprpc = 1\nkind = "signers"\nthreshold = 2\nstate = "state/accepted"\n' + f"keys = {json.dumps(keys)}\n"
        )
        self.signers.chmod(0o600)

    def sign(self, *names):
        for name in names:
            assert run("policy", "sign", self.policies, "--key", self.path / name).exit_code == 0

    def rewrite(self, file, old, new):
        text = (self.policies / file).read_text(encoding="utf-8")
        assert old in text
        (self.policies / file).write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.fixture
def site(tmp_path, shop):
    return Site(tmp_path, shop)


@DRIVERS
@pytest.mark.parametrize(
    ("people", "says"), [("", "the policies are not signed"), ("a", "signed by 1 of 2 needed (a.example)")]
)
def test_it_does_not_serve_what_too_few_have_signed(site, driver, people, says, repository_root):
    site.sign(*people)
    process = Process(repository_root, *words(site.path, "--signers", site.signers, *driver))
    try:
        assert process.said == ""
        assert process.popen.wait(15) == 78
        assert says in process.popen.stderr.read()
    finally:
        process.popen.kill()
        process.popen.communicate()


@DRIVERS
def test_it_takes_signed_changes_and_no_others(site, shop, driver, repository_root):
    site.sign("a", "b")
    process = Process(repository_root, *words(site.path, "--signers", site.signers, *driver))
    try:
        with connect(site.path, process) as peer:
            remote = peer.root("shop", shop.Shop)
            assert remote.add(1, 2) == 3
            site.rewrite("caprpc.toml", "version = 1", "version = 2")
            site.rewrite("alice.toml", '"add", ', "")
            site.sign("a")
            process.popen.send_signal(signal.SIGHUP)
            assert "signed by 1 of 2 needed (a.example)" in process.errors_until("hint")
            assert remote.add(1, 2) == 3
            site.sign("b")
            process.popen.send_signal(signal.SIGHUP)
            process.errors_until("reloaded: policies version 2")
            with pytest.raises(caprpc.Denied):
                remote.add(1, 2)
        assert process.end()[0] == 0
    finally:
        process.popen.kill()
        process.popen.communicate()
