"""What all CapRPC peers of the benchmark share: the interface, its implementations, and the policies of both sides.

Policy and audit are on, as for every user. Only quotas are raised: the benchmark opens five hundred connections as
one principal, in a second.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from caprpc.interface import Interface, interface_closure, method
from caprpc.interfaces import TextLines
from caprpc.limits import ServerLimits
from caprpc.pki.fingerprint import key_fingerprint
from caprpc.policy import contracts_to_toml
from rpcbench.cases import MIB, NAP_S, PAYLOAD
from rpcbench.site import Identity, Site

ROOT: Final = "bench"
SERVER_LIMITS: Final = ServerLimits(
    max_unauthenticated=2_000, unauthenticated_per_address=2_000, accept_per_s=100_000.0, accept_burst=10_000
)

_MEMBERS: Final = ("noop", "echo", "echo_bytes", "callback", "items", "pieces", "nap", "count_lines", "link")
_DIRECTORY: Final = """\
caprpc = 1
kind = "directory"
version = 1
policies = ["peer.toml"]
contracts = "contracts.toml"
audit = "../audit"
"""
_HEAD: Final = """\
caprpc = 1
kind = "policy"
name = "bench-{role}"
owner = "bench@bench.example"
reason = "the benchmark"

[peer]
ca = ["{ca}"]
spiffe = ["{spiffe}"]

[limits]
connections = 512
in_flight = 128
principal_in_flight = 65_536

[audit]
level = "{level}"
"""
_SERVER: Final = """
[roots]
bench = "All"

[offer.All]
interface = "Bench"
call = [{members}]
iterate = true

[offer.All.returns]
link = "Link"

[offer.Link]
interface = "Link"
call = ["following", "number"]
[offer.Link.returns]
following = "Link"

[accept.TextLines]
call = ["readlines"]
iterate = true

[accept.Callable]
invoke = true
"""
_CLIENT: Final = """
[accept.Bench]
call = [{members}]
iterate = true

[accept.Link]
call = ["following", "number"]

[offer.LinesOnly]
interface = "TextLines"
call = ["readlines"]
iterate = true

[offer.InvokeOnly]
interface = "Callable"
invoke = true

[[lend]]
to = "Bench.callback"
param = "function"
as = "InvokeOnly"
lifetime = "call"

[[lend]]
to = "Bench.count_lines"
param = "fileobj"
as = "LinesOnly"
lifetime = "call"

[[lend]]
to = "Bench.count_lines"
param = "function"
as = "InvokeOnly"
lifetime = "call"
"""


class Link(Interface):
    """One link of a chain."""

    @method(effect="read")
    def following(self) -> "Link":
        """Return the link after it."""

    @method(effect="read")
    def number(self) -> int:
        """Return how many links there are up to it, with this call."""


class LinkOf(Link):
    """A link that knows its place."""

    def __init__(self, place: int) -> None:
        self._place = place

    def following(self) -> Link:
        return LinkOf(self._place + 1)

    def number(self) -> int:
        return self._place + 1


class Bench(Interface):
    """What the benchmark calls."""

    @method(effect="read")
    def noop(self) -> None:
        """Do nothing."""

    @method(effect="read")
    def echo(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return the dict."""

    @method(effect="read")
    def echo_bytes(self, data: bytes) -> bytes:
        """Return the bytes."""

    @method(effect="read")
    def callback(self, function: Callable[[int], int], number: int) -> int:
        """Call the function with the number and return its result."""

    @method(effect="read")
    def items(self, count: int) -> Iterator[int]:
        """Count up to ``count``."""

    @method(effect="read")
    def pieces(self, size: int) -> Iterator[bytes]:
        """Give ``size`` bytes in pieces."""

    @method(effect="read")
    def nap(self) -> None:
        """Sleep for ``NAP_S``."""

    @method(effect="read")
    def link(self) -> Link:
        """Return the first link of a chain."""

    @method(effect="read")
    def count_lines(self, fileobj: TextLines, function: Callable[[str], None]) -> int:
        """Call the function for each line of the file; return how many there are."""


class BenchService(Bench):
    """The implementation with ``def`` methods."""

    def noop(self) -> None:
        return None

    def echo(self, value: dict[str, Any]) -> dict[str, Any]:
        return value

    def echo_bytes(self, data: bytes) -> bytes:
        return data

    def link(self) -> Link:
        return LinkOf(1)

    def callback(self, function: Callable[[int], int], number: int) -> int:
        return function(number)

    def items(self, count: int) -> Iterator[int]:
        return iter(range(count))

    def pieces(self, size: int) -> Iterator[bytes]:
        return (PAYLOAD for _ in range(size // MIB))

    def nap(self) -> None:
        time.sleep(NAP_S)

    def count_lines(self, fileobj: TextLines, function: Callable[[str], None]) -> int:
        count = 0
        for line in fileobj.readlines():
            function(line)
            count += 1
        return count


def prepare(site: Site, level: str) -> None:
    """Write the policy directories of both sides for one audit level, unless another peer has."""
    if policies(site, "client", level).exists():
        return
    members = ", ".join(f'"{member}"' for member in _MEMBERS)
    for role, body, peer in (("server", _SERVER, site.client), ("client", _CLIENT, site.server)):
        directory = policies(site, role, level)
        directory.mkdir(mode=0o700)
        head = _HEAD.format(role=role, ca=_anchor(peer), spiffe=peer.spiffe, level=level)
        _write(directory / "peer.toml", head + body.format(members=members))
        _write(directory / "contracts.toml", contracts_to_toml(interface_closure([Bench])))
        _write(directory / "caprpc.toml", _DIRECTORY)


def policies(site: Site, role: str, level: str) -> Path:
    """The policy directory of a side."""
    return site.directory / f"policies-{role}-{level}"


def audit_directory(site: Site, role: str) -> Path:
    """The audit log of this process; a log has one writer."""
    return site.directory / f"audit-{role}-{os.getpid()}"


def _anchor(identity: Identity) -> str:
    anchor = x509.load_pem_x509_certificate(identity.anchors.read_bytes())
    return key_fingerprint(anchor.public_key())


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
