"""``caprpc audit prove``, ``check-proof`` and ``open``: one record, and one argument, without the rest of the log."""

import base64
import binascii
import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import click

from caprpc.audit.directory import LogDirectory
from caprpc.audit.notes import Checkpoint, NoteError, VerifierKey
from caprpc.audit.proofs import MAX_PROOF_BYTES, Proof
from caprpc.audit.proofs import prove as make_proof
from caprpc.audit.query import record_at
from caprpc.audit.redact import DIGEST_MARK, KEY_BYTES, Redactor, digest_with
from caprpc.cli.exits import TOOL_CANNOT_DECIDE, TOOL_FINDINGS, TOOL_OK
from caprpc.errors import AuditError, printable
from caprpc.wire.codec import pack

_PROVE_EPILOG: Final = """\b
Examples:
  caprpc audit prove audit/server/org-b-2f6c….000001.jsonl:812 > r812.tlog-proof
  caprpc audit check-proof r812.tlog-proof --key org-a.vkey

Exit codes: 0 clean or yes, 1 findings or no, 2 usage, 3 does not load, 4 cannot decide.
check-proof: 1 the proof is bad, 4 it is good and none of the keys has signed it.
"""
_OPEN_EPILOG: Final = """\b
Examples:
  caprpc audit open FILE:LINE amount --key audit/server/redact.key          prints the key of this one digest
  caprpc audit open FILE:LINE amount 10000 --key 5b1c…                      is this the value?

Exit codes: 0 clean or yes, 1 findings or no, 2 usage, 3 does not load, 4 cannot decide.
"""


@click.command(epilog=_PROVE_EPILOG)
@click.argument("place", metavar="FILE:LINE")
def prove(place: str) -> int:
    """Print the proof that the record on LINE of the segment FILE is in the log: good without the log, for anybody."""
    path, line = _place(place)
    click.echo(make_proof(path.parent, path.name, line).encode().decode(), nl=False)
    return TOOL_OK


@click.command("check-proof", epilog=_PROVE_EPILOG)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--key", "keys", multiple=True, metavar="KEY", help="A key to trust, or a file of them (repeatable).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check_proof(file: Path, keys: tuple[str, ...], as_json: bool) -> int:
    """Check a proof, and print the record that it proves."""
    trusted = [key for text in keys for key in read_keys(text)]
    try:
        with file.open("rb") as stream:
            proof = Proof.parse(stream.read(MAX_PROOF_BYTES + 1))
        signatures = proof.check(trusted)
        checkpoint = Checkpoint.parse(proof.note.text)
    except NoteError as exc:
        _say(as_json, {"proved": False, "reason": str(exc)}, f"BAD: {exc}")
        return TOOL_FINDINGS
    names = [signature.name for signature in signatures]
    found = {
        "proved": bool(signatures),
        "record": proof.line.decode("ascii", "replace"),
        "index": proof.index,
        "size": checkpoint.size,
        "origin": checkpoint.origin,
        "signed_by": names,
        "claimed": [signature.name for signature in proof.note.signatures],
    }
    where = f"record {proof.index + 1} of {checkpoint.size} in {printable(checkpoint.origin)}"
    if signatures:
        _say(as_json, found, f"{printable(str(found['record']), 8_192)}\nproved: {where}, signed by {', '.join(names)}")
        return TOOL_OK
    claimed = ", ".join(f"{one.name}+{one.key_id.hex()}" for one in proof.note.signatures)
    _say(as_json, found, f"{where}, but by none of the keys you gave; it says: {printable(claimed, 2_000)}")
    return TOOL_CANNOT_DECIDE


@click.command("open", epilog=_OPEN_EPILOG)
@click.argument("place", metavar="FILE:LINE")
@click.argument("argument")
@click.argument("value", required=False)
@click.option("--key", required=True, help="The log's redact.key, or the key of this one digest in hexadecimal.")
def open_value(place: str, argument: str, value: str | None, key: str) -> int:
    """Say whether VALUE is what ARGUMENT was in a record; without VALUE, print the key that opens this digest alone."""
    path, line = _place(place)
    record = record_at(LogDirectory(path.parent), path.name, line)
    args = record.fields.get("args")
    digest = args.get(argument, "") if isinstance(args, dict) else ""
    if not digest.startswith(DIGEST_MARK):
        raise AuditError(f"{place}: no digest of an argument {argument!r} in this record")
    opening = _opening_key(key, record.text("connection"), record.number("question"), argument)
    if value is None:
        click.echo(opening.hex())
        return TOOL_OK
    for kind, candidate in _encodable(_candidates(value)):
        if digest_with(opening, pack(candidate)) == digest:
            click.echo(f"yes: {argument} was {printable(value)} ({kind})")
            return TOOL_OK
    click.echo(f"no: {argument} was not {printable(value)}, or the key is not of this digest")
    return TOOL_FINDINGS


def read_keys(text: str) -> list[VerifierKey]:
    """Return the keys that an option names: one key, or all in a file, one on a line.

    Raises:
        click.BadParameter: It is neither.
    """
    try:
        if "+" in text and not Path(text).exists():
            return [VerifierKey.parse(text)]
        return [VerifierKey.parse(line) for line in Path(text).read_text(encoding="utf-8").split()]
    except (NoteError, UnicodeDecodeError) as exc:
        raise click.BadParameter(f"{text[:80]!r}: {exc}; expected name+id+base64, or a file of such lines") from exc


def _place(text: str) -> tuple[Path, int]:
    name, colon, line = text.rpartition(":")
    if not colon or not line.isdecimal() or not line.isascii() or len(line) > 12:
        raise click.BadParameter(f"{text[:80]!r}: expected FILE:LINE, such as audit/server/general.000001.jsonl:3")
    return Path(name), int(line)


def _opening_key(text: str, connection: str, question: int, argument: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        secret = Path(text).read_bytes()
        if len(secret) != KEY_BYTES:
            raise click.BadParameter(f"{text}: {len(secret)} bytes, a redact.key has {KEY_BYTES}") from None
        return Redactor(secret).opening_key(connection, question, argument)
    if len(key) != KEY_BYTES:
        raise click.BadParameter(f"a key of {len(key)} bytes in hexadecimal, expected {KEY_BYTES}")
    return key


def _candidates(text: str) -> Iterator[tuple[str, Any]]:
    """Yield what a text on the command line may stand for: 128 bits of digest leave no room for a mistake."""
    yield "str", text
    try:
        found = json.loads(text)
        yield f"JSON {type(found).__name__}", found
        if type(found) is int:
            yield "float", float(found)
    except (ValueError, RecursionError, OverflowError):
        pass
    for kind, convert in _CONVERSIONS:
        try:
            yield kind, convert(text)
        except (ValueError, InvalidOperation, binascii.Error):
            continue


def _encodable(candidates: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield the values that have an encoding: no argument can have been another one."""
    for kind, candidate in candidates:
        with suppress(ValueError, TypeError):
            pack(candidate)
            yield kind, candidate


_CONVERSIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("Decimal", Decimal),
    ("UUID", UUID),
    ("bytes, as text", str.encode),
    ("bytes, hexadecimal", bytes.fromhex),
    ("bytes, Base 64", lambda text: base64.b64decode(text, validate=True)),
    ("datetime", datetime.fromisoformat),
    ("date", date.fromisoformat),
    ("time", time.fromisoformat),
)


def _say(as_json: bool, found: dict[str, Any], text: str) -> None:
    click.echo(json.dumps(found) if as_json else text)
