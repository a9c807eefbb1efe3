"""An in-memory pair: both ends of a connection in one thread, with TLS, policies and audit, without sockets."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from caprpc.testing.clock import FakeClock
from caprpc.testing.deployment import Side
from caprpc.testing.ends import End, Pending, Stalled
from caprpc.testing.network import Network

__all__ = ["End", "Pair", "Pending", "Stalled"]


class Pair(Network):
    """Two ends, open to each other, and the clock of both: ``now`` moves only when a test moves it.

    The least network there is: one party that serves, one that has dialed it, and their connection.

    Args:
        server: Directories of the accepting side.
        client: Directories of the dialing side.
        roots: What the server serves.
        audit: A directory under which both audit logs go; by default each where its ``caprpc.toml`` says.
        interfaces: What factories among the roots return; the classes of other roots tell it themselves.
        clock: The clock of both ends, if a test has one already.
    """

    def __init__(
        self,
        server: Side,
        client: Side,
        roots: Mapping[str, object],
        *,
        audit: Path | None = None,
        interfaces: Iterable[type] = (),
        clock: FakeClock | None = None,
    ) -> None:
        super().__init__(clock)
        logs = (None, None) if audit is None else (audit / "server", audit / "client")
        try:
            serving = self.party(server, roots, audit=logs[0], interfaces=interfaces)
            dialing = self.party(client, audit=logs[1])
        except BaseException:
            self.close()
            raise
        self._connection = self.connect(dialing, serving)

    @property
    def server(self) -> End:
        """The end that has accepted."""
        return self._connection.server

    @property
    def client(self) -> End:
        """The end that has dialed."""
        return self._connection.client

    def reconnect(self) -> None:
        """Make a fresh connection between the two sides; what is left of the old one is lost."""
        self._connection.reconnect()
