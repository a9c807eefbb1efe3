"""Signed policies: k of n people have signed the files, and no older version comes back.

The signatures stand in ``caprpc.note`` in the policy directory, a C2SP signed note over the hashes of all files. Who
may sign, and how many must, is said by a file *outside* of it: whoever can write policies could else name themselves.
Reference: ``docs/reference/policy.md``, section 7.
"""

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from caprpc.audit.notes import KIND_LOG, MAX_SIGNATURES, Note, NoteError, NoteSigner, Signature, VerifierKey
from caprpc.errors import ConfigurationError, PolicyError
from caprpc.policy import NOTE_FILE, PolicySet
from caprpc.policy.document import Table, text_fault
from caprpc.policy.problems import Problems
from caprpc.policy.source import MAX_FILE_BYTES, decode, opened_directory, read_file
from caprpc.policy.text import TomlDocument, TomlProblem

_TITLE: Final = "caprpc policy bundle v1"
_RESTORE: Final = "restore it from a backup: without it an older bundle would be taken for a new one"
MOST_KEYS: Final = 16


def bundle_text(policies: PolicySet) -> str:
    """Return what is signed: the version, and the hash of each file by its name."""
    files = "".join(f"{digest} {name}\n" for name, digest in sorted(policies.files.items()))
    return f"{_TITLE}\nversion {policies.version}\n{files}"


def sign(policies: PolicySet, signer: NoteSigner) -> Note:
    """Return the directory's note with one more signature; signatures over another text are dropped.

    Raises:
        ConfigurationError: The key cannot sign policies, or the note has as many signatures as a note may have.
    """
    if signer.key.kind != KIND_LOG:
        raise ConfigurationError(f"{signer.key.name} is the key of a witness", hint="sign with: caprpc policy keygen")
    text = bundle_text(policies)
    before: tuple[Signature, ...] = ()
    if policies.note is not None:
        with contextlib.suppress(NoteError):
            old = Note.parse(policies.note, MAX_FILE_BYTES)
            before = old.signatures if old.text == text else ()
    made = signer.sign(text)
    others = tuple(one for one in before if one.key_id != made.key_id)
    if len(others) >= MAX_SIGNATURES:
        hint = "take out lines of those who need not sign; anybody who can write the note can add lines to it"
        raise _unsigned(policies, f"{len(others)} others have signed, and a note has at most {MAX_SIGNATURES}", hint)
    return Note(text, (*others, made))


def signed_otherwise(policies: PolicySet) -> bool:
    """Say whether the note that is there signs other files under the same version: who has accepted those, refuses."""
    if policies.note is None:
        return False
    try:
        text = Note.parse(policies.note, MAX_FILE_BYTES).text
    except NoteError:
        return False
    return text != bundle_text(policies) and text.startswith(f"{_TITLE}\nversion {policies.version}\n")


@dataclass(frozen=True, slots=True)
class SignedPolicies:
    """A policy directory that is used only if enough of those who may sign it have; in place of its path.

    Attributes:
        directory: The policy directory.
        signers: The file that says who may sign, and how many must; outside of the directory.
    """

    directory: str | Path
    signers: str | Path


@dataclass(frozen=True, slots=True)
class Signers:
    """Who may sign policies, how many must, and where the newest version that was accepted is kept.

    Attributes:
        threshold: How many different keys must have signed.
        keys: The keys that count.
        state: The file that remembers the newest version, so that a restart does not accept an older one.
        where: The file that says so.
    """

    threshold: int
    keys: tuple[VerifierKey, ...]
    state: Path
    where: str

    @classmethod
    def load(cls, path: Path) -> "Signers":
        """Read a file of the kind ``signers``.

        Raises:
            PolicyError: It is not as it should be, or others can write it.
        """
        problems = Problems()
        content = None
        with opened_directory(path.parent, problems) as descriptor:
            if descriptor is not None:
                content = read_file(descriptor, path.name, problems)
        text = None if content is None else decode(content, path.name, problems)
        found = None if text is None else _parse_signers(text, path, problems)
        problems.raise_if_any()
        if found is None:
            raise PolicyError(
                [
                    ConfigurationError(
                        "the file cannot be read", where=str(path), hint="docs/reference/policy.md shows what it holds"
                    )
                ]
            )
        return found

    def signed_by(self, policies: PolicySet) -> list[str]:
        """Return the names of the keys that have signed these very files.

        Raises:
            ConfigurationError: There is no note, it is about other files, or a signature in it is false.
        """
        if policies.note is None:
            raise _unsigned(policies, "the policies are not signed", "caprpc policy sign DIR --key KEY")
        try:
            note = Note.parse(policies.note, MAX_FILE_BYTES)
            if note.text != bundle_text(policies):
                raise _unsigned(policies, _difference(note.text, policies), "have the files as they are now signed")
            return [key.name for key in self.keys if note.signature_of(key) is not None]
        except NoteError as exc:
            raise _unsigned(policies, f"not a signed note: {exc}", "sign the files again") from exc

    def verify(self, policies: PolicySet) -> list[str]:
        """Return who has signed, if enough have.

        Raises:
            ConfigurationError: Too few have, or what they signed is not these files.
        """
        names = self.signed_by(policies)
        if len(names) < self.threshold:
            text = f"signed by {len(names)} of {self.threshold} needed ({', '.join(names) or 'nobody who counts'})"
            raise _unsigned(policies, text, f"the keys that count stand in {self.where}")
        return names

    def check_version(self, policies: PolicySet) -> bool:
        """Say whether the version is newer than the newest that was accepted here, or the first.

        Raises:
            ConfigurationError: A newer version was accepted before, or this one with other files.
        """
        last = _read_state(self.state)
        if last is None:
            return True
        version, digest = last
        if policies.version < version or (policies.version == version and policies.digest != digest):
            text = f"version {policies.version} ({policies.digest}) after version {version} ({digest})"
            hint = f"sign the files under a version greater than {version}; {self.state} remembers it"
            raise _unsigned(policies, f"{text}: an older version may not come back", hint)
        return policies.version > version

    def accept(self, policies: PolicySet) -> None:
        """Verify, and remember the version: no older one is accepted from now on.

        Raises:
            ConfigurationError: As for ``verify`` and ``check_version``.
        """
        self.verify(policies)
        if self.check_version(policies):
            with _locked(self.state):
                # Again, for another process may have accepted a newer one meanwhile.
                if self.check_version(policies):
                    _write_state(self.state, policies)


