"""The directories of the demonstration: a throw-away CA, an identity for each peer, policies, audit logs."""

import shutil
import subprocess  # nosec B404
import sys
import time
from pathlib import Path
from typing import Final

from caprpc.errors import ConfigurationError, ConnectRefused
from caprpc.pki.authority import PrivateCa

TRUST_DOMAIN: Final = "demo.example"
_PLACEHOLDER: Final = "sha256:" + "0" * 64
_START_S: Final = 30.0
"""A server starts in half a second; a machine under load may take longer."""


class Site:
    """Everything both sides need, below one directory that only we can enter."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pki = root / "pki"
        self.policies = root / "policies"
        self.audit = root / "audit"
        self.server_log = root / "server.log"

    def make(self) -> None:
        """Make CA, identities (``server``, ``alice``, and ``mallory`` whom no policy names) and policies."""
        authority = PrivateCa.create(self.pki, trust_domain=TRUST_DOMAIN)
        authority.issue("server", role="server", dns_names=["localhost"], addresses=["127.0.0.1"])
        for name in ("alice", "mallory"):
            authority.issue(name, role="client")
        for side in ("server", "client"):
            target = self.policies / side
            target.mkdir(mode=0o700, parents=True)
            for source in sorted((_templates() / f"demo-{side}").iterdir()):
                text = source.read_text(encoding="utf-8").replace(_PLACEHOLDER, authority.fingerprint)
                file = target / source.name
                file.write_text(text, encoding="utf-8")
                file.chmod(0o600)
        self.audit.mkdir(mode=0o700)

    def client(self, name: str) -> dict[str, Path]:
        """Return the directories of a client, as ``connect`` takes them."""
        audit = self.audit / ("client" if name == "alice" else name)
        return {"identity": self.pki / name, "policies": self.policies / "client", "audit": audit}

    def serve_arguments(self, address: str, *, on_loop: bool) -> list[str]:
        """Return the words after ``caprpc`` that start the server."""
        factory = "caprpc.demo.service:" + ("async_roots" if on_loop else "roots")
        words = ["serve", factory, "--identity", str(self.pki / "server"), "--policies", str(self.policies / "server")]
        return [*words, "--listen", address, *(["--aio"] if on_loop else [])]


class ServerProcess:
    """The server in a process of its own, in a session of its own: Ctrl-C reaches the client only."""

    def __init__(self, site: Site, *, on_loop: bool) -> None:
        self._site = site
        words = site.serve_arguments("127.0.0.1:0", on_loop=on_loop)
        words[1] = words[1].replace("demo.service", "demo.guarded")
        command = [sys.executable, "-m", "caprpc", *words]
        self._said = site.root / "server.out"
        with self._said.open("wb") as out, site.server_log.open("wb") as log:
            # Our own interpreter and our own words; no shell.
            self._process = subprocess.Popen(  # noqa: S603  # nosec B603
                command, stdin=subprocess.PIPE, stdout=out, stderr=log, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def address(self) -> str:
        """Wait until it listens, and return where.

        Raises:
            ConnectRefused: It ended, or did not start in time; says what it wrote.
        """
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            said = self._said.read_text(encoding="utf-8")
            if said.endswith("\n"):
                return said.split()[-1]
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        wrote = self._site.server_log.read_text(encoding="utf-8", errors="replace").strip()
        raise ConnectRefused(f"the server did not start: {wrote or 'it wrote nothing'}")

    def stop(self) -> int:
        """Let it stop in order, and return its exit code."""
        if self._process.poll() is None:
            self._process.terminate()
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            return self._process.wait(timeout=15.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def remove(root: Path) -> None:
    """Remove the directory with everything in it."""
    shutil.rmtree(root, ignore_errors=True)


def _templates() -> Path:
    """Return the directory with ``demo-server`` and ``demo-client``: in the wheel beside us, in a checkout above."""
    here = Path(__file__).resolve().parent
    for candidate in (here / "policies", here.parent.parent / "policies"):
        if (candidate / "demo-server").is_dir():
            return candidate
    raise ConfigurationError("the policies of the demonstration are not installed", hint="install caprpc again")
