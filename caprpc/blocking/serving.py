"""A blocking server in one call: ``caprpc.serve``."""

from collections.abc import Mapping
from pathlib import Path

from caprpc.blocking.server import Server
from caprpc.limits import DEFAULT_SERVER_LIMITS, ServerLimits
from caprpc.objects.grants import Grants
from caprpc.objects.hooks import OnConnect, OnDisconnect
from caprpc.objects.sides import Policies


def serve(
    roots: Mapping[str, object],
    address: str,
    *,
    identity: str | Path,
    policies: Policies,
    audit: str | Path | None = None,
    limits: ServerLimits = DEFAULT_SERVER_LIMITS,
    on_connect: OnConnect | None = None,
    on_disconnect: OnDisconnect | None = None,
    grants: Grants | None = None,
) -> None:
    """Serve roots on an address until ``SIGTERM`` or ``SIGINT``."""
    server = Server(
        roots,
        identity=identity,
        policies=policies,
        audit=audit,
        limits=limits,
        on_connect=on_connect,
        on_disconnect=on_disconnect,
        grants=grants,
    )
    try:
        server.listen(address)
    except BaseException:
        server.stop()
        raise
    server.serve_forever()
