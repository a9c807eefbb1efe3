"""CapRPC with its blocking server and client; policies and audit on."""

import threading
from functools import lru_cache, partial
from typing import Final

import caprpc
from rpcbench.peers import caprpc_service as service
from rpcbench.peers.base import Announce, Client, Peer
from rpcbench.peers.with_caprpc_aio import connect as connect_async
from rpcbench.site import HOST, Site


def _serve(level: str, site: Site, announce: Announce) -> None:
    server = caprpc.Server(
        {service.ROOT: service.BenchService()},
        identity=site.server.directory,
        policies=service.policies(site, "server", level),
        audit=service.audit_directory(site, "server"),
        limits=service.SERVER_LIMITS,
    )
    announce(int(server.listen(f"{HOST}:0").rpartition(":")[2]))
    with server:
        threading.Event().wait()


@lru_cache(maxsize=1)
def _ourselves(level: str, site: Site) -> caprpc.Client:
    """Identity, policies and audit log, read once for all connections of this process."""
    return caprpc.Client(
        identity=site.client.directory,
        policies=service.policies(site, "client", level),
        audit=service.audit_directory(site, "client"),
    )


def _add_one(number: int) -> int:
    return number + 1


def _ignore(line: str) -> None:
    """The function that is called for each line."""


class _Client(Client):
    def __init__(self, level: str, site: Site, port: int) -> None:
        self._site = site
        self._peer = _ourselves(level, site).connect(f"caprpc://{HOST}:{port}")
        self._bench = self._peer.root(service.ROOT, service.Bench)

    def close(self) -> None:
        self._peer.close()

    def noop(self) -> None:
        self._bench.noop()

    def echo(self, value: dict[str, object]) -> object:
        return self._bench.echo(value)

    def window(self, calls: int) -> int:
        noop = self._bench.noop
        answers = [caprpc.submit(noop) for _ in range(calls)]
        for answer in answers:
            answer.result()
        return len(answers)

    def window_coalesced(self, calls: int) -> int:
        noop = self._bench.noop
        with self._peer.coalesce():
            answers = [caprpc.submit(noop) for _ in range(calls)]
        for answer in answers:
            answer.result()
        return len(answers)

    def window_batch(self, calls: int) -> int:
        noop = self._bench.noop
        answers = caprpc.batch((noop, ()) for _ in range(calls))
        return sum(1 for answer in answers if answer is None)

    def chain(self, steps: int) -> int:
        link = self._bench.link()
        for _ in range(steps - 2):
            link = link.following()
        return link.number()

    def pipeline(self, steps: int) -> int:
        link = caprpc.pipe(self._bench).link()
        for _ in range(steps - 2):
            link = link.following()
        return caprpc.submit(link.number).result()

    def callback(self, number: int) -> int:
        return self._bench.callback(_add_one, number)

    def iterate(self, count: int) -> int:
        total = 0
        for item in self._bench.items(count):
            total += item
        return total

    def echo_bytes(self, data: bytes) -> bytes:
        return self._bench.echo_bytes(data)

    def stream(self, size: int) -> int:
        return sum(len(piece) for piece in self._bench.pieces(size))

    def nap(self) -> None:
        self._bench.nap()

    def count_lines(self) -> int:
        with self._site.lines.open(encoding="utf-8") as file:
            return self._bench.count_lines(file, _ignore)


def _peer(title: str, level: str) -> Peer:
    return Peer(
        title,
        partial(_serve, level),
        connect=partial(_Client, level),
        connect_async=partial(connect_async, level),
        prepare=partial(service.prepare, level=level),
    )


PEERS: Final = {
    "caprpc": _peer("CapRPC", "decision"),
    "caprpc-deny": _peer("CapRPC, audit level deny", "deny"),
    "caprpc-outcome": _peer("CapRPC, audit level outcome", "outcome"),
}
