"""The tutorial does what it says: its commands are taken from the page and run as they are written."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "tutorials" / "first-service.md"
PORT = "4853"
"""What the page says; the test takes a free one instead."""
pytestmark = pytest.mark.timeout(120)


def commands(section):
    """Return the command lines of one numbered section of the page."""
    text = PAGE.read_text(encoding="utf-8")
    part = re.search(rf"^## {section}\. .*?(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL).group()
    blocks = re.findall(r"^```console\n(.*?)^```", part, flags=re.MULTILINE | re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


class Workshop:
    """A copy of the tutorial's files, with ``caprpc`` and ``python`` being those that run the tests."""

    def __init__(self, directory):
        self.directory = directory
        shutil.copytree(REPOSITORY / "docs" / "tutorials" / "first_service", directory, dirs_exist_ok=True)
        subprocess.run(["chmod", "-R", "go-w", str(directory)], check=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = str(free.getsockname()[1])
        client = directory / "client.py"
        client.write_text(client.read_text(encoding="utf-8").replace(PORT, self.port), encoding="utf-8")
        programs = directory / ".programs"
        programs.mkdir()
        # As pip installs it: a script in a directory of programs, which does not put the working directory on the path.
        scripts = {
            "caprpc": f"#!{sys.executable}\nfrom caprpc.cli import main\nmain()\n",
            "python": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n',
        }
        for name, script in scripts.items():
            (programs / name).write_text(script, encoding="utf-8")
            (programs / name).chmod(0o700)
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | {"PATH": path, "PYTHONPATH": str(REPOSITORY)}
        self.server = None

    def run(self, *lines):
        """Run command lines in one shell; return what they wrote."""
        script = "set -e\n" + "\n".join(lines)
        return subprocess.run(
            ["bash", "-c", script],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def start(self, line):
        """Start the server that a command line names; return when it says that it listens."""
        self.server = subprocess.Popen(
            ["bash", "-c", "exec " + line.replace(PORT, self.port)],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said = self.server.stdout.readline()
        assert self.port in said, said + self.server.stdout.read()

    def stop(self):
        if self.server is not None:
            self.server.terminate()
            self.server.communicate(timeout=30)
            self.server = None


@pytest.fixture
def workshop(tmp_path):
    made = Workshop(tmp_path / "first-service")
    yield made
    made.stop()


def test_the_tutorial_runs_as_written(workshop):
    for section in (4, 5, 6):
        done = workshop.run(*commands(section))
        assert done.returncode == 0, done.stdout + done.stderr
    serve, *rest = commands(7)
    workshop.start(serve)
    counted = workshop.run(*rest)
    assert counted.stdout.splitlines() == [r"Noisy: 'Simple\n'", r"Noisy: 'is\n'", r"Noisy: 'better\n'", "3 lines"]
    logged = workshop.run(*commands(8))
    assert logged.returncode == 0, logged.stdout + logged.stderr
    assert "alice.toml:" in logged.stdout
    assert "server.toml:" in logged.stdout
    workshop.stop()
    delete, serve, client, show, explain = commands(9)
    assert workshop.run(delete).returncode == 0
    workshop.start(serve)
    refused = workshop.run(client)
    assert refused.returncode != 0
    assert "Denied" in refused.stderr
    assert "deny" in workshop.run(show).stdout
    number = re.search(r"R-[A-Z2-9]{12}", refused.stderr).group()
    assert number in workshop.run(explain.replace("R-…", number)).stdout
