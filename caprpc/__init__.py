"""CapRPC: capability RPC between organizations that do not trust each other."""

from caprpc.blocking import CallFuture, Client, Peer, Server, batch, connect, release, serve, submit
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
    LimitExceeded,
    PolicyError,
    ProtocolError,
    ReferenceDead,
    RemoteError,
)
from caprpc.interface import Interface, attribute, method, register_adapter
from caprpc.objects.context import CallContext, current

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
    "Interface",
    "LimitExceeded",
    "Peer",
    "PolicyError",
    "ProtocolError",
    "ReferenceDead",
    "RemoteError",
    "Server",
    "attribute",
    "batch",
    "connect",
    "current",
    "method",
    "register_adapter",
    "release",
    "serve",
    "submit",
]
