"""The how-to pages as data, and a terminal in which their commands run as they are written."""

import contextlib
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

from click.testing import CliRunner

from caprpc.cli import main

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page, *languages):
    """Return the text of each block of a page in one of these languages."""
    text = (HOW_TO / f"{page}.md").read_text(encoding="utf-8")
    return [block for language, block in FENCE.findall(text) if language in languages]


def commands(page):
    """Return the command lines of a page, in order."""
    lines = [line for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]
    return [line.removeprefix("$ ") for line in lines] + [
        line for block in blocks(page, "sh") for line in block.splitlines()
    ]


class Terminal:
    """Runs command lines of a page in one directory: ``caprpc``, redirected or piped into what jq does for them.

    Attributes:
        instead: What stands on the page -> what it is here: numbers, addresses, absolute paths.
    """

    def __init__(self, directory, page=None, instead=None):
        """Take the page whose commands are run; without one, any can be."""
        self.directory = directory
        self.instead = dict(instead or {})
        self._listed = None if page is None else commands(page)
        self._ran = set()

    def __call__(self, line, code=0, *, typed=None, **more):
        """Run one line as it stands on a page, and return what it wrote; it has to end with ``code``."""
        assert self._listed is None or any(one.endswith(line) for one in self._listed), f"not on the page: {line}"
        self._ran.add(line)
        for page, here in (self.instead | more).items():
            line = line.replace(page, here)
        line, _, target = line.partition(" > ")
        command, _, piped = line.partition(" | ")
        program, *words = shlex.split(command)
        if program in ("mkdir", "chmod"):
            subprocess.run([program, *words], cwd=self.directory, check=True)
            return ""
        if program == "jq":
            (files,) = words[2:]
            return "".join(jq([program, *words[:2]], file.read_text("utf-8")) for file in self.directory.glob(files))
        assert program == "caprpc", line
        with contextlib.chdir(self.directory):
            done = CliRunner().invoke(main, words, input=typed, prog_name="caprpc", catch_exceptions=False)
            assert code in (None, done.exit_code), f"{line}\n{done.output}"
            written = jq(shlex.split(piped), done.stdout) if piped else done.stdout
            if target:
                Path(target).write_text(written, encoding="utf-8")
        return done.output if written is done.stdout else written

    def left(self):
        """Return the commands of the page that have not been run."""
        return [line for line in self._listed if line not in self._ran]


def jq(words, text):
    """Do what the pages ask of jq, so that the tests need none."""
    program, *options, query = words
    assert program == "jq", words
    asked = {
        ".args": lambda value: [value.get("args")],
        ".note": lambda value: [value["note"]],
        ".relations[].keys[]": lambda value: [key for relation in value["relations"] for key in relation["keys"]],
    }[query]
    found = []
    for line in text.splitlines() if query != ".relations[].keys[]" else [text]:
        found += asked(json.loads(line))
    return "".join(f"{one if options == ['-r'] else json.dumps(one)}\n" for one in found)


def write(path, text, mode=0o600):
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(text, encoding="utf-8")
    os.chmod(path, mode)
