"""Contracts: what an interface declares, as plain data that a reviewer and the policy compiler can read.

Interfaces (code) produce contracts; policies are checked against them. Neither floor imports the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ParameterContract:
    """One parameter of a member, as declared."""

    name: str
    type: str
    """The annotation as text, such as ``Callable[[str], None]``."""
    reference: str | None
    """Name of the interface if the parameter takes a reference (``TextLines``, ``Callable``), else None."""
    required: bool
    sensitive: bool = False
    """Its values may never be kept in clear."""


@dataclass(frozen=True, slots=True)
class MemberContract:
    """One member: an operation and a name, and what goes in and out."""

    operation: int
    """A code of ``caprpc.ids``."""
    name: str
    """Empty for operations that have no member name (invoke, iterate, next, ...)."""
    parameters: tuple[ParameterContract, ...]
    returns: str
    """The return annotation as text."""
    returns_reference: str | None
    """Name of the interface if the result is a reference, else None."""
    effect: str
    """``read``, ``write`` or ``admin``, as the declaration says."""
    idempotent: bool = False
    """Declared to do no more when it is called again."""


@dataclass(frozen=True, slots=True)
class InterfaceContract:
    """All members of one interface."""

    name: str
    members: Mapping[tuple[int, str], MemberContract]
    doc: str
