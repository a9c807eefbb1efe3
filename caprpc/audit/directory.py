"""An audit directory as a reader finds it: maybe a copy, maybe hostile, maybe being written right now."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from caprpc.audit.checkpoints import parse_checkpoints_name
from caprpc.audit.segment import Head
from caprpc.audit.storage import IDENTITY_NAME, head_name, parse_head_name, parse_segment_name
from caprpc.errors import AuditError

_SMALL_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """Which log a directory says it holds."""

    name: str
    log_id: str


@dataclass(slots=True)
class RelationFiles:
    """The files of one relation: its segment numbers in order, and whether it has a head."""

    stem: str
    numbers: list[int] = field(default_factory=list)
    has_head: bool = False


class LogDirectory:
    """Opens the files of an audit log for reading; follows no link and waits for no pipe.

    Attributes:
        path: Where it is.
        relations: The relations whose files are there, in order of their names.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        found: dict[str, RelationFiles] = {}
        self._checkpoints: dict[str, list[int]] = {}
        for name in os.listdir(path):
            segment, head = parse_segment_name(name), parse_head_name(name)
            checkpoints = parse_checkpoints_name(name)
            if segment:
                found.setdefault(segment[0], RelationFiles(segment[0])).numbers.append(segment[1])
            elif head:
                found.setdefault(head, RelationFiles(head)).has_head = True
            elif checkpoints:
                found.setdefault(checkpoints[0], RelationFiles(checkpoints[0]))
                self._checkpoints.setdefault(checkpoints[0], []).append(checkpoints[1])
        for files in found.values():
            files.numbers.sort()
        self.relations = [found[stem] for stem in sorted(found)]

    def checkpoint_files(self, stem: str) -> list[int]:
        """Return the numbers of the files with the checkpoints of a relation, in order."""
        return sorted(self._checkpoints.get(stem, ()))

    @contextmanager
    def open(self, name: str) -> Iterator[int]:
        """Give the descriptor of a plain file.

        Raises:
            AuditError: It is something else, such as a link.
            OSError: It is not there or may not be read.
        """
        try:
            fd = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise
        except OSError as exc:
            raise AuditError(f"{self.path / name}: cannot open: {exc.strerror}") from exc
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise AuditError(f"{self.path / name}: not a plain file")
            yield fd
        finally:
            os.close(fd)

    def identity(self) -> LogIdentity:
        """Return which log this is.

        Raises:
            AuditError: The directory does not say.
        """
        try:
            found = json.loads(self._read_small(IDENTITY_NAME))
            return LogIdentity(str(found["name"]), str(found["id"]))
        except FileNotFoundError as exc:
            raise AuditError(f"{self.path / IDENTITY_NAME}: missing; is this an audit log?") from exc
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise AuditError(f"{self.path / IDENTITY_NAME}: not the identity of an audit log") from exc

    def head(self, files: RelationFiles) -> Head | None:
        """Return how far a relation was known to reach, None if nothing says so.

        Raises:
            AuditError: The file is there and is not a head.
        """
        if not files.has_head:
            return None
        try:
            return Head.parse(self._read_small(head_name(files.stem)))
        except FileNotFoundError:
            return None

    def _read_small(self, name: str) -> bytes:
        with self.open(name) as fd:
            return os.read(fd, _SMALL_BYTES)
