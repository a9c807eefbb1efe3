"""A policy directory as it was at a git revision: one that is named, or the last one that was signed."""

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

_MOST_FILES: Final = 1_000
_MOST_REVISIONS: Final = 200
"""Revisions of a note that are looked at, the newest first."""


@contextmanager
def at_revision(directory: Path, revision: str) -> Iterator[Path]:
    """Give a private copy of ``directory`` as it is in ``revision``; it is gone afterwards.

    Raises:
        click.UsageError: There is no git, no such revision, or nothing of that directory in it.
    """
    if not revision or revision.startswith(("-", ".")):
        raise click.UsageError(f"{revision!r} is no revision; write REV, or REV..REV for two of them")
    prefix = _git(directory, "rev-parse", "--show-prefix").decode().strip()
    try:
        commit = _git(directory, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").decode().strip()
    except click.UsageError as exc:
        raise click.UsageError(f"there is no revision {revision!r} here; see: git log -- {directory}") from exc
    try:
        listing = _git(directory, "ls-tree", "-z", "--full-tree", f"{commit}:{prefix}").decode().split("\0")
    except click.UsageError as exc:
        raise click.UsageError(f"{directory} is not there at {revision!r}") from exc
    entries = [line.split("\t", 1) for line in listing if line]
    if len(entries) > _MOST_FILES:
        raise click.UsageError(f"{directory} has more than {_MOST_FILES} files at {revision}")
    with tempfile.TemporaryDirectory(prefix="caprpc-policy-") as temporary:
        copy = Path(temporary) / directory.resolve().name
        copy.mkdir(mode=0o700)
        for attributes, name in entries:
            mode, kind, _ = attributes.split(" ", 2)
            if kind != "blob" or mode == "120000":
                raise click.UsageError(f"{name} is no plain file at {revision}: a policy directory holds nothing else")
            target = copy / name
            target.write_bytes(_git(directory, "show", f"{commit}:{prefix}{name}"))
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
    words = ("log", f"--max-count={_MOST_REVISIONS}", "--format=%H", "--", NOTE_FILE)
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


def _git(directory: Path, *words: str) -> bytes:
    program = shutil.which("git")
    if program is None:
        raise click.UsageError("--git needs git, and there is none on the PATH")
    done = subprocess.run(  # noqa: S603  # nosec B603
        [program, "-C", str(directory), *words], capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise click.UsageError(f"git {words[0]}: {said[-1] if said else 'failed'}")
    return done.stdout
