"""What a blocking connection needs of the place it lives in: the reactor of a server, or a client."""

from typing import TYPE_CHECKING, Protocol

from caprpc.objects.work import AnyJob
from caprpc.session import Answer, BatchAnswer, Closer, Ended

if TYPE_CHECKING:
    from caprpc.blocking.connection import Connection


class Host(Protocol):
    """What a connection needs of the place it lives in: a server's reactor or a client."""

    def dispatch(self, connection: "Connection") -> None:
        """Run what is in ``connection.pending``, in order, on some other thread."""

    def resumed(self, connection: "Connection") -> None:
        """Calls came to ``pending`` while another was answered: run them, unless this very thread is about to."""

    def released(self, connection: "Connection") -> None:
        """No thread reads the connection now: watch it."""

    def watched(self, connection: "Connection") -> None:
        """No thread reads the connection now and an answer is awaited on an event loop: watch it at once."""

    def claimed(self, connection: "Connection") -> None:
        """A waiting thread reads the connection now: stop watching it."""

    def most(self) -> int:
        """Return what the messages may cost that a waiting thread handles before it gives way to others."""

    def give_way(self) -> None:
        """Let other threads run that wait for the interpreter lock."""

    def wants_write(self, connection: "Connection") -> None:
        """Ciphertext waits until the socket takes more."""

    def start_async(self, connection: "Connection", job: AnyJob) -> bool:
        """Start an ``async def`` method on the loop kept for such methods; it replies by itself."""

    def cancelled(self, answer: Answer | BatchAnswer) -> None:
        """The peer waits for a call no more, or its time is over."""

    def let_go(self, closers: list[Closer]) -> None:
        """Close what the peer can name no more, on some other thread."""

    def due(self, connection: "Connection", when: float) -> None:
        """A call of the peer must be answered at that time: ``tick`` the connection then."""

    def opened(self, connection: "Connection") -> None:
        """WELCOME and HELLO have been exchanged."""

    def ended(self, connection: "Connection", event: Ended) -> None:
        """The connection is over and its socket is about to be closed; called once, with the lock held."""
