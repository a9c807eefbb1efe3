"""Messages and values to bytes and back; the only module that runs an encoder or a decoder.

The envelope is decoded by msgspec into the typed, finite-depth classes of ``messages``. Values are decoded
by the C unpacker of ``msgpack``, which keeps a stack of its own; msgspec's untyped decoder overflows small C
stacks and is never used. Encoding is msgspec's, after a walk has checked every type exactly.

Whatever a peer sends ends in values or in ``RemoteProtocolError``.

Wire protocol, sections 4 and 5.
"""

import re
from gc import get_referents
from typing import Any, Final

import msgpack
import msgspec
from msgspec.msgpack import Ext as Extension

from caprpc.errors import RemoteProtocolError, printable
from caprpc.limits import DEFAULT_LIMITS, KIB, Limits
from caprpc.wire.frame import HEADER_BYTES
from caprpc.wire.messages import AnyMessage, BulkCall, BulkReturn, Call, Return
from caprpc.wire.scan import EXPANSION_FREE_BYTES, UNCOUNTED, References, scan
from caprpc.wire.trees import Builder, Flattener, NotPlain, plain_budget, plain_copy

_WHOLE_CHECK_BYTES: Final = 64 * KIB
"""Larger messages and values are not encoded again to see whether they are canonical: their heads are read instead."""

_DENSITY: Final = 8
"""With fewer than one container in so many bytes no value expands too much: the worst are 232 bytes a container, and 40
a byte for everything else."""

_BIN_8: Final = 0xC4
_CONTAINER_HEADS: Final = bytes(range(0x80, 0xA0)) + bytes(range(0xDC, 0xE0))
_EXTENSION_HEADS: Final = bytes(range(0xC7, 0xCA)) + bytes(range(0xD4, 0xD9))
_OTHER_BYTES: Final = bytes(set(range(256)) - set(_CONTAINER_HEADS + _EXTENSION_HEADS))
"""Bytes that cannot open anything; the count of the others bounds depth and memory without a parse."""

_long_head_in: Final = re.compile(rb"[\xC4-\xC6\xD9-\xDB]").search
"""Finds heads of byte strings and of texts of more than 31 bytes; without them all map keys are short texts."""
_SHORT_TEXT_BYTES: Final = 31
"""No policy makes ``max_key_bytes`` as small as this; a peer may say that it takes no longer keys."""

_DECODE_ERRORS: Final = (ValueError, TypeError, OverflowError, RecursionError, KeyError, msgpack.UnpackException)

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(AnyMessage).decode
_decode_large: Final = msgspec.msgpack.Decoder(BulkCall | BulkReturn).decode
_BULK_KINDS: Final = frozenset({4, 5})
"""Kinds of CALL and RETURN, which stand in the second byte."""
_unpackb: Final = msgpack.unpackb


class Split:
    """A payload in three pieces, so that the large byte string in it is not copied on its way out."""

    __slots__ = ("data", "head", "tail")

    def __init__(self, head: bytes, data: bytes, tail: bytes) -> None:
        self.head = head
        self.data = data
        self.tail = tail

    def __len__(self) -> int:
        return len(self.head) + len(self.data) + len(self.tail)


class _ExtensionSeen(Exception):
    """The value holds an extension."""


def encode_message(message: AnyMessage) -> bytes:
    """Return the frame of a message, its length prefix included."""
    body = _encode(message)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def encode_frames(message: Call | Return) -> list[bytes]:
    """Return the frame of a message in pieces to be sent one behind the other; a large payload is not copied."""
    payload: bytes | Split = message.payload
    if len(payload) <= _WHOLE_CHECK_BYTES:
        return [encode_message(message)]
    head = _large_head(message)
    prefix = (len(head) + len(payload)).to_bytes(HEADER_BYTES, "big") + head
    if type(payload) is Split:
        return (
            [prefix + payload.head, payload.data, payload.tail]
            if payload.tail
            else [prefix + payload.head, payload.data]
        )
    return [prefix, payload]  # type: ignore[list-item]


