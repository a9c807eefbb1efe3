"""What a profile is told as: groups of functions, and system calls."""

import io
from pathlib import Path

import pytest
from rpcbench.groups import OTHER, by_group, group_of
from rpcbench.syscalls import parse, print_counts

TABLE = """\
    calls syscall
--------- ----------------
     1638 recvfrom
      410 sendto
        2 futex
--------- ----------------
     2050 total
"""


@pytest.mark.parametrize(
    ("place", "group"),
    [
        (("/src/caprpc/tls/channel.py", 1, "seal"), "TLS: the channel"),
        (("/opt/caprpc/caprpc/audit/relation.py", 1, "append"), "audit: records and chain"),
        (("/src/caprpc/blocking/reactor.py", 1, "_poll"), "driver"),
        (("/src/caprpc/aio/connection.py", 1, "flush"), "driver"),
        (("/src/caprpc/policy/guard.py", 1, "check"), "guard"),
        (("/src/caprpc/policy/text.py", 1, "_skip"), "start: policies"),
        (("/src/caprpc/sockets.py", 1, "accept"), OTHER),
        (("/src/tests/benchmarks/rpcbench/driving.py", 1, "_repeat"), "the benchmark itself"),
        (("/usr/lib/python3.11/threading.py", 1, "run"), OTHER),
        (("~", 0, "<method 'read' of '_ssl._SSLSocket' objects>"), "TLS: OpenSSL"),
        (("~", 0, "<method 'recv' of '_socket.socket' objects>"), "system calls: socket"),
        (("~", 0, "<built-in method posix.write>"), "system calls: audit log"),
        (("~", 0, "<method 'encode' of 'msgspec.msgpack.Encoder' objects>"), "frames, messages, values"),
        (("~", 0, "<built-in method builtins.len>"), "Python's own functions"),
    ],
)
def test_functions_are_grouped_by_what_they_are_for(place: tuple[str, int, str], group: str) -> None:
    assert group_of(place) == group


def test_groups_add_up_and_the_longest_comes_first() -> None:
    rows = [
        (("/src/caprpc/tls/channel.py", 1, "seal"), 0.2, 3),
        (("/src/caprpc/wire/frame.py", 1, "feed"), 0.3, 5),
        (("/src/caprpc/tls/channel.py", 9, "receive"), 0.4, 4),
    ]

    groups = by_group(rows)

    assert [(round(own, 6), calls, group) for own, calls, group in groups] == [
        (0.6, 7, "TLS: the channel"),
        (0.3, 5, "frames, messages, values"),
    ]


def test_counts_of_system_calls_are_read_without_the_total() -> None:
    assert parse(TABLE) == {"recvfrom": 1638, "sendto": 410, "futex": 2}


def test_system_calls_are_told_for_each_operation(tmp_path: Path) -> None:
    path, out = tmp_path / "counts", io.StringIO()
    path.write_text(TABLE)

    print_counts(path, "caprpc, no-op, client", 410, out)

    assert "recvfrom 4.00, sendto 1.00, futex 0.00" in out.getvalue()
