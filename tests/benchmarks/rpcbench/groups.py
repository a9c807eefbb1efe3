"""What the functions of a profile are for: a table of groups says more than a flat list of a hundred functions."""

from collections.abc import Iterable
from pathlib import PurePath
from typing import Final

Place = tuple[str, int, str]
"""File, line and name of a function, as ``pstats`` has them; ``~`` stands for the file of a C function."""

OTHER: Final = "everything else"

_PACKAGES: Final = {
    "tls": "TLS: the channel",
    "wire": "frames, messages, values",
    "session": "session and its tables",
    "policy": "guard",
    "audit": "audit: records and chain",
    "interface": "signatures and stubs",
    "objects": "dispatch, calls out, recording",
    "blocking": "driver",
    "aio": "driver",
}
"""Package below ``caprpc`` -> group."""

_DECIDING: Final = frozenset({"guard.py", "quotas.py", "arguments.py", "narrowing.py", "refused.py"})
"""Modules of ``policy`` that have a part in calls; the others read policies."""

_NATIVE: Final = (
    ("_ssl.", "TLS: OpenSSL"),
    ("_socket.socket", "system calls: socket"),
    ("select.", "system calls: waiting"),
    ("select.epoll", "system calls: waiting"),
    ("posix.write", "system calls: audit log"),
    ("_hashlib", "audit: SHA-256"),
    ("HASH", "audit: SHA-256"),
    ("hashlib", "audit: SHA-256"),
    ("msgspec", "frames, messages, values"),
    ("msgpack", "frames, messages, values"),
    ("_cmsgpack", "frames, messages, values"),
    ("time.sleep", "sleeping"),
    ("'acquire' of '_thread", "waiting for locks"),
    ("SimpleQueue", "waiting for locks"),
)
"""Part of the name of a C function -> group."""


def group_of(place: Place) -> str:
    """Return the group of a function."""
    file, _, name = place
    if file == "~":
        return next((group for part, group in _NATIVE if part in name), "Python's own functions")
    parts = PurePath(file).parts
    if "rpcbench" in parts:
        return "the benchmark itself"
    if "caprpc" in parts:
        below = parts[len(parts) - parts[::-1].index("caprpc") :]
        if below[0] == "policy" and below[-1] not in _DECIDING:
            return "start: policies"
        return _PACKAGES.get(below[0], OTHER) if len(below) > 1 else OTHER
    return OTHER


def by_group(own_times: Iterable[tuple[Place, float, int]]) -> list[tuple[float, int, str]]:
    """Return own time, calls and name of each group, the longest first."""
    sums: dict[str, tuple[float, int]] = {}
    for place, own, calls in own_times:
        group = group_of(place)
        before = sums.get(group, (0.0, 0))
        sums[group] = before[0] + own, before[1] + calls
    return sorted(((own, calls, group) for group, (own, calls) in sums.items()), reverse=True)
