"""The list of who is out: read apart, and when it cannot be read, everybody is out."""

import os

import pytest

from caprpc.policy import RevokedFile
from caprpc.policy.revoked import MAX_BYTES
from tests.policy.conftest import FEED

KEY = "sha256:" + "a" * 64


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "REVOKED"
    path.write_text("# nobody yet\n")
    path.chmod(0o600)
    return path


def is_out(revoked, principal=FEED, key=KEY, policy="org-b-feed"):
    return revoked.current.refuses(principal, key, policy)


@pytest.mark.parametrize("word", [FEED, KEY, "org-b-feed"])
def test_a_name_a_key_and_a_policy_can_be_revoked(file, word):
    file.write_text(f"# SEC-3\n  {word}  # left the company\n\n")
    revoked = RevokedFile(file)
    assert word in is_out(revoked)
    assert is_out(revoked, "spiffe://other.example/x", "sha256:" + "b" * 64, "other") == ""


def test_without_a_path_nobody_is_out():
    assert is_out(RevokedFile(None)) == ""


def test_a_change_is_seen_at_the_next_look(file):
    revoked = RevokedFile(file)
    assert (revoked.refresh(), is_out(revoked)) == (False, "")
    replacement = file.with_name("new")
    replacement.write_text(f"{FEED}\n")
    replacement.chmod(0o600)
    os.replace(replacement, file)
    assert revoked.refresh()
    assert is_out(revoked)
    assert not revoked.refresh()


def _remove(file):
    file.unlink()


def _link(file):
    file.rename(file.with_name("other"))
    file.symlink_to("other")


def _open_to_all(file):
    file.chmod(0o666)


def _directory(file):
    file.unlink()
    file.mkdir()


def _pipe(file):
    file.unlink()
    os.mkfifo(file)


def _write(text):
    return lambda file: file.write_bytes(text)


@pytest.mark.parametrize(
    "damage",
    [
        *(_remove, _link, _open_to_all, _directory, _pipe),
        _write(b"spiffe://org-b.example/*\n"),
        _write(b"spiffe://ORG-B.example/x\n"),
        _write(b"sha256:abc\n"),
        _write("spiffe://org-b.example/f\u0435ed\n".encode()),
        _write(b"two words\n"),
        _write(f"{FEED}".encode()),
        _write(b"x\n" * (2 * 1024 * 1024 + 1)),
    ],
)
def test_a_list_that_cannot_be_read_lets_nobody_in_until_it_is_mended(file, damage):
    revoked = RevokedFile(file)
    damage(file)
    assert revoked.refresh()
    assert "nobody is let in" in is_out(revoked, "spiffe://other.example/x", "sha256:" + "b" * 64, "other")
    if file.is_dir():
        file.rmdir()
    else:
        file.unlink(missing_ok=True)
    file.write_text("# mended\n")
    file.chmod(0o600)
    assert revoked.refresh()
    assert is_out(revoked) == ""


def test_a_fault_names_its_line(file):
    file.write_text(f"{FEED}\n\nnot a word\n")
    assert f"{file}:3 " in is_out(RevokedFile(file))


def test_the_list_cannot_lie_among_the_policies(directory):
    directory.replace('audit = "../audit"', 'audit = "../audit"\nrevoked = "REVOKED"', "caprpc.toml")
    assert any(
        "the list of the revoked cannot lie in the policy directory" in text for _, text, _ in directory.problems()
    )


def test_a_directory_that_names_a_list_loads_without_it(directory):
    directory.replace('audit = "../audit"', 'audit = "../audit"\nrevoked = "../state/REVOKED"', "caprpc.toml")
    assert directory.load().revoked_file == directory.path.parent / "state" / "REVOKED"


def test_a_list_of_the_largest_size_is_read_and_no_larger_one(file):
    file.write_bytes(b"#" * (MAX_BYTES - 1) + b"\n")
    assert is_out(RevokedFile(file)) == ""
    file.write_bytes(b"#" * MAX_BYTES + b"\n")
    assert f"more than {MAX_BYTES} bytes" in is_out(RevokedFile(file))


def test_a_list_that_has_not_changed_is_not_read_again(file, monkeypatch):
    revoked = RevokedFile(file)
    read = []
    monkeypatch.setattr("caprpc.policy.revoked._read", lambda path: read.append(path) or revoked.current)
    assert not revoked.refresh()
    assert read == []
    file.write_text("# somebody looked\n")
    os.utime(file, (1, 1))
    assert not revoked.refresh()
    assert read == [file]


def test_a_list_that_cannot_be_opened_is_named_with_the_reason(file):
    file.unlink()
    assert "cannot be opened: No such file or directory" in is_out(RevokedFile(file))
