"""What a process of its own does to the files below a directory, as ``strace`` tells it: for ``power_loss``.

SQLite writes in C, where Python's functions are not asked. Its shared memory is left out: it does not outlive the
machine, and is made anew.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from power_loss import Data, Names, Sync, Told

CALLS = "open,openat,write,pwrite64,ftruncate,rename,unlink,unlinkat,fsync,fdatasync,close,mkdir,writev,pwritev"
_LINE = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)")
_FD = re.compile(r"^(\d+|AT_FDCWD)<([^>]*)>")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def can_trace() -> bool:
    """Whether a process can be traced here at all."""
    if shutil.which("strace") is None:
        return False
    return not subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], check=False, capture_output=True).returncode


def _plain(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


class TracedDisk:
    """Runs a command, and has what ``power_loss.Disk`` would have recorded of it; the directory is empty before.

    Each line that the command writes to its standard output is something that it has been told lasts.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.operations: list[Names | Data | Sync | Told] = []
        self.directories = {0}
        self._nodes: dict[str, int] = {str(root): 0}
        self._sizes: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._appends: set[int] = set()

    def run(self, *command: str, cwd: Path) -> None:
        log = self.root.with_name("trace.txt")
        strace = ["strace", "-f", "-y", "-qq", "-xx", "-s", "10000000", "-e", f"trace={CALLS}", "-o", str(log)]
        subprocess.run([*strace, *command], cwd=cwd, check=True, stdout=subprocess.DEVNULL, timeout=120)
        for line in log.read_text().splitlines():
            found = _LINE.match(line)
            if found and int(found[3]) >= 0:
                self._note(found[1], found[2], int(found[3]))

    def _note(self, call: str, arguments: str, result: int) -> None:
        texts = [_plain(text) for text in _TEXT.findall(arguments)]
        if call in ("open", "openat"):
            self._opened(os.fsdecode(texts[0]), arguments, result)
        elif call == "rename":
            self._renamed(*map(os.fsdecode, texts))
        elif call in ("unlink", "unlinkat"):
            self._unlinked(os.fsdecode(texts[0]))
        else:
            self._done_to(call, arguments, texts, result)

    def _done_to(self, call: str, arguments: str, texts: list[bytes], result: int) -> None:
        found = _FD.match(arguments)
        if found is None:
            return
        if call == "write" and found[1] == "1":
            self.operations += [Told(tuple(line.split())) for line in texts[0].decode().splitlines()]
            return
        node = self._nodes.get(os.fsdecode(_plain(found[2])) if "\\x" in found[2] else found[2])
        if node is None:
            return
        descriptor = int(found[1])
        if call in ("fsync", "fdatasync"):
            self.operations.append(Sync(node))
        elif call == "ftruncate":
            size = int(arguments.rsplit(", ", 1)[1])
            self.operations.append(Data(node, size, None))
            self._sizes[node] = size
        elif call == "pwrite64":
            self._wrote(node, int(arguments.rsplit(", ", 1)[1]), texts[0][:result])
        elif call == "write":
            at = self._sizes.get(node, 0) if descriptor in self._appends else self._ends.get(descriptor, 0)
            self._wrote(node, at, texts[0][:result])
            self._ends[descriptor] = at + result
        elif call != "close":
            raise AssertionError(f"{call} of a file that is watched")

    def _wrote(self, node: int, offset: int, data: bytes) -> None:
        self.operations.append(Data(node, offset, data))
        self._sizes[node] = max(self._sizes.get(node, 0), offset + len(data))

    def _opened(self, path: str, arguments: str, descriptor: int) -> None:
        self._ends[descriptor] = 0
        (self._appends.add if "O_APPEND" in arguments else self._appends.discard)(descriptor)
        if os.path.dirname(path) != str(self.root) or path.endswith("-shm"):
            return
        node = self._nodes.get(path)
        if node is None and "O_CREAT" in arguments:
            node = self._nodes[path] = len(self._nodes) + 1_000
            self.operations.append(Names(0, {os.path.basename(path): node}))
        if node is not None and "O_TRUNC" in arguments:
            self.operations.append(Data(node, 0, None))
            self._sizes[node] = 0

    def _renamed(self, old: str, new: str) -> None:
        node = self._nodes.pop(old, None)
        if node is not None:
            self._nodes[new] = node
            self.operations.append(Names(0, {os.path.basename(new): node, os.path.basename(old): None}))

    def _unlinked(self, path: str) -> None:
        # The number is not used again: what comes to stand there is another file.
        if self._nodes.get(path) is not None:
            self._nodes[f"{path} {len(self.operations)}"] = self._nodes.pop(path)
            self.operations.append(Names(0, {os.path.basename(path): None}))