def decode_message(body: bytes | bytearray) -> AnyMessage:
    """Return the message of one frame body.

    Raises:
        RemoteProtocolError: The body is no message, breaks a bound of a field, or is not canonical.
    """
    try:
        if len(body) <= _WHOLE_CHECK_BYTES:
            message: AnyMessage = _decode(body)
            canonical = _encode(message) == body
        elif body[1] in _BULK_KINDS:
            message = _decode_bulk(body)
            canonical = _large_is_canonical(message, body)
        else:
            message = _decode(body)
            canonical = _encode(message) == body
    except (msgspec.MsgspecError, *_DECODE_ERRORS) as exc:
        raise RemoteProtocolError(f"message of {len(body)} bytes: {printable(str(exc))}") from None
    if not canonical:
        raise RemoteProtocolError(f"message of {len(body)} bytes that is not in its canonical form")
    return message


def pack(value: Any, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Return the canonical encoding of a value.

    Args:
        value: Of exact value types, references included; not changed by others while this runs.
        limits: The same bounds that the receiver applies.

    Raises:
        TypeError: Something in it is of a type that does not travel.
        ValueError: It is over a limit, holds itself, or a text of it has no UTF-8 form.
    """
    try:
        budget = limits.max_items - 1
        left = plain_budget(value, limits.max_depth, budget, limits.max_key_bytes)
        if left >= 0:
            try:
                blob = _encode(value)
                # So few values cannot expand to much, whatever they are: no need to look at the bytes.
                if (budget - left + 1) * _DENSITY <= len(blob) or len(blob) <= EXPANSION_FREE_BYTES:
                    return blob
            except OverflowError:
                # An integer that travels as an extension.
                blob = _flattened(value, limits)
        else:
            blob = _flattened(value, limits)
        if _may_expand(blob):
            unpack(blob, limits)
    except UnicodeEncodeError:
        raise ValueError("a text holds a lone surrogate, which has no UTF-8 form") from None
    except RemoteProtocolError as exc:
        raise ValueError(f"the receiver would refuse this: {exc}") from None
    except RuntimeError:
        raise ValueError("a container changed while it was encoded") from None
    return blob


def pack_scalars(value: Any, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Return what ``pack_payload`` returns, for a scalar, or a few of them as ``(args, kwargs)``: checked already."""
    last = value if type(value) is not tuple else value[0][-1] if value[0] else None
    try:
        if type(last) is bytes and len(last) > _WHOLE_CHECK_BYTES:
            return _split(value, last)
        return _encode(value)
    except (OverflowError, UnicodeEncodeError):
        return pack(_as_lists(value), limits)


def pack_plain_call(args: tuple[Any, ...], limits: Limits = DEFAULT_LIMITS) -> bytes | None:
    """Return what ``pack`` returns for ``[args, {}]``; None if something in it is not plain: ``pack`` must see it."""
    depth = limits.max_depth - 2
    if depth < 0:
        return None
    try:
        tree = [plain_copy(value, depth) for value in args]
    except NotPlain:
        return None
    return _packed_plain([tree, {}], limits)


def pack_plain(value: Any, limits: Limits = DEFAULT_LIMITS) -> bytes | None:
    """Return what ``pack`` returns; None if something in it is not plain: ``pack`` must see it."""
    try:
        tree = plain_copy(value, limits.max_depth)
    except NotPlain:
        return None
    return _packed_plain(tree, limits)


def _packed_plain(tree: Any, limits: Limits) -> bytes | None:
    """Encode a plain tree that is ours alone; small ones break no bound, so that nothing needs to be counted."""
    try:
        blob = _encode(tree)
    except (OverflowError, UnicodeEncodeError):
        return None
    size = len(blob)
    if size > EXPANSION_FREE_BYTES or size > limits.max_items:
        try:
            return pack(tree, limits)
        except ValueError:
            return None
    most = limits.max_key_bytes
    if size > most and (most < _SHORT_TEXT_BYTES or _long_head_in(blob)):
        try:
            _check_keys(tree, limits)
        except RemoteProtocolError:
            return None
    return blob


def pack_scalar_calls(calls: list[tuple[tuple[Any, ...], dict[str, Any]]], limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Return what ``pack`` returns, for ``(args, {})`` of calls of one member that takes scalars, checked already."""
    try:
        blob = _encode(calls)
    except (OverflowError, UnicodeEncodeError):
        return pack(_as_lists(calls), limits)
    if len(calls) * (len(calls[0][0]) + 3) >= limits.max_items or _may_expand(blob):
        return pack(_as_lists(calls), limits)
    return blob


def pack_payload(value: Any, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Return what ``pack`` returns, or the same as a ``Split`` if half of a pair is a list that ends in large bytes.

    Such are the arguments of a call, ``[args, kwargs]``, and a chunk of an iterator, ``[done, items]``.

    Raises:
        TypeError, ValueError: As for ``pack``.
    """
    if type(value) is list and len(value) == 2:
        half = value[1] if type(value[0]) is bool else value[0]
        last = half[-1] if type(half) is list and half else None
        if type(last) is bytes and len(last) > _WHOLE_CHECK_BYTES:
            left = plain_budget(value, limits.max_depth, limits.max_items - 1, limits.max_key_bytes)
            if (limits.max_items - left) * _DENSITY <= len(last) and left >= 0:
                try:
                    return _split(value, last)
                except (OverflowError, UnicodeEncodeError):
                    # As ``pack`` treats them.
                    return pack(value, limits)
    return pack(value, limits)


def _split(value: Any, last: bytes) -> Split:
    """Encode ``last``, or a pair one half of which ends in it, without copying it."""
    size = b"\xc6" + len(last).to_bytes(4, "big")
    if value is last:
        return Split(size, last, b"")
    first, second = value
    # An empty byte string, 0xC4 0x00, stands where the large one goes.
    if type(first) is bool:
        return Split(_encode((first, (*second[:-1], b"")))[:-2] + size, last, b"")
    tail = _encode(second)
    whole = _encode(((*first[:-1], b""), second))
    return Split(whole[: -len(tail) - 2] + size, last, tail)


def unpack(blob: bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Return the value of one canonical encoding; exact types, references as ``RemoteReference`` or ``OwnReference``.

    Does no I/O and runs no code but this floor's.

    Raises:
        RemoteProtocolError: The blob is malformed, not canonical, or over a limit.
    """
    return unpack_tree(blob, limits)[0]


def unpack_tree(blob: bytes, limits: Limits = DEFAULT_LIMITS, most: int = UNCOUNTED) -> tuple[Any, bool]:
    """Return what ``unpack`` does, and whether the value is plain: no extension, so no reference, is anywhere in it.

    Raises:
        RemoteProtocolError: As for ``unpack``.
        TooManyReferences: More than ``most`` references are in it; of what is behind them nothing has been checked.
    """
    size = len(blob)
    try:
        if size <= limits.max_depth and _BIN_8 not in blob and size <= limits.max_items:
            # Too short to break any bound: depth and items cost a byte each.
            value = _unpackb(blob, ext_hook=_see_extension)
            if _encode(value) == blob:
                return value, True
            raise RemoteProtocolError("value that is not in its canonical form")
        return _flat(blob, limits, _see_extension, References.within(most, size)), True
    except _ExtensionSeen:
        pass
    except _DECODE_ERRORS as exc:
        raise _malformed(blob, exc) from None
    return _extended(blob, limits, References.within(most, size)), False


def _flattened(value: Any, limits: Limits) -> bytes:
    return _encode(Flattener(limits, _encode).flatten(value, limits.max_depth))


def _may_expand(blob: bytes) -> bool:
    """Say whether a value has so many container heads that its memory must be estimated."""
    return len(blob) > EXPANSION_FREE_BYTES and len(blob.translate(None, _OTHER_BYTES)) * _DENSITY > len(blob)


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if type(value) in (tuple, list) else value


def _extended(blob: bytes, limits: Limits, references: References | None) -> Any:
    """Decode a value that holds extensions."""

    def unpack_flat(data: bytes) -> Any:
        return _flat(data, limits, Extension, references)

    try:
        return Builder(limits, len(blob), _encode, unpack_flat).build(unpack_flat(blob), limits.max_depth)
    except _DECODE_ERRORS as exc:
        raise _malformed(blob, exc) from None


def _flat(blob: bytes, limits: Limits, extension: Any, references: References | None = None) -> Any:
    """Decode one blob, extensions by ``extension(code, data)``, after its bounds are known to hold."""
    size = len(blob)
    if size > _WHOLE_CHECK_BYTES or size > limits.max_items:
        scan(blob, limits, references)
        return _unpackb(blob, ext_hook=extension)
    heads = len(blob.translate(None, _OTHER_BYTES))
    if heads * _DENSITY > size > EXPANSION_FREE_BYTES:
        scan(blob, limits, references)
    elif references is not None and extension is Extension:
        extension = references.extension
    value = _unpackb(blob, ext_hook=extension)
    if heads > limits.max_depth:
        _check_depth(value, limits.max_depth)
    if _BIN_8 in blob if size <= limits.max_key_bytes else _long_head_in(blob):
        _check_keys(value, limits)
    if _encode(value) != blob:
        raise RemoteProtocolError("value that is not in its canonical form")
    return value


def _check_depth(value: Any, max_depth: int) -> None:
    """Refuse more than ``max_depth`` nested containers, level by level in C, without recursion."""
    level = [value]
    for _ in range(max_depth):
        level = get_referents(*level)
        if not level:
            return
    if any(type(item) is list or type(item) is dict for item in level):
        raise RemoteProtocolError(f"values nested deeper than {max_depth} (limits.max_depth)")


def _check_keys(value: Any, limits: Limits) -> None:
    """Refuse map keys that are byte strings or too long, in a tree whose depth is known to be bounded."""
    if type(value) is list:
        inner = value
    elif type(value) is dict:
        most = limits.max_key_bytes
        for key in value:
            if type(key) is not str:
                raise RemoteProtocolError("map key that is not a text")
            if len(key) * 4 > most and len(key.encode()) > most:
                raise RemoteProtocolError(f"map key of more than {most} bytes (limits.max_key_bytes)")
        inner = list(value.values())
    else:
        return
    for item in inner:
        if type(item) is list or type(item) is dict:
            _check_keys(item, limits)


def _decode_bulk(body: bytes | bytearray) -> Call | Return:
    """Decode a message whose payload stays in ``body``."""
    bulk = _decode_large(body)
    # A memoryview has everything that is asked of a large payload: length, items, slices.
    payload: Any = bulk.payload
    if isinstance(bulk, BulkReturn):
        return Return(bulk.question, payload)
    return Call(bulk.question, bulk.target, bulk.operation, bulk.member, bulk.meta, payload)


def _large_is_canonical(message: Call | Return, body: bytes | bytearray) -> bool:
    """Compare all but the payload, which is the last field of the kinds that may be large."""
    head = _large_head(message)
    return body.startswith(head) and len(body) == len(head) + len(message.payload)


def _large_head(message: Call | Return) -> bytes:
    """Return the canonical encoding of a message up to its payload, which is large."""
    if type(message) is Call:
        head = _encode(Call(message.question, message.target, message.operation, message.member, message.meta, b""))
    else:
        head = _encode(Return(message.question, b""))
    # An empty byte string ends the head: 0xC4 0x00. In its place stands 0xC5 or 0xC6 with the payload's length.
    size = len(message.payload)
    width = 2 if size < 0x1_0000 else 4
    return head[:-2] + (b"\xc5" if width == 2 else b"\xc6") + size.to_bytes(width, "big")


def _see_extension(_code: int, _data: bytes) -> None:
    raise _ExtensionSeen


def _malformed(blob: bytes, exc: Exception) -> RemoteProtocolError:
    return RemoteProtocolError(f"value of {len(blob)} bytes: {printable(str(exc) or type(exc).__name__)}")
