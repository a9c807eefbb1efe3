"""Futures of calls made over a blocking connection."""

import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, Protocol

from caprpc.interface import Member
from caprpc.objects.outgoing import Outgoing
from caprpc.objects.stubs import Flavor
from caprpc.session import Question


class Waitable(Protocol):
    """What a future needs of its connection."""

    def wait_for(self, question: Question, deadline: float) -> None:
        """Wait until the question has ended, reading the socket if nobody else does."""

    def settle(self, future: "CallFuture") -> None:
        """Have an ended future read its answer, under the connection's lock if that touches the tables."""

    def abandon(self, question: Question) -> None:
        """Tell the peer that nobody waits any more."""


class CallFuture:
    """The result of a call that is under way. A thread that waits for it reads the connection itself.

    It has the methods of ``concurrent.futures.Future`` that callers use.
    """

    __slots__ = ("_callbacks", "_cancelled", "_connection", "_flavor", "_value", "member", "question")

    def __init__(self, connection: Waitable, question: Question, member: Member, flavor: Flavor) -> None:
        self._connection = connection
        self.question = question
        self.member = member
        self._flavor = flavor
        self._callbacks: list[Callable[[CallFuture], object]] | None = None
        self._cancelled = False
        self._value: tuple[Any, Exception | None] | None = None

    def done(self) -> bool:
        """Whether the call has ended or was cancelled."""
        return self._cancelled or self.question.outcome is not None

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
        if self._cancelled:
            raise CancelledError
        question = self.question
        if question.outcome is None:
            deadline = time.monotonic() + timeout if timeout is not None else float("inf")
            self._connection.wait_for(question, deadline)
            if question.outcome is None:
                raise TimeoutError(f"no answer within {timeout:g} s; the call goes on")
        if self._value is None:
            self._connection.settle(self)
        value, error = self._value or (None, None)
        if error is not None:
            raise error
        return value

    def settle(self, outgoing: Outgoing) -> None:
        """Read the answer, once: references in it are counted as they are read."""
        if self._value is None and not self._cancelled:
            try:
                self._value = (outgoing.conclude(self.question, self.member, self._flavor), None)
            except Exception as exc:  # whatever the call ended with belongs to whoever asks for the result
                self._value = (None, exc)

    def exception(self, timeout: float | None = None) -> Exception | None:
        """Return what the call raised, None if it returned; raises as ``result`` if there is no end yet."""
        if self.question.outcome is None:
            self._connection.wait_for(
                self.question, time.monotonic() + timeout if timeout is not None else float("inf")
            )
        if not self.done():
            raise TimeoutError(f"no answer within {timeout:g} s; the call goes on")
        try:
            self.result()
        except Exception as exc:  # the point of this method
            return exc
        return None

    def add_done_callback(self, fn: Callable[["CallFuture"], object]) -> None:
        """Call ``fn(future)`` when the call has ended, on the thread that read the answer; at once if it has."""
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(fn)
        if self.done():
            self.notify()

    @property
    def has_callbacks(self) -> bool:
        """Whether ``notify`` has anything to do."""
        return bool(self._callbacks)

    def notify(self) -> None:
        """Run the callbacks, each once; called without the connection's lock when the answer has come."""
        while self._callbacks:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:
                # Another thread was faster: each callback runs once.
                return
            callback(self)
