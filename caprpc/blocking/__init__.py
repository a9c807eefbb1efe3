"""The blocking driver: threads and sockets."""

from caprpc.blocking.client import Client, Peer, batch, connect, oneway, release, submit
from caprpc.blocking.futures import CallFuture
from caprpc.blocking.server import Server, serve

__all__ = ["CallFuture", "Client", "Peer", "Server", "batch", "connect", "oneway", "release", "serve", "submit"]
