"""``caprpc policy keygen | sign | verify``: policies that several people must have signed."""

import os
import tempfile
from pathlib import Path
from typing import Final

import click

from caprpc.audit.notes import KIND_LOG, NoteError, NoteSigner
from caprpc.bundles import Signers, bundle_text, signed_otherwise
from caprpc.bundles import sign as sign_bundle
from caprpc.cli.exits import TOOL_FINDINGS, TOOL_OK
from caprpc.cli.policy_ask import DIRECTORY, load
from caprpc.errors import ConfigurationError
from caprpc.policy import INDEX_FILE, NOTE_FILE

_FILE: Final = click.Path(path_type=Path, dir_okay=False)

_KEYGEN_EPILOG: Final = """\b
Example:
  caprpc policy keygen alice.acme.example --write alice.key

Exit codes: 0 written, 2 usage, 3 the file is there already.
"""
_SIGN_EPILOG: Final = """\b
Examples:
  caprpc policy sign policies/server --show
  caprpc policy sign policies/server --key alice.key

Exit codes: 0 signed, 2 usage, 3 the directory or the key does not load.
"""
_VERIFY_EPILOG: Final = """\b
Example:
  caprpc policy verify policies/server --signers pki/signers.toml

Exit codes: 0 enough have signed these very files, 1 not so, or a newer version was accepted before, 2 usage,
3 something does not load.
"""


@click.command(epilog=_KEYGEN_EPILOG)
@click.argument("name")
@click.option("--write", "target", metavar="FILE", type=_FILE, required=True, help="Where the private key goes.")
def keygen(name: str, target: Path) -> int:
    """Make a key for signing policies; prints the public key, as the file of signers lists it."""
    try:
        signer = NoteSigner.generate(name, KIND_LOG)
        NoteSigner.parse(signer.secret)
    except (NoteError, UnicodeEncodeError) as exc:
        raise click.UsageError(f"{name!r}: {exc}") from exc
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError as exc:
        raise ConfigurationError(
            "the file is there already", where=str(target), hint="keys are not overwritten"
        ) from exc
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f"{signer.secret}\n")
    click.echo(str(signer.key))
    return TOOL_OK


@click.command(epilog=_SIGN_EPILOG)
@DIRECTORY
@click.option("--key", metavar="FILE", type=_FILE, help="A private key of `caprpc policy keygen`.")
@click.option("--show", is_flag=True, help="Print what would be signed, and sign nothing.")
def sign(directory: Path, key: Path | None, show: bool) -> int:
    """Sign the files of DIR as they are now: a signature is added to caprpc.note, beside those of others.

    Look at what changed before you sign: caprpc policy diff.
    """
    policies = load(directory)
    if show:
        click.echo(bundle_text(policies), nl=False)
        return TOOL_OK
    if key is None:
        raise click.UsageError("name your key with --key FILE, or look with --show")
    note = sign_bundle(policies, _signer(key))
    if signed_otherwise(policies):
        click.echo(
            f"note: other files were signed as version {policies.version} before; who has accepted those refuses these"
            f"\n  hint: write in {directory / INDEX_FILE}: version = {policies.version + 1}, and sign again",
            err=True,
        )
    _replace(directory / NOTE_FILE, note.encode())
    count = len(note.signatures)
    click.echo(
        f"{directory / NOTE_FILE}: version {policies.version}, {count} {'signature' if count == 1 else 'signatures'}"
    )
    return TOOL_OK


@click.command(epilog=_VERIFY_EPILOG)
@DIRECTORY
@click.option("--signers", metavar="FILE", type=_FILE, required=True, help="Who may sign, and how many must.")
def verify(directory: Path, signers: Path) -> int:
    """Say whether enough people have signed the files of DIR as they are now, and no newer version was accepted here.

    A service that takes signed policies only remembers the version that it has accepted; this command does not.
    """
    policies = load(directory)
    trusted = Signers.load(signers)
    try:
        names = trusted.verify(policies)
        trusted.check_version(policies)
    except ConfigurationError as exc:
        click.echo(f"no: {exc}")
        return TOOL_FINDINGS
    click.echo(f"yes: version {policies.version}, signed by {', '.join(names)} ({trusted.threshold} needed)")
    return TOOL_OK


def _signer(path: Path) -> NoteSigner:
    if path.stat().st_mode & 0o077:
        raise ConfigurationError(
            "the key can be read by others", where=str(path), hint=f"chmod 600 {path}, or make a new one"
        )
    try:
        return NoteSigner.parse(path.read_text(encoding="utf-8").strip())
    except NoteError as exc:
        raise ConfigurationError(f"not a signing key: {exc}", where=str(path), hint="caprpc policy keygen") from exc


def _replace(target: Path, content: bytes) -> None:
    """Replace the note as a whole: a service that reloads now sees the old one or the new one."""
    # Outside of the directory, where a file that nobody listed would keep the policies from loading.
    handle, temporary = tempfile.mkstemp(dir=target.parent.parent, prefix=".caprpc-note-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
