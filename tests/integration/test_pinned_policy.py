"""The peer says which policy it holds us to, and we may refuse any but the one that it promised."""

import json

import pytest
from click.testing import CliRunner

from caprpc.cli import main
from caprpc.errors import ConfigurationError, ConnectRefused

OTHER = "sha256:" + "0" * 64


def promised(scene, name="alice"):
    """Return the digest as the operator of the server reads it."""
    directory = str(scene.deployment.server.policies)
    result = CliRunner().invoke(main, ["policy", "check", directory, "--format", "json"])
    return next(one["digest"] for one in json.loads(result.stdout)["policies"] if one["file"] == f"{name}.toml")


def records(file):
    lines = file.read_text(errors="replace").splitlines() if file.suffix == ".jsonl" else []
    return [json.loads(line) for line in lines if line.startswith("{")]


async def digest(face):
    return face.peer.policy_digest


async def names(face):
    return await face(face.peer.roots())


def test_peer_says_which_policy_holds_for_whom(pairing):
    assert pairing.run(digest) == promised(pairing)
    assert pairing.run(digest, side="bob") == promised(pairing, "bob") != promised(pairing)


def test_connection_under_the_pinned_policy_works(pairing):
    assert "service" in pairing.run(names, pin_policy=promised(pairing))


def test_another_policy_than_the_pinned_one_is_refused_before_anything_is_called(pairing):
    with pytest.raises(ConnectRefused, match=f"{promised(pairing)}, and {OTHER} is pinned") as caught:
        pairing.run(names, pin_policy=OTHER)
    assert caught.value.code == "policy"
    files = [file for file in (pairing.directory / "server1").rglob("*") if file.is_file()]
    kinds = {record.get("kind") for file in files for record in records(file)}
    assert "open" in kinds
    assert not kinds & {"call", "deny", "decision", "outcome"}


@pytest.mark.parametrize("pin", ["", "sha256:00", OTHER.upper(), OTHER[7:]])
def test_pin_that_is_no_digest_is_a_mistake_of_ours(pairing, pin):
    with pytest.raises(ConfigurationError, match="64 lower-case hexadecimal digits"):
        pairing.run(names, pin_policy=pin)
