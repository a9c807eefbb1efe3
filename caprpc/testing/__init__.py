"""Tools for tests of services: a throw-away PKI, deployments, connections in memory, a clock, fixtures for pytest."""

from caprpc.testing.clock import FakeClock
from caprpc.testing.connected import aio_connected, connected
from caprpc.testing.deployment import Deployment, Side
from caprpc.testing.ends import Stalled
from caprpc.testing.everything import declared_by, everything
from caprpc.testing.network import Connection, Network, Party
from caprpc.testing.pair import Pair
from caprpc.testing.pki import ThrowawayPki

__all__ = [
    "Connection",
    "Deployment",
    "FakeClock",
    "Network",
    "Pair",
    "Party",
    "Side",
    "Stalled",
    "ThrowawayPki",
    "aio_connected",
    "connected",
    "declared_by",
    "everything",
]
