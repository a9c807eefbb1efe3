"""Telling the owner of an object to whom a reference is passed on, and getting a reference for just that."""

from typing import Any

from caprpc.ids import OP_ATTENUATE
from caprpc.interface import ArgumentError
from caprpc.objects.stubs import Stub
from caprpc.wire.values import OwnReference, RemoteReference


class PassOnMember:
    """The member behind ``attenuate`` where nothing is taken away, and a third party is named."""

    __slots__ = ("_chain", "_shape")

    name = ""
    member = "attenuate"
    operation = OP_ATTENUATE
    errors: tuple[type[Exception], ...] = ()
    scalars = None
    arg_trees = None
    returns_references = True

    def __init__(self, stub: Stub, chain: tuple[str, ...]) -> None:
        """Take the reference and the principals that get it, nearest to us first."""
        self._shape = stub._caprpc_shape
        self._chain = chain

    @property
    def signature(self) -> "PassOnMember":
        """Return itself."""
        return self

    def encode_args(self, _args: tuple[object, ...], _kwargs: dict[str, object], _writer: object) -> Any:
        """Write terms that take nothing away."""
        return [[None, None, None, None, None, list(self._chain)], {}]

    def decode_result(self, raw: object, reader: Any, *, plain: bool = False) -> Stub:
        """Read the reference."""
        if not isinstance(raw, RemoteReference | OwnReference):
            raise ArgumentError("", "a reference")
        stub: Stub = reader.read(raw, self._shape)
        for imported in reader.received:
            imported.derived = True
            imported.chain = self._chain
        return stub
