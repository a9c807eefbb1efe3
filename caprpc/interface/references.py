"""The seam to the export and import tables: who writes a local object as a reference, and who reads one."""

from typing import TYPE_CHECKING, Any, Protocol

from caprpc.interface.mismatch import Mismatch
from caprpc.wire.values import OwnReference, RemoteReference

if TYPE_CHECKING:
    from caprpc.interface.shape import Shape


class ReferenceWriter(Protocol):
    """Turns local objects into references while a message is encoded."""

    def write(self, obj: object, shape: "Shape", parameter: str) -> RemoteReference | OwnReference:
        """Return the reference that stands for ``obj`` where ``shape`` is declared.

        Args:
            obj: The object as the caller passed it; ``shape.adapt`` gives what is exported.
            shape: The declared shape; the runtime class grants nothing.
            parameter: Name of the declared parameter, ``return`` for a result.
        """


class ReferenceReader(Protocol):
    """Turns references into stubs, or into our own objects coming home, while a message is decoded."""

    def read(self, reference: RemoteReference | OwnReference, shape: "Shape") -> object:
        """Return the object to hand to the method where ``shape`` is declared."""

    def read_all(self, references: list[RemoteReference], shape: "Shape") -> list[Any]:
        """Return what ``read`` returns for each of them, for less."""


class NoReferences:
    """Writer and reader for places where only values may stand, such as defaults."""

    __slots__ = ()

    def write(self, obj: object, shape: "Shape", parameter: str) -> RemoteReference | OwnReference:
        """Refuse."""
        raise TypeError(f"{parameter}: a reference to a {shape.name} cannot stand here")

    def read(self, reference: RemoteReference | OwnReference, shape: "Shape") -> object:
        """Refuse."""
        raise Mismatch(shape.name, "a reference, where only values may stand")

    def read_all(self, references: list[RemoteReference], shape: "Shape") -> list[Any]:
        """Refuse."""
        raise Mismatch(shape.name, "references, where only values may stand")
