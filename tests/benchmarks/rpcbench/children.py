"""Starts, asks and ends the child processes of a run. Only those: each is ended through its own handle."""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from rpcbench.site import Site

_PACKAGE_PARENT: Final = Path(__file__).resolve().parent.parent
_START_TIMEOUT_S: Final = 30.0
_END_TIMEOUT_S: Final = 3.0
_PIPE_READ: Final = 65_536


class ChildFailed(Exception):
    """A child process ended, or did not answer in time; carries the end of what it printed."""


class Child:
    """One child process that answers with JSON lines on its standard output."""

    def __init__(self, module: str, arguments: list[str]) -> None:
        self._errors = tempfile.TemporaryFile()  # lives as long as the process
        search = [str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(part for part in search if part)},
        )
        self._buffer = b""
        self._module = module

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, message: Mapping[str, object]) -> None:
        """Send one request."""
        if self._process.stdin is None:
            raise ChildFailed("the process has no input")
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as exc:
            raise self._failure("has ended") from exc

    def receive(self, timeout_s: float) -> dict[str, object]:
        """The next answer.

        Raises:
            ChildFailed: It did not come in time, or the process ended.
        """
        if self._process.stdout is None:
            raise ChildFailed("the process has no output")
        descriptor = self._process.stdout.fileno()
        end = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise self._failure(f"did not answer within {timeout_s:.0f} s")
            data = os.read(descriptor, _PIPE_READ)
            if not data:
                raise self._failure("has ended")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, object] = json.loads(line)
        return answer

    def end(self, *, patience_s: float = _END_TIMEOUT_S) -> None:
        """End the process: closed input, SIGTERM, at last SIGKILL; and take its exit status."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        self._process.terminate()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def finish_input(self) -> None:
        """Tell a client process that no request follows, and wait for its end."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(_END_TIMEOUT_S)

    def _failure(self, what: str) -> ChildFailed:
        self._errors.seek(0)
        printed = self._errors.read().decode(errors="replace").strip().splitlines()
        return ChildFailed(f"{self._module} {what}: {' | '.join(printed[-3:])}"[:400])


class Pair:
    """The server process of a peer and the client process that measures it."""

    def __init__(self, peer: str, site: Site, core: int | None, profile: Path | None = None) -> None:
        self._peer = peer
        self._site = site
        self._core = core
        self._profile = profile
        self.server = Child("rpcbench.serving", [peer, str(site.directory), *self._options("server")])
        try:
            self._port = self.server.receive(_START_TIMEOUT_S)["port"]
            self.client = self.another_client()
        except ChildFailed:
            self.server.end()
            raise

    def another_client(self) -> Child:
        """Start one more client process against the same server."""
        where = [self._peer, str(self._site.directory), str(self._port), str(self.server.pid)]
        client = Child("rpcbench.working", [*where, *self._options("client")])
        try:
            client.receive(_START_TIMEOUT_S)
        except ChildFailed:
            client.end()
            raise
        return client

    def end(self) -> None:
        """End both."""
        self.client.end()
        self.server.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def _options(self, side: str) -> list[str]:
        options = [] if self._core is None else ["--core", str(self._core)]
        if self._profile is not None:
            options += ["--profile", str(self._profile / f"{side}.prof")]
        return options
