"""Interfaces: the only source of what can be called, and the checks on everything that goes in and out."""

from caprpc.interface.announced import UNKNOWN, Announced, AnnouncedSignature, Undeclared
from caprpc.interface.base import Interface, InterfaceBase, register_adapter, shape_of
from caprpc.interface.contexts import AsyncContextServer, ContextServer, ServedContext
from caprpc.interface.contracts import contract_of, interface_closure
from caprpc.interface.declaration import attribute, interface_info, method
from caprpc.interface.iteration import Abandoned, ServedIterator, ServedSource
from caprpc.interface.kinds import FUNCTIONS
from caprpc.interface.member import Member
from caprpc.interface.mismatch import ArgumentError, Mismatch, ResultError
from caprpc.interface.references import NoReferences, ReferenceReader, ReferenceWriter
from caprpc.interface.shape import Shape
from caprpc.interface.signature import Parameter, Signature

__all__ = [
    "FUNCTIONS",
    "Abandoned",
    "UNKNOWN",
    "Announced",
    "AnnouncedSignature",
    "ArgumentError",
    "AsyncContextServer",
    "ContextServer",
    "Interface",
    "InterfaceBase",
    "Member",
    "Mismatch",
    "NoReferences",
    "Parameter",
    "ReferenceReader",
    "ReferenceWriter",
    "ResultError",
    "ServedContext",
    "ServedIterator",
    "ServedSource",
    "Shape",
    "Signature",
    "Undeclared",
    "attribute",
    "contract_of",
    "interface_closure",
    "interface_info",
    "method",
    "register_adapter",
    "shape_of",
]
