"""The blocking driver: threads and sockets."""

from caprpc.blocking.client import Client, Peer, batch, connect, release, submit
from caprpc.blocking.futures import CallFuture
from caprpc.blocking.server import Server, serve

__all__ = ["CallFuture", "Client", "Peer", "Server", "batch", "connect", "release", "serve", "submit"]
