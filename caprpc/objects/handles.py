"""Handles: an object of ours together with a right, to be passed or returned in place of the object."""

from typing import NoReturn

from caprpc.policy import Right


class Narrowed:
    """An object of ours as others are to get it: under a right of its own.

    It is passed, returned, narrowed further and revoked. To use the object itself, use the object itself.
    """

    __slots__ = ("__weakref__", "_caprpc_interface", "_caprpc_right", "_caprpc_source")

    _caprpc_interface: str
    """The only interface as which it may go out; empty: as whatever is declared where it goes."""
    _caprpc_right: Right
    _caprpc_source: object

    def __init__(self, source: object, right: Right, interface: str = "") -> None:
        object.__setattr__(self, "_caprpc_interface", interface)
        object.__setattr__(self, "_caprpc_source", source)
        object.__setattr__(self, "_caprpc_right", right)

    def __repr__(self) -> str:
        state = "" if self._caprpc_right.alive else " (revoked)"
        return f"<narrowed {type(self._caprpc_source).__name__}{state}>"

    def __getattr__(self, name: str) -> NoReturn:
        kind = type(self._caprpc_source).__name__
        raise AttributeError(f"{name}: a narrowed {kind} is there to be handed out; call the {kind} itself")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{name}: nothing can be assigned to a narrowed reference")
