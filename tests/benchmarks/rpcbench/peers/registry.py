"""Which peers there are, and which distribution each needs. Modules are imported when they are used."""

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Final

from rpcbench.peers.base import Peer


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a peer lives."""

    module: str
    needs: str
    """Module that must be installed; its absence is reported, not an error."""


REGISTRY: Final[dict[str, Entry]] = {
    "floor": Entry("plain_tls", "ssl"),
    "caprpc": Entry("with_caprpc", "caprpc"),
    "caprpc-deny": Entry("with_caprpc", "caprpc"),
    "caprpc-aio": Entry("with_caprpc", "caprpc"),
    "rpyc": Entry("with_rpyc", "rpyc"),
    "rpyc-tuned": Entry("with_rpyc", "rpyc"),
    "pyro5": Entry("with_pyro5", "Pyro5"),
    "grpc": Entry("with_grpc", "grpc"),
    "grpc-aio": Entry("with_grpc_aio", "grpc"),
    "thrift": Entry("with_thrift", "thriftpy2"),
    "capnp": Entry("with_capnp", "capnp"),
}


def installed(name: str) -> bool:
    """True if what the peer needs can be imported."""
    return importlib.util.find_spec(REGISTRY[name].needs) is not None


def load(name: str) -> Peer:
    """The peer of that name.

    Raises:
        ImportError: It, or something it needs, is not installed.
    """
    module = importlib.import_module(f"rpcbench.peers.{REGISTRY[name].module}")
    peers: dict[str, Peer] = module.PEERS
    return peers[name]
