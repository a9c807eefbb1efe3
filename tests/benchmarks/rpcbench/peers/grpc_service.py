"""What both gRPC peers share: credentials, method names, and the (de)serializers of generic handlers.

MessagePack bodies and generic handlers stand in for protoc's generated code, which is no faster for these messages.
"""

from collections.abc import Callable
from typing import Any, Final

import grpc
import msgpack

from rpcbench.cases import STREAM_BYTES
from rpcbench.site import Identity, Site

SERVICE: Final = "bench.Bench"
NOTHING: Final = b""
OPTIONS: Final = (
    ("grpc.max_receive_message_length", STREAM_BYTES),
    ("grpc.max_send_message_length", STREAM_BYTES),
    ("grpc.use_local_subchannel_pool", 1),
)
"""Large messages allowed; and each channel has a connection of its own, which the crowd and idle cases are about."""

pack: Final[Callable[[Any], bytes]] = msgpack.packb
unpack: Final[Callable[[bytes], Any]] = msgpack.unpackb


def raw(data: bytes) -> bytes:
    """The serializer of bytes."""
    return data


def path(method: str) -> str:
    """The full name of a method."""
    return f"/{SERVICE}/{method}"


def server_credentials(site: Site) -> grpc.ServerCredentials:
    """Mutual TLS, server side."""
    anchors, key, certificate = _pem(site.server)
    return grpc.ssl_server_credentials([(key, certificate)], root_certificates=anchors, require_client_auth=True)


def channel_credentials(site: Site) -> grpc.ChannelCredentials:
    """Mutual TLS, client side."""
    anchors, key, certificate = _pem(site.client)
    return grpc.ssl_channel_credentials(anchors, key, certificate)


def _pem(identity: Identity) -> tuple[bytes, bytes, bytes]:
    return identity.anchors.read_bytes(), identity.key.read_bytes(), identity.certificate.read_bytes()
