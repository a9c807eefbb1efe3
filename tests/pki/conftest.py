"""A private CA on disk, and the command line that makes it."""

import pytest
from click.testing import CliRunner

from caprpc.pki.authority import PrivateCa


@pytest.fixture
def ca(tmp_path):
    return PrivateCa.create(tmp_path / "pki", trust_domain="acme.example")


@pytest.fixture
def partner(tmp_path):
    return PrivateCa.create(tmp_path / "org-b", trust_domain="org-b.example", key_kind="ed25519")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run ``caprpc pki …`` in an empty directory; return exit code, output and messages."""
    from caprpc.cli import main

    monkeypatch.chdir(tmp_path)

    def invoke(*words):
        result = CliRunner().invoke(main, ["pki", *map(str, words)])
        return result.exit_code, result.stdout, result.stderr

    return invoke
