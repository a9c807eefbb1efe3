"""One-way calls: nobody waits for their answers; their failures are counted, and logged on our side."""

import logging
from typing import Final

from caprpc.interface import Member
from caprpc.objects.outgoing import Outgoing
from caprpc.session import Question, Session
from caprpc.wire.messages import Return

_LOG: Final = logging.getLogger("caprpc")


class OneWayCalls:
    """The one-way calls of one connection; owns how many of them have failed."""

    __slots__ = ("failures",)

    def __init__(self) -> None:
        self.failures = 0

    def sent(self, question: Question, member: Member, outgoing: Outgoing) -> None:
        """Take note of a question that nobody waits for."""
        question.waiter = OneWay(self, question, member, outgoing)


class OneWay:
    """What hangs on the question of a one-way call in place of somebody who waits."""

    __slots__ = ("_calls", "_member", "_outgoing", "_question")

    def __init__(self, calls: OneWayCalls, question: Question, member: Member, outgoing: Outgoing) -> None:
        self._calls = calls
        self._question = question
        self._member = member
        self._outgoing = outgoing

    def ended(self, session: Session) -> bool:
        """Take the answer, give back the references in it; whether it is a failure. The connection's lock is held."""
        question = self._question
        # The two refer to each other, and would wait for the garbage collector.
        question.waiter = None
        if type(question.outcome) is Return:
            if self._member.signature.returns_references and not question.abandoned:
                session.cancel(question)
            return False
        self._calls.failures += 1
        return True

    def notify(self) -> None:
        """Log the failure; without the lock."""
        _LOG.warning("a one-way call has failed: %s", self._outgoing.error_of(self._question, self._member))
