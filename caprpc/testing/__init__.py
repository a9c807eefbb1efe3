"""Tools for tests of services: a throw-away PKI, deployments, in-memory pairs, a clock, and fixtures for pytest."""

from caprpc.testing.clock import FakeClock
from caprpc.testing.connected import aio_connected, connected
from caprpc.testing.deployment import Deployment, Side
from caprpc.testing.everything import declared_by, everything
from caprpc.testing.pair import Pair, Stalled
from caprpc.testing.pki import ThrowawayPki

__all__ = [
    "Deployment",
    "FakeClock",
    "Pair",
    "Side",
    "Stalled",
    "ThrowawayPki",
    "aio_connected",
    "connected",
    "declared_by",
    "everything",
]
