"""What both sides of the demonstration know."""

from collections.abc import Callable

from caprpc.interface import Interface, method
from caprpc.interfaces import TextLines


class LineCounter(Interface):
    """Counts the lines of a file that stays with the caller."""

    @method(effect="read")
    def line_counter(self, fileobj: TextLines, function: Callable[[str], None]) -> int:
        """Call the function with each line of the file, and return how many there were."""
        ...

    @method(effect="read")
    def misbehave(self, fileobj: TextLines, function: Callable[[str], None]) -> list[dict[str, str]]:
        """Try what the caller has not lent, and return what came of each attempt."""
        ...
