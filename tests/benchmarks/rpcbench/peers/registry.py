"""Which peers there are, and the module of each. Modules are imported when they are used."""

import importlib
from types import MappingProxyType
from typing import Final

from rpcbench.peers.base import Peer

REGISTRY: Final = MappingProxyType(
    {
        "floor": "plain_tls",
        "caprpc": "with_caprpc",
        "caprpc-deny": "with_caprpc",
        "caprpc-outcome": "with_caprpc",
        "caprpc-aio": "with_caprpc_aio",
        "rpyc": "with_rpyc",
        "rpyc-tuned": "with_rpyc",
        "pyro5": "with_pyro5",
        "grpc": "with_grpc",
        "grpc-aio": "with_grpc_aio",
        "thrift": "with_thrift",
        "capnp": "with_capnp",
    }
)


def load(name: str) -> Peer:
    """The peer of that name.

    Raises:
        ImportError: It, or something it needs, is not installed.
    """
    module = importlib.import_module(f"rpcbench.peers.{REGISTRY[name]}")
    peers: dict[str, Peer] = module.PEERS
    return peers[name]
