"""A policy directory as it was at a git revision: one that is named, or the last one that was signed.

The repository is that of whoever asks for the review: nothing in it may run, be written elsewhere or be fetched.
"""

import os
import shutil
import subprocess  # nosec B404
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import click

from caprpc.bundles import Signers
from caprpc.cli.policy_ask import load
from caprpc.errors import ConfigurationError
from caprpc.policy import NOTE_FILE, PolicySet
from caprpc.policy.source import MAX_FILE_BYTES

_MOST_FILES: Final = 1_000
_MOST_BYTES: Final = 32 * MAX_FILE_BYTES
"""All files of a directory together, and whatever else git answers: it is held in memory."""
_MOST_REVISIONS: Final = 200
"""Revisions of a note that are looked at, the newest first."""

_OPTIONS: Final = ("--no-replace-objects", "--literal-pathspecs", "-c", "safe.bareRepository=explicit")
"""No object stands for another one, and a directory among the files that looks like a repository is none."""
_SETTINGS: Final = ("GIT_ALLOW_PROTOCOL=none", "GIT_NO_LAZY_FETCH=1", "GIT_TERMINAL_PROMPT=0")
"""A partial clone fetches what it lacks, with a command that its configuration names; here it may not."""


@contextmanager
def at_revision(directory: Path, revision: str) -> Iterator[Path]:
    """Give a private copy of ``directory`` as it is in ``revision``; it is gone afterwards.

    Raises:
        click.UsageError: There is no git, no such revision, or nothing of that directory in it.
    """
    if not revision or revision.startswith(("-", ".")):
        raise click.UsageError(f"{revision!r} is no revision; write REV, or REV..REV for two of them")
    prefix = _prefix(directory)
    try:
        commit = _git(directory, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").decode().strip()
    except click.UsageError as exc:
        raise click.UsageError(f"there is no revision {revision!r} here; see: git log -- {directory}") from exc
    try:
        listing = _git(directory, "ls-tree", "-z", "--long", "--full-tree", f"{commit}:{prefix}")
    except click.UsageError as exc:
        raise click.UsageError(f"{directory} is not there at {revision!r}: {exc.message}") from exc
    files = _plain_files(listing, f"{directory} at {revision}")
    with tempfile.TemporaryDirectory(prefix="caprpc-policy-") as temporary:
        copy = Path(temporary) / directory.resolve().name
        copy.mkdir(mode=0o700)
        for name, content in _contents(directory, files):
            target = copy / name
            target.write_bytes(content)
            target.chmod(0o600)
        yield copy


def last_signed(directory: Path, signers: Path) -> tuple[PolicySet, str]:
    """Return the policies of the newest revision that enough people have signed, and what messages call it.

    Args:
        directory: The policy directory, in a work tree.
        signers: The file that says who may sign, and how many must.

    Raises:
        ConfigurationError: There is none among the last ``_MOST_REVISIONS`` revisions of the note.
    """
    trusted = Signers.load(signers)
    _prefix(directory)
    words = ("rev-list", f"--max-count={_MOST_REVISIONS}", "HEAD", "--", NOTE_FILE)
    for commit in _git(directory, *words).decode().split():
        # One that does not load, or whose note is about other files, is passed over like one without a note.
        with suppress(ConfigurationError, click.UsageError), at_revision(directory, commit) as copy:
            policies = load(copy, f"{commit[:12]}:{directory}")
            people = ", ".join(trusted.verify(policies))
            return policies, f"version {policies.version}, signed by {people} ({commit[:12]})"
    raise ConfigurationError(
        f"no revision of {directory} is signed by {trusted.threshold} of those in {signers}",
        hint="commit caprpc.note together with the files that it signs",
    )


def _prefix(directory: Path) -> str:
    """Return what a repository calls a directory of its work tree.

    Raises:
        click.UsageError: It lies in none, or in what only looks like a repository and came with the files.
    """
    repository = Path(os.fsdecode(_git(directory, "rev-parse", "--absolute-git-dir").removesuffix(b"\n")))
    if directory.resolve().is_relative_to(repository.resolve()):
        raise click.UsageError(f"{directory} lies in {repository}, which is a repository without a work tree")
    return os.fsdecode(_git(directory, "rev-parse", "--show-prefix").removesuffix(b"\n"))


def _plain_files(listing: bytes, where: str) -> dict[str, str]:
    """Return the object id of each file by its name, as ``ls-tree --long`` lists them.

    A tree can be made with names that no file system gives: each is one plain name, and there once.
    """
    entries = [line.partition(b"\t") for line in listing.split(b"\0") if line]
    if len(entries) > _MOST_FILES:
        raise click.UsageError(f"{where} has more than {_MOST_FILES} files")
    found: dict[str, str] = {}
    total = 0
    for attributes, _, raw in entries:
        mode, kind, object_id, size = attributes.decode().split()
        name = os.fsdecode(raw)
        if kind != "blob" or mode == "120000" or "/" in name or name in {"", ".", ".."}:
            raise click.UsageError(f"{where}: {name!r} is no plain file: a policy directory holds nothing else")
        if name in found:
            raise click.UsageError(f"{where}: {name!r} is there twice")
        if not size.isdecimal():
            raise click.UsageError(f"{where}: {name!r} is not in this clone, and nothing is fetched; fetch it before")
        total += int(size)
        if int(size) > MAX_FILE_BYTES or total > _MOST_BYTES:
            text = f"at most {MAX_FILE_BYTES} accepted, and {_MOST_BYTES} in all files"
            raise click.UsageError(f"{where}: {name!r} has {size} bytes; {text}")
        found[name] = object_id
    return found


def _contents(directory: Path, files: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file."""
    wanted = "".join(f"{object_id}\n" for object_id in files.values())
    answer = _git(directory, "cat-file", "--batch", given=wanted.encode())
    start = 0
    for name in files:
        head, _, _ = answer[start : start + 256].partition(b"\n")
        begin = start + len(head) + 1
        # ``<object id> blob <size>``; what is missing or of another kind says so in place of it.
        start = begin + (int(head.split()[2]) if len(head.split()) == 3 else 0) + 1
        yield name, answer[begin : start - 1]


def _git(directory: Path, *words: str, given: bytes = b"") -> bytes:
    program, setting = shutil.which("git"), shutil.which("env")
    if program is None or setting is None:
        raise click.UsageError("--git needs git, and there is none on the PATH")
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as said:
        asked.write(given)
        asked.seek(0)
        with subprocess.Popen(  # noqa: S603  # nosec B603
            [setting, *_SETTINGS, program, *_OPTIONS, "-C", str(directory), *words],
            stdin=asked,
            stdout=subprocess.PIPE,
            stderr=said,
        ) as process:
            answer = b"" if process.stdout is None else process.stdout.read(_MOST_BYTES + _MOST_BYTES // 32 + 1)
            if len(answer) > _MOST_BYTES + _MOST_BYTES // 32:
                process.kill()
                raise click.UsageError(f"git {words[0]}: an answer of more than {_MOST_BYTES} bytes")
        if process.returncode:
            said.seek(0)
            lines = said.read(64 * 1024).decode("utf-8", "replace").strip().splitlines()
            raise click.UsageError(f"git {words[0]}: {lines[-1] if lines else 'failed'}")
    return answer
