"""CapRPC: capability RPC between organizations that do not trust each other."""

from caprpc.blocking import CallFuture, Client, Peer, Server, batch, connect, grant, oneway, release, serve, submit
from caprpc.errors import (
    AuditError,
    CallCancelled,
    CallRefused,
    CapRPCError,
    ConfigurationError,
    ConnectionLost,
    ConnectRefused,
    DeadlineExceeded,
    Denied,
    IteratorBusy,
    LimitExceeded,
    PolicyError,
    ProtocolError,
    ReferenceDead,
    RemoteError,
    StoreError,
)
from caprpc.interface import Interface, attribute, method, register_adapter
from caprpc.objects.context import CallContext, current, deadline
from caprpc.objects.grants import Grants
from caprpc.objects.iteration import prefetch
from caprpc.objects.reconnect import Reconnect
from caprpc.objects.streams import RemoteReader, RemoteWriter, open_stream
from caprpc.store import StoredGrant

__all__ = [
    "AuditError",
    "CallCancelled",
    "CallContext",
    "CallFuture",
    "CallRefused",
    "CapRPCError",
    "Client",
    "ConfigurationError",
    "ConnectRefused",
    "ConnectionLost",
    "DeadlineExceeded",
    "Denied",
    "Grants",
    "Interface",
    "IteratorBusy",
    "LimitExceeded",
    "Peer",
    "PolicyError",
    "ProtocolError",
    "Reconnect",
    "ReferenceDead",
    "RemoteError",
    "RemoteReader",
    "RemoteWriter",
    "Server",
    "StoreError",
    "StoredGrant",
    "attribute",
    "batch",
    "connect",
    "current",
    "deadline",
    "grant",
    "method",
    "oneway",
    "open_stream",
    "prefetch",
    "register_adapter",
    "release",
    "serve",
    "submit",
]
