"""Peers that must not get in: one whom no policy names, and one without a certificate."""

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from caprpc import blocking
from caprpc.address import Address
from caprpc.errors import ConnectRefused

_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """How a connection ended for the peer that made it; empty ``error`` means that it got in."""

    error: str
    code: str
    reference: str
    address: str
    """Where it came from, as the server's log names it; empty if the reference number finds the record."""


def unnamed(url: str, directories: dict[str, Path]) -> TurnedAway:
    """Connect with a good certificate that no policy names."""
    try:
        with blocking.connect(url, **directories):  # type: ignore[arg-type]
            return TurnedAway("", "", "", "")
    except ConnectRefused as exc:
        return TurnedAway(f"ConnectRefused: {exc}", exc.code, exc.reference, "")


def without_certificate(url: str, anchor: Path) -> TurnedAway:
    """Connect with TLS 1.3 and no certificate, the way any program could."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(anchor)
    context.set_alpn_protocols(["caprpc/1"])
    where = Address.parse(url)
    with socket.create_connection((where.host, where.port), timeout=_TIMEOUT_S) as raw:
        name = "{}:{}".format(*raw.getsockname()[:2])
        try:
            with context.wrap_socket(raw, server_hostname=where.host) as tls:
                answer = tls.recv(1)
        except ssl.SSLError as exc:
            return TurnedAway(f"TLS alert: {exc.reason or exc}", "", "", name)
        except ConnectionError as exc:
            return TurnedAway(f"the connection was closed: {exc.strerror}", "", "", name)
        return TurnedAway("" if answer else "the connection was closed", "", "", name)
