"""What both sides know: the interface."""

from collections.abc import Callable

from caprpc import Interface, method
from caprpc.interfaces import TextLines


class LineCounter(Interface):
    """Counts the lines of a file that stays where it is."""

    @method(effect="read")
    def line_counter(self, fileobj: TextLines, function: Callable[[str], None]) -> int: ...
