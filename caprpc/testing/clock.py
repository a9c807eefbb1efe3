"""A clock that moves only when a test moves it."""

from typing import Final

START: Final = 1_000.0


class FakeClock:
    """Seconds that begin at 1,000 and pass by ``advance`` alone; call it for the time."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> float:
        """Let time pass; return what it is then.

        Raises:
            ValueError: Time does not go back.
        """
        if seconds < 0:
            raise ValueError(f"{seconds} seconds: time does not go back")
        self.now += seconds
        return self.now
