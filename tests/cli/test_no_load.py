"""Nothing of the command line can be pointed at somebody to load or to probe them. CAP-SC-08.

The catalogue asks that ``probe --stress`` needs a token of its target. There is no such command; what dials at all
dials once, and says nothing but what opens TLS to whoever does not answer.
"""

import socket
import threading

import click
import pytest
from click.testing import CliRunner

from caprpc.cli import main

LOADS = {"probe", "stress", "flood", "fuzz", "bench", "load", "attack", "scan", "selftest", "repeat", "count", "rate"}
LOADS |= {"parallel", "concurrency", "connections", "jobs", "threads", "workers", "requests", "duration", "retries"}

DIALING = {"caprpc call", "caprpc shell"}
"""What takes the address of a peer."""


def commands(command, path):
    """Yield each command with its words, groups included."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), f"{path} {name}")


EVERY = dict(commands(main, "caprpc"))


def test_there_is_no_command_and_no_option_that_loads_a_peer():
    words = {word for path in EVERY for word in path.split()[1:]}
    options = {
        (path, option.lstrip("-"))
        for path, command in EVERY.items()
        for parameter in command.params
        for option in parameter.opts
    }
    assert words & LOADS == set()
    # What serves says how much of its own it gives.
    loading = {(path, option) for path, option in options if LOADS.intersection(option.split("-"))}
    assert {path for path, _ in loading} <= {"caprpc serve"}
    assert len(EVERY) > 30


def test_what_takes_the_address_of_a_peer_is_known():
    taking = {path for path, command in EVERY.items() for p in command.params if p.name == "url"}
    assert taking == DIALING


@pytest.mark.parametrize("words", [["probe", "--stress"], ["probe"], ["selftest"], ["call", "--stress"]], ids=" ".join)
def test_probe_and_stress_do_not_exist(words):
    result = CliRunner().invoke(main, [*words, "caprpc://127.0.0.1:9"], prog_name="caprpc")
    assert result.exit_code == 64
    assert "no command" in result.stderr or "no such option" in result.stderr.lower()


class ThirdParty:
    """Somebody with an open port who never asked for this: keeps what comes, and answers nothing of it."""

    def __init__(self):
        self.received = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"caprpc://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                self.received.append(sock.recv(1 << 20))

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def third_party():
    made = ThirdParty()
    yield made
    made.close()


@pytest.mark.parametrize("dialing", sorted(DIALING))
def test_a_third_party_gets_one_connection_and_no_more_than_the_first_flight(third_party, site, dialing):
    side = site["root"] / "alice"
    words = [dialing.split()[1], third_party.address, *(["shop.add", "1", "2"] if dialing == "caprpc call" else [])]
    words += ["--identity", str(side / "identity"), "--policies", str(side / "policies")]
    result = CliRunner().invoke(main, words, input="shop.add(1, 2)\n" * 50, prog_name="caprpc")
    assert result.exit_code in (69, 76, 77)
    assert len(third_party.received) == 1
    (hello,) = third_party.received
    assert hello[:3] == b"\x16\x03\x01"
    assert len(hello) < 4096
