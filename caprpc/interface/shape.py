"""Shapes: what can be called on a reference, and which local objects may stand for it."""

from collections.abc import Callable, Mapping
from typing import Any

from caprpc.interface.member import Member

Members = Mapping[tuple[int, str], Member]


class Shape:
    """One declared kind of reference: its members, and the only ways for an object to become one.

    The declared annotation makes the shape; the runtime class of an object adds nothing to it.
    """

    __slots__ = ("_adapt", "_members", "doc", "faces", "interface", "name", "text")

    def __init__(
        self,
        name: str,
        text: str,
        members: Callable[[], Members],
        adapt: Callable[[Any], object],
        *,
        interface: type | None = None,
        doc: str = "",
    ) -> None:
        """Take a name for policies, the annotation as text, and what gives the members at first use."""
        self.name = name
        self.text = text
        self.interface = interface
        self.doc = doc
        self.faces: dict[Any, Any] = {}
        """Stub classes made for this shape, by flavor; kept by the floor above."""
        self._members: Members | Callable[[], Members] = members
        self._adapt = adapt

    @property
    def members(self) -> Members:
        """Every member by operation and name; compiled at first use."""
        members = self._members
        if callable(members):
            members = self._members = members()
        return members

    def adapt(self, obj: Any) -> object:
        """Return the object to export where ``obj`` was passed: itself, or an explicit adapter around it.

        Raises:
            Mismatch: (a ``TypeError``) Nothing declares or registers that such an object stands for this shape;
                says which do.
        """
        return self._adapt(obj)

    def __repr__(self) -> str:
        return f"<Shape {self.text}>"
