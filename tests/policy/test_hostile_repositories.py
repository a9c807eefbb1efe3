"""``--git`` and ``--last-signed`` in a repository made by somebody who wants a widening to go unnoticed."""

import hashlib
import os
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from caprpc.policy.source import MAX_FILE_BYTES

IDENTITY = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "init.defaultBranch=main")


class Repository:
    """A repository with a policy directory in it, whose objects can be written by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)
        self.git("init", "-q")

    def git(self, *words: str) -> str:
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        command = ["git", "-C", str(self.path), *IDENTITY, *words]
        return subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout

    def commit(self, tag: str) -> None:
        self.git("add", ".")
        self.git("commit", "-qm", tag)
        self.git("tag", tag)

    def write(self, kind: str, data: bytes) -> str:
        """Write an object as it is: git itself makes no tree with such names, and takes it from others."""
        raw = f"{kind} {len(data)}\0".encode() + data
        name = hashlib.sha1(raw, usedforsecurity=False).hexdigest()
        place = self.path / ".git" / "objects" / name[:2]
        place.mkdir(exist_ok=True)
        if not (place / name[2:]).exists():
            (place / name[2:]).write_bytes(zlib.compress(raw, 1))
        return name

    def tag_with(self, tag: str, name: str, blob: str) -> None:
        """Tag a commit in which the policy directory of ``one`` has one more entry."""
        entries = [line.split() for line in self.git("ls-tree", "one:policies").splitlines()]
        files = sorted([*((file, blob_id) for _, _, blob_id, file in entries), (name, blob)])
        inner = b"".join(b"100644 " + os.fsencode(file) + b"\0" + bytes.fromhex(one) for file, one in files)
        outer = b"40000 policies\0" + bytes.fromhex(self.write("tree", inner))
        self.git("tag", tag, self.git("commit-tree", self.write("tree", outer), "-m", tag).strip())


@pytest.fixture
def repository(directory):
    made = Repository(directory.path.parent)
    made.commit("one")
    return made


@pytest.mark.parametrize("name", ["{outside}/written", "../../written", "..", "caprpc.toml", "sub/written"])
def test_a_tree_with_names_that_lead_elsewhere_is_refused(run, directory, repository, tmp_path, monkeypatch, name):
    outside = tmp_path / "outside"
    (outside / "a" / "b").mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(outside / "a" / "b"))
    repository.tag_with("hostile", name.format(outside=outside), repository.write("blob", b"mine\n"))
    result = run("diff", "--git", "hostile", directory.path)
    assert result.exit_code == 2, result.output
    assert "is no plain file" in result.stderr or "is there twice" in result.stderr
    assert [path for path in outside.rglob("*") if path.is_file()] == []


def test_a_directory_that_looks_like_a_repository_is_not_asked(run, directory, tmp_path):
    """Else the files of a change would bring the past along that they are compared with."""
    ours = Repository(tmp_path / "work")
    embedded = ours.path / "all"
    place = embedded / "server"
    shutil.copytree(directory.path, place)
    ours.commit("one")
    changed = place / "org-b.toml"
    changed.write_text(changed.read_text().replace("per_second = 2", "per_second = 3"))
    theirs = Repository(tmp_path / "theirs")
    shutil.copytree(place, theirs.path, dirs_exist_ok=True)
    theirs.commit("one")
    shutil.copytree(theirs.path / ".git", embedded, dirs_exist_ok=True)
    result = run("diff", "--git", "one", place)
    assert result.exit_code == 2, result.output
    (embedded / "HEAD").unlink()
    assert run("diff", "--git", "one", place).exit_code == 1


def test_no_object_stands_for_another_one(run, directory, repository):
    directory.replace("per_second = 2", "per_second = 3")
    repository.commit("two")
    repository.git("replace", "one", "two")
    result = run("diff", "--git", "one", directory.path)
    assert result.exit_code == 1, result.output
    assert "per_second = 2" in result.stdout


def test_nothing_is_fetched_and_no_command_of_a_repository_runs(run, directory, repository, tmp_path):
    directory.replace("per_second = 2", "per_second = 3")
    repository.commit("two")
    repository.git("config", "uploadpack.allowFilter", "true")
    clone = tmp_path / "clone"
    repository.git("clone", "-q", "--filter=blob:none", f"file://{repository.path}", str(clone))
    command, ran = tmp_path / "command", tmp_path / "ran"
    command.write_text(f'#!/bin/sh\ntouch {ran}\nexec git-upload-pack "$@"\n')
    command.chmod(0o700)
    repository.git("-C", str(clone), "config", "remote.origin.uploadpack", str(command))
    result = run("diff", "--git", "one", clone / directory.path.name)
    assert (result.exit_code, ran.exists()) == (2, False), result.output
    assert "could not fetch" in result.stderr or "not in this clone" in result.stderr


def test_what_is_too_large_or_not_there_is_named_before_it_is_read(run, directory, repository):
    repository.tag_with("large", "large.toml", repository.write("blob", bytes(MAX_FILE_BYTES + 1)))
    large = run("diff", "--git", "large", directory.path)
    assert large.exit_code == 2
    assert f"'large.toml' has {MAX_FILE_BYTES + 1} bytes; at most {MAX_FILE_BYTES} accepted" in large.stderr
    repository.tag_with("gone", "gone.toml", "ab" * 20)
    gone = run("diff", "--git", "gone", directory.path)
    assert gone.exit_code == 2
    assert "'gone.toml' is not in this clone" in gone.stderr
