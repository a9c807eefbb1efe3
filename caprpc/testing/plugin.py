"""Fixtures for pytest, which finds them by itself where CapRPC is installed; ``-p no:caprpc`` leaves them out.

The only module of CapRPC that needs pytest.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from caprpc.blocking import Peer
from caprpc.testing.clock import FakeClock
from caprpc.testing.connected import connected
from caprpc.testing.deployment import Deployment, Side
from caprpc.testing.everything import declared_by, everything
from caprpc.testing.network import Network
from caprpc.testing.pair import Pair
from caprpc.testing.pki import ThrowawayPki


@pytest.fixture
def caprpc_pki() -> ThrowawayPki:
    """Certificate authorities and certificates with fresh keys, with any defect that a test needs."""
    return ThrowawayPki()


@pytest.fixture
def caprpc_deployment(tmp_path: Path) -> Deployment:
    """Directories of both sides (identity, policies, contracts, audit) under the test's temporary one."""
    return Deployment(tmp_path / "caprpc")


@pytest.fixture
def caprpc_clock() -> FakeClock:
    """The clock of ``caprpc_pair``: time passes by ``caprpc_clock.advance(seconds)`` alone."""
    return FakeClock()


@pytest.fixture
def caprpc_sides(caprpc_deployment: Deployment) -> Callable[..., tuple[Side, Side]]:
    """Return ``sides(roots, interfaces=(), offer="", accept="")``: server and client, granted all unless told what.

    ``offer`` is the server's policy for ``spiffe://test.example/client``, ``accept`` the client's for
    ``spiffe://test.example/server``, both without their headers.
    """

    def make(
        roots: Mapping[str, object], interfaces: Iterable[type] = (), *, offer: str = "", accept: str = ""
    ) -> tuple[Side, Side]:
        interfaces = list(interfaces)
        offered, accepted = everything(roots, interfaces)
        declared: list[Any] = declared_by(roots, interfaces)
        return (
            caprpc_deployment.side("server", {"client": offer or offered}, declared),
            caprpc_deployment.side("client", {"server": accept or accepted}, declared),
        )

    return make


@pytest.fixture
def caprpc_pair(
    caprpc_sides: Callable[..., tuple[Side, Side]], caprpc_clock: FakeClock
) -> Iterator[Callable[..., Pair]]:
    """Return ``pair(roots, ...)``: both ends in this thread, in memory, with TLS, policies and audit.

    Arguments as for ``caprpc_sides``. Nothing runs but what a call waits for, so that a test is the same each time.
    """
    with ExitStack() as stack:

        def make(roots: Mapping[str, object], interfaces: Iterable[type] = (), **policies: str) -> Pair:
            server, client = caprpc_sides(roots, interfaces, **policies)
            return stack.enter_context(Pair(server, client, roots, interfaces=interfaces, clock=caprpc_clock))

        yield make


@pytest.fixture
def caprpc_peer(caprpc_sides: Callable[..., tuple[Side, Side]]) -> Iterator[Callable[..., Peer]]:
    """Return ``peer(roots, ...)``: a peer connected to a server on threads of this process, over a socket pair."""
    with ExitStack() as stack:

        def make(roots: Mapping[str, object], interfaces: Iterable[type] = (), **policies: str) -> Peer:
            server, client = caprpc_sides(roots, interfaces, **policies)
            return stack.enter_context(connected(roots, server, client))

        yield make


@pytest.fixture
def caprpc_network(caprpc_clock: FakeClock) -> Iterator[Network]:
    """A network in memory for any number of parties: ``party(side, roots)`` and ``connect(client, server)``."""
    with Network(caprpc_clock) as network:
        yield network
