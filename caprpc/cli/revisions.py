"""A policy directory as it was at a git revision."""

import shutil
import subprocess  # nosec B404
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

_MOST_FILES: Final = 1_000


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
