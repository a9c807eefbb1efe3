"""The blocking driver: threads and sockets."""

from caprpc.blocking.calling import batch, oneway, pipe, submit
from caprpc.blocking.client import Client, Peer, connect, connect_subprocess
from caprpc.blocking.futures import CallFuture
from caprpc.blocking.granting import grant
from caprpc.blocking.references import attenuate, lend, release, release_after, revoke
from caprpc.blocking.server import Server
from caprpc.blocking.serving import serve

__all__ = [
    "CallFuture",
    "Client",
    "Peer",
    "Server",
    "attenuate",
    "batch",
    "connect",
    "connect_subprocess",
    "grant",
    "lend",
    "oneway",
    "pipe",
    "release",
    "release_after",
    "revoke",
    "serve",
    "submit",
]
