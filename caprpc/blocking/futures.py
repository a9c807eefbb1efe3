"""Futures of calls made over a blocking connection."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, Final, Protocol

from caprpc.interface import Member
from caprpc.objects.outgoing import Outgoing
from caprpc.objects.stubs import Flavor
from caprpc.objects.tracing import log_failure
from caprpc.session import Question

_LOG: Final = logging.getLogger("caprpc")


class Waitable(Protocol):
    """What a future needs of its connection."""

    def wait_for(self, question: Question, deadline: float) -> None:
        """Wait until the question has ended, reading the socket if nobody else does."""

    def settle(self, future: "CallFuture") -> None:
        """Have an ended future read its answer, under the connection's lock if that touches the tables."""

    def abandon(self, question: Question) -> None:
        """Tell the peer that nobody waits any more."""

    def run_out(self, question: Question) -> None:
        """End a question whose time is over."""

    def attend(self, future: "CallFuture") -> bool:
        """Have somebody read the connection until the call has ended, and call ``notify``; False if it has."""


class CallFuture(Future[Any]):
    """The result of a call that is under way: a ``concurrent.futures.Future``.

    A thread that waits in ``result`` or ``exception`` reads the connection itself. ``concurrent.futures.wait``,
    ``as_completed`` and done callbacks work as with any future; another thread reads the connection for them.
    """

    # The constructor of the base makes a condition, which costs more than all the rest of a call that is submitted
    # among others. ``_condition`` is made when somebody asks for it, and whoever does is about to wait for it.
    # What most futures never need stands in the class.

    _callbacks: list[Callable[[Any], object]] | None = None
    _cancelled = False
    _value: tuple[Any, Exception | None] | None = None
    is_awaited = False
    """Whether the end is to be told to somebody: set under the connection's lock, before the end."""
    _told = False

    def __init__(self, connection: Waitable, question: Question, member: Member, flavor: Flavor) -> None:
        self._connection = connection
        self.question = question
        self.member = member
        self._flavor = flavor

    def done(self) -> bool:
        """Whether the call has ended or was cancelled."""
        return self._cancelled or self.question.outcome is not None

    def running(self) -> bool:
        """Whether the call is under way."""
        return not self.done()

    def cancelled(self) -> bool:
        """Whether ``cancel`` came before the end."""
        return self._cancelled

    def cancel(self) -> bool:
        """Tell the peer that nobody waits any more; False if the call has ended."""
        if self.question.outcome is not None:
            return False
        if not self._cancelled:
            self._cancelled = True
            self._connection.abandon(self.question)
            self.notify()
        return True

    def result(self, timeout: float | None = None) -> Any:
        """Return the result, waiting for it at most ``timeout`` seconds, or raise what the call raised.

        Raises:
            TimeoutError: The time has passed; the call goes on.
            concurrent.futures.CancelledError: It was cancelled.
        """
        if self.question.outcome is None:
            self._wait(timeout)
        if self._cancelled:
            raise CancelledError
        if self._value is None:
            self._connection.settle(self)
        value, error = self._value or (None, None)
        if error is None:
            return value
        try:
            raise error
        finally:
            # Its traceback holds this frame, and this frame what holds it: they would wait for the garbage collector.
            del error, self

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, None if it returned; raises as ``result`` if there is no end yet."""
        self._wait(timeout)
        if self._cancelled:
            raise CancelledError
        if self._value is None:
            self._connection.settle(self)
        return None if self._value is None else self._value[1]

    def settle(self, outgoing: Outgoing) -> None:
        """Read the answer, once: references in it are counted as they are read."""
        if self._value is None and not self._cancelled:
            try:
                self._value = (outgoing.conclude(self.question, self.member, self._flavor), None)
            except Exception as exc:  # whatever the call ended with belongs to whoever asks for the result
                # Its traceback would hold this frame, which holds the future: see ``result``.
                self._value = (None, exc.with_traceback(None))

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call ``fn(future)`` when the call has ended, on the thread that read the answer; at once if it has."""
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(fn)
        if self.done():
            self.notify()
        else:
            self._connection.attend(self)

    def when_done(self, work: Callable[[], object]) -> None:
        """Do something when the call has ended, whenever its answer is read."""
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(lambda _future: work())
        if self.done():
            self.notify()

    @property
    def is_attended(self) -> bool:
        """Whether ``notify`` has anything to do."""
        return self.is_awaited or bool(self._callbacks)

    def notify(self) -> None:
        """Wake who waits and run the callbacks, each once; called without the connection's lock after the end."""
        condition: threading.Condition | None = self.__dict__.get("_lasting")
        if condition is not None and not self._told:
            error = None if self._cancelled else self.exception()
            with condition:
                self._told = True
                for waiter in self._waiters:
                    if self._cancelled:
                        waiter.add_cancelled(self)
                    elif error is not None:
                        waiter.add_exception(self)
                    else:
                        waiter.add_result(self)
                condition.notify_all()
        while self._callbacks:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:
                # Another thread was faster: each callback runs once.
                return
            try:
                callback(self)
            except Exception as exc:  # application code: the thread that read the answer has other answers to give
                log_failure(_LOG, exc, "a callback of %r failed", self)

    def __repr__(self) -> str:
        state = "cancelled" if self._cancelled else "finished" if self.done() else "running"
        return f"<CallFuture of {self.member.name or 'a call'}: {state}>"

    def _wait(self, timeout: float | None) -> None:
        question = self.question
        if question.outcome is not None or self._cancelled:
            return
        deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        if question.due < deadline:
            self._connection.wait_for(question, question.due)
            if question.outcome is None and not self._cancelled:
                self._connection.run_out(question)
            return
        self._connection.wait_for(question, deadline)
        if question.outcome is None and not self._cancelled:
            raise TimeoutError(f"no answer within {timeout:g} s; the call goes on")

    # To type checkers these are what the base class has: else ``as_completed`` would not take such a future.
    if not TYPE_CHECKING:

        @property
        def _state(self) -> str:  # what concurrent.futures looks at
            # It changes only while the condition is held: whoever waits is told once, or has seen it.
            if not self._told:
                return "RUNNING"
            return "CANCELLED_AND_NOTIFIED" if self._cancelled else "FINISHED"

        @property
        def _condition(self) -> threading.Condition:  # what concurrent.futures waits for
            condition: threading.Condition | None = self.__dict__.get("_lasting")
            if condition is None:
                condition = self.__dict__.setdefault("_lasting", threading.Condition())
                self.__dict__.setdefault("_waiters", [])
                if not self._connection.attend(self) and not self.is_awaited:
                    self._told = True
            return condition
