"""Mutual TLS 1.3 without sockets, and the proof of who the peer is. ADR 0002."""

from caprpc.tls.channel import ALPN, WRITE_CHUNK_BYTES, ChannelState, TlsChannel
from caprpc.tls.chunks import sealed_in_chunks
from caprpc.tls.context import client_context, server_context
from caprpc.tls.credentials import Identity
from caprpc.tls.identity import still_valid, verify_peer
from caprpc.tls.refusal import TlsRefused

__all__ = [
    "ALPN",
    "WRITE_CHUNK_BYTES",
    "ChannelState",
    "Identity",
    "TlsChannel",
    "TlsRefused",
    "client_context",
    "sealed_in_chunks",
    "server_context",
    "still_valid",
    "verify_peer",
]
