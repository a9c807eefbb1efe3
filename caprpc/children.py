"""Servers that we start ourselves, at the other end of a socket pair; they end with us."""

import socket
import subprocess  # nosec B404
from collections.abc import Sequence
from typing import Final

from caprpc.errors import ConfigurationError, ConnectRefused
from caprpc.forks import FORKS
from caprpc.sockets import Route

DESCRIPTOR: Final = "{fd}"
"""Stands in a command for the number of the descriptor that the process inherits."""

END_S: Final = 5.0
"""How long a process may take to end after its connection has; then it is told to, and then made to."""

KILL_S: Final = 2.0


class ChildRoute(Route):
    """A process to start; owns at most one that runs. Each connection gets a fresh one."""

    def __init__(self, command: Sequence[str]) -> None:
        """Take program and arguments; ``{fd}`` in them is replaced.

        Raises:
            ConfigurationError: The command does not say where the descriptor goes.
        """
        if isinstance(command, str) or not any(DESCRIPTOR in word for word in command):
            raise ConfigurationError(
                f"command {command!r}: a list of words with {DESCRIPTOR} among them expected",
                where="command",
                hint='for example ["caprpc", "serve", "service:roots", ..., "--fd", "{fd}"]',
            )
        super().__init__(f"subprocess {command[0]}")
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._forks = FORKS.count

    @property
    def process(self) -> "subprocess.Popen[bytes] | None":
        """The process that was started last, if it was not ended."""
        return self._process

    def connect(self, timeout_s: float) -> socket.socket:
        """Start the process and return our end of the pair."""
        self.close()
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            command = [word.replace(DESCRIPTOR, str(number)) for word in self._command]
            try:
                self._process = subprocess.Popen(  # noqa: S603  # nosec B603
                    command, pass_fds=(number,), stdin=subprocess.DEVNULL
                )
            except OSError as exc:
                ours.close()
                raise ConnectRefused(f"cannot start {command[0]}: {exc.strerror}") from exc
        self._forks = FORKS.count
        ours.settimeout(timeout_s)
        return FORKS.keep_from_children(ours)

    @property
    def close_waits(self) -> bool:
        """Whether a process has to end: not in a fork of ours, for which it is no child and none of its business."""
        return self._process is not None and FORKS.count == self._forks

    def close(self) -> None:
        """Wait for the process to end: our end of the pair is closed, which tells it to."""
        ends = self.close_waits
        process, self._process = self._process, None
        if process is None or not ends:
            return
        for end in (None, process.terminate, process.kill):
            if end is not None:
                end()
            try:
                process.wait(END_S if end is None else KILL_S)
            except subprocess.TimeoutExpired:
                continue
            return
