"""What an exception that should not be does to a connection of asyncio: it ends that one, and tells its peer."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

_LOG: Final = logging.getLogger("caprpc")


class Guarded(ABC):
    """The part of a connection that the loop calls; owns that nothing it calls fails and leaves the peer waiting.

    The loop itself would log what a callback raises, and go on: a call whose reply was lost so would never end.
    """

    @abstractmethod
    def end(self, detail: str, *, code: str = "closed") -> None:
        """End the connection from our side."""

    @abstractmethod
    def cut_off(self) -> None:
        """Close the socket now."""

    def guarded(self, function: Callable[..., None], *args: object) -> None:
        """Call a function from the loop."""
        try:
            function(*args)
        except Exception as exc:  # a defect, or memory or stack that ran out: it must not keep the peer waiting
            self.defect(exc)

    def defect(self, exc: BaseException) -> None:
        """End the connection for an exception that came up while it was served."""
        try:
            _LOG.error("internal error while serving a connection; it is closed", exc_info=exc)
            self.end("internal error", code="internal")
        except Exception:  # nor must it be kept open because even that failed
            self.cut_off()
