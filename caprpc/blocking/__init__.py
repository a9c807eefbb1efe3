"""The blocking driver: threads and sockets."""

from caprpc.blocking.client import Client, Peer, batch, connect, oneway, release, submit
from caprpc.blocking.futures import CallFuture
from caprpc.blocking.granting import grant
from caprpc.blocking.server import Server
from caprpc.blocking.serving import serve

__all__ = [
    "CallFuture",
    "Client",
    "Peer",
    "Server",
    "batch",
    "connect",
    "grant",
    "oneway",
    "release",
    "serve",
    "submit",
]