def _parse_signers(text: str, path: Path, problems: Problems) -> Signers | None:
    try:
        top = Table.top(TomlDocument(text), path.name, problems)
    except TomlProblem as exc:
        problems.add(exc.where(path.name), exc.message, exc.hint, code="not-toml")
        return None
    top.integer("caprpc", 1, 1)
    top.choice("kind", ("signers",))
    threshold = top.integer("threshold", 1, MOST_KEYS)
    state = top.word("state", text_fault)
    lines = top.words("keys", lambda word: "")
    top.finish()
    examples = {"caprpc": "caprpc = 1", "kind": 'kind = "signers"', "threshold": "threshold = 2"}
    for key, example in {**examples, "keys": 'keys = ["name+id+key"]', "state": 'state = "../state/policies"'}.items():
        if not top.has(key):
            top.missing(key, example)
    keys: list[VerifierKey] = []
    for index, line in enumerate(lines):
        try:
            found = VerifierKey.parse(line)
        except NoteError as exc:
            top.complain(("keys", index), f"not a key: {exc}", "caprpc policy keygen prints it", code="bad-value")
            continue
        if found.kind != KIND_LOG:
            top.complain(
                ("keys", index),
                f"{found.name} is the key of a witness",
                "use one of caprpc policy keygen",
                code="bad-value",
            )
        keys.append(found)
    if len({one.public for one in keys}) != len(keys):
        top.complain("keys", "one key stands twice, under two names", "each signer counts once", code="duplicate")
    if threshold is not None and threshold > len(keys):
        top.complain(
            "threshold",
            f"{threshold} signatures of {len(keys)} keys",
            "name more keys, or ask for fewer",
            code="bad-value",
        )
    if threshold is None or state is None:
        return None
    return Signers(threshold, tuple(keys), path.parent / state, str(path))


def _difference(signed: str, policies: PolicySet) -> str:
    """Return what has changed since the files were signed, for a person."""
    lines = {name: digest for digest, _, name in (line.partition(" ") for line in signed.split("\n")[2:]) if name}
    changed = [name for name, digest in policies.files.items() if lines.get(name) != digest]
    gone = [name for name in lines if name not in policies.files]
    words = [
        f"changed since: {', '.join(sorted(changed))}" if changed else "",
        f"gone: {', '.join(gone)}" if gone else "",
    ]
    return f"the signatures are for other files ({'; '.join(word for word in words if word) or 'another version'})"


def _unsigned(policies: PolicySet, message: str, hint: str) -> ConfigurationError:
    return ConfigurationError(message, where=str(policies.directory / NOTE_FILE), hint=hint)


def _read_state(path: Path) -> tuple[int, str] | None:
    """Return the version and digest that were accepted last; a file that others could have written does not load."""
    problems = Problems()
    try:
        os.lstat(path)
        with opened_directory(path.parent, problems) as directory:
            content = None if directory is None else read_file(directory, path.name, problems)
        problems.raise_if_any()
        found = json.loads(content or b"")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, PolicyError) as exc:
        why = exc.problems[0].message if isinstance(exc, PolicyError) else exc
        raise ConfigurationError(
            f"what was accepted last cannot be read: {why}", where=str(path), hint=_RESTORE
        ) from exc
    version, digest = (found.get("version"), found.get("digest")) if isinstance(found, dict) else (None, None)
    if type(version) is not int or version < 1 or not isinstance(digest, str):
        text = "what was accepted last cannot be read: no version and digest"
        raise ConfigurationError(text, where=str(path), hint=_RESTORE)
    return version, digest


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a state that several processes share: else the slower of two would put the older back."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path.with_name(f".{path.name}.lock"), flags, 0o600)
    except OSError as exc:
        raise _not_remembered(path, exc) from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_state(path: Path, policies: PolicySet) -> None:
    """Replace the state as a whole, and wait until the disk has it."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".state-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"version": policies.version, "digest": policies.digest}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as exc:
        raise _not_remembered(path, exc) from exc


def _not_remembered(path: Path, exc: OSError) -> ConfigurationError:
    text = f"the accepted version cannot be remembered: {exc.strerror}"
    return ConfigurationError(text, where=str(path), hint="without it an older version could come back")
