"""A network in memory: any number of parties, each with one identity and connections to others, in one thread."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from caprpc.interface import interface_closure
from caprpc.limits import DEFAULT_SERVER_LIMITS
from caprpc.objects.admission import Admission
from caprpc.objects.epoch import Served, read_epoch
from caprpc.objects.grants import Grants
from caprpc.objects.roots import check_roots, contracts_of_roots
from caprpc.session import Question, Session, State
from caprpc.testing.clock import FakeClock
from caprpc.testing.deployment import Side
from caprpc.testing.ends import End, Stalled


class Party:
    """One side with all of its connections: one identity, one set of policies, one audit log.

    Made by ``Network.party``. What it serves it serves to those who dial it; what is counted for each principal is
    counted over all connections that it has accepted, and over all that it has dialed.
    """

    def __init__(
        self,
        side: Side,
        roots: Mapping[str, object] | None,
        *,
        audit: Path | None,
        interfaces: Iterable[type],
        grants: Grants | None,
    ) -> None:
        self.side = side
        self.ends: list[End] = []
        """Its ends of connections, newest last; those that are over are forgotten as others are made."""
        serves = roots is not None
        served = check_roots(roots) if roots is not None else {}
        restored = grants.contracts if grants is not None else {}
        self.accepting = Admission.load(
            side.identity,
            side.policies,
            audit=audit,
            name="server" if serves else "client",
            roots=served,
            contracts=contracts_of_roots(served) | interface_closure(interfaces) | restored if serves else {},
            server_limits=DEFAULT_SERVER_LIMITS,
            grants=grants,
        )
        self.dialing = self.accepting
        """What decides about those whom it dials: the same files and the same log, and no roots, as in a client."""
        if serves:
            self.dialing = Admission(
                (side.identity, side.policies),
                read_epoch(side.identity, side.policies, {}, previous=None, served=None),
                self.accepting.log,
                accepts=False,
                served=Served({}, None),
                contracts={},
                server_limits=DEFAULT_SERVER_LIMITS,
            )

    def end(self, network: "Network", *, acceptor: bool, other: str) -> End:
        """Make its end of a new connection."""
        self.ends = [end for end in self.ends if end.ended is None]
        admission = self.accepting if acceptor else self.dialing
        made = End(network, admission, acceptor=acceptor, address=f"memory:{other}")
        self.ends.append(made)
        return made

    def reload(self) -> None:
        """Read its directories again, as ``Server.reload`` does; what is live is narrowed at once.

        Raises:
            ConfigurationError: The new files are wrong; the last good ones stay in force.
        """
        for admission in {self.accepting, self.dialing}:
            admission.reload()

    def revoke(self, principal: str) -> int:
        """End everything that a principal holds of it, and its connections, as ``Server.revoke`` does.

        Returns:
            How many connections have ended.
        """
        theirs = [
            end
            for end in self.ends
            if end.ended is None and end.link.admitted is not None and end.principal == principal
        ]
        for end in theirs:
            end.take(end.link.expel())
        return len(theirs)

    def close(self) -> None:
        """Close the audit log."""
        self.accepting.close()


class Connection:
    """Two ends, open to each other: ``client`` has dialed ``server``. Made by ``Network.connect``."""

    server: End
    client: End

    def __init__(self, network: "Network", client: Party, server: Party) -> None:
        self._network = network
        self._parties = client, server
        self._dial()

    def reconnect(self) -> None:
        """Make a fresh connection between the same two; what is left of the old one is lost."""
        self.lose()
        self._dial()
        self._network.run()

    def lose(self, detail: str = "the connection was cut") -> None:
        """Have both ends lose each other, with whatever is under way."""
        for end in self.ends:
            if end.ended is None:
                end.take(end.link.lost(detail))

    @property
    def ends(self) -> tuple[End, End]:
        """Both of them."""
        return self.client, self.server

    @property
    def sessions(self) -> list[Session]:
        """The sessions of both ends, if the handshake has come so far."""
        return [end.session for end in self.ends if end.link.admitted is not None]

    @property
    def empty(self) -> bool:
        """Whether the tables of both ends hold nothing: no export, import, question or answer."""
        return not any(len(s.exports) or len(s.imports) or s.asked.open or s.answers for s in self.sessions)

    def step(self) -> bool:
        """Do one thing: move what one end has ready, or run one call; False if there is nothing to do."""
        for sender, receiver in ((self.client, self.server), (self.server, self.client)):
            moved = False
            for data in sender.link.data_to_send():
                if data and receiver.ended is None:
                    moved = True
                    receiver.receive(data)
            if moved:
                return True
        for end in self.ends:
            if end.jobs and not end.holds:
                end.run_job(end.jobs.popleft())
                return True
        return False

    def close(self) -> None:
        """End the connection in order; the network forgets it. May be called twice."""
        for end in self.ends:
            if end.link.admitted is None or end.session.state is not State.CLOSED:
                end.take(end.link.abort("closed", "the connection was closed"))
        if self in self._network.connections:
            self._network.connections.remove(self)

    def _dial(self) -> None:
        client, server = self._parties
        self.server = server.end(self._network, acceptor=True, other="client")
        self.client = client.end(self._network, acceptor=False, other="server")


class Network:
    """Parties, the connections between them, and the clock of all: ``now`` moves only when a test moves it.

    Nothing runs by itself: a call moves bytes over all connections and runs whatever has come, until its answer is
    there. So does a call that a method makes on its own reference of somebody else.

    Args:
        clock: The clock of everybody, if a test has one already.
    """

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = clock if clock is not None else FakeClock()
        self._parties: list[Party] = []
        self.connections: list[Connection] = []

    def party(
        self,
        side: Side,
        roots: Mapping[str, object] | None = None,
        *,
        audit: Path | None = None,
        interfaces: Iterable[type] = (),
        grants: Grants | None = None,
    ) -> Party:
        """Have a side take part.

        Args:
            side: Its directories, of ``Deployment.side``.
            roots: What it serves; without them it serves nothing, like a client.
            audit: Where its audit log goes; by default where its ``caprpc.toml`` says.
            interfaces: What factories among the roots return; the classes of other roots tell it themselves.
            grants: What it restores sturdy references from; closed with the network.

        Raises:
            ConfigurationError, AuditError: As for ``Server`` and ``connect``.
        """
        party = Party(side, roots, audit=audit, interfaces=interfaces, grants=grants)
        self._parties.append(party)
        return party

    def connect(self, client: Party, server: Party) -> Connection:
        """Have one party dial another, as often as a test likes, and in any direction."""
        connection = Connection(self, client, server)
        self.connections.append(connection)
        self.run()
        return connection

    @property
    def now(self) -> float:
        """What the clock says."""
        return self.clock.now

    @now.setter
    def now(self, now: float) -> None:
        """Set the clock."""
        self.clock.now = now

    def run(self) -> None:
        """Move bytes and run calls until nothing is left to do."""
        while self.step():
            pass

    def run_until(self, question: Question) -> None:
        """Move bytes and run calls until a question has ended.

        Raises:
            Stalled: Nothing is under way that could end it.
        """
        while question.outcome is None:
            if not self.step():
                raise Stalled(f"nothing can bring the answer to question {question.question_id}")

    def step(self) -> bool:
        """Do one thing on the first connection that has any; False if there is nothing to do."""
        return any(connection.step() for connection in self.connections)

    def advance(self, seconds: float) -> None:
        """Let time pass for everybody, and do what is due."""
        self.clock.advance(seconds)
        for connection in self.connections:
            for end in connection.ends:
                end.take(end.link.tick(self.now))
        self.run()

    @property
    def empty(self) -> bool:
        """Whether the tables of all ends hold nothing: no export, import, question or answer."""
        return all(connection.empty for connection in self.connections)

    def close(self) -> None:
        """End all connections, and the audit logs of all parties."""
        for connection in list(self.connections):
            connection.close()
        for party in self._parties:
            party.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
