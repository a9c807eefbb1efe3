"""The published vectors: bytes, meaning and verdict as data, for us and for whoever writes another peer."""

import json
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from caprpc.errors import RemoteProtocolError
from caprpc.limits import FIRST_FRAME_BYTES
from caprpc.wire import messages
from caprpc.wire.codec import decode_message, encode_message, pack, unpack
from caprpc.wire.frame import FrameBuffer
from caprpc.wire.values import OwnReference, RemoteReference

DIRECTORY = Path(__file__).resolve().parent.parent / "vectors"


def vectors(name, verdict):
    listed = json.loads((DIRECTORY / f"{name}.json").read_text(encoding="utf-8"))["vectors"]
    return [pytest.param(v, id=v["name"]) for v in listed if v["verdict"] == verdict]


def value_of(meaning):
    """Return the Python value of a meaning, built from its parts and never by the codec."""
    ((kind, content),) = [(k, c) for k, c in meaning.items() if k != "fold"]
    fold = meaning.get("fold", 0)
    many = lambda: [value_of(item) for item in content]
    build = {
        "none": lambda: None,
        "bool": lambda: content,
        "int": lambda: int(content),
        "float": lambda: float(content),
        "complex": lambda: complex(*map(float, content)),
        "str": lambda: content,
        "bytes": lambda: bytes.fromhex(content),
        "list": many,
        "tuple": lambda: tuple(many()),
        "set": lambda: set(many()),
        "frozenset": lambda: frozenset(many()),
        "dict": lambda: {value_of(key): value_of(value) for key, value in content},
        "decimal": lambda: Decimal(content),
        "datetime": lambda: datetime.fromisoformat(content).replace(fold=fold),
        "date": lambda: date.fromisoformat(content),
        "time": lambda: time.fromisoformat(content).replace(fold=fold),
        "timedelta": lambda: timedelta(*content),
        "timezone": lambda: timezone(timedelta(microseconds=int(content))),
        "uuid": lambda: UUID(content),
        "reference": lambda: RemoteReference(*content),
        "own_reference": lambda: OwnReference(content),
    }
    return build[kind]()


@pytest.mark.parametrize("vector", vectors("values", "accept"))
def test_value_vector_is_accepted_with_its_meaning(vector):
    blob = bytes.fromhex(vector["bytes"])
    value = unpack(blob)
    assert pack(value) == blob
    meaning = vector["meaning"]
    if "depth" in meaning:
        return
    if "buffer" in meaning:
        described = {"format": value.format, "shape": list(value.shape), "items": value.tolist()}
        assert described == meaning["buffer"]
        return
    expected = value_of(meaning)
    assert type(value) is type(expected)
    assert repr(value) == repr(expected) if not isinstance(value, set | frozenset) else value == expected
    assert pack(expected) == blob


@pytest.mark.parametrize("vector", vectors("values", "refuse"))
def test_value_vector_is_refused(vector):
    with pytest.raises(RemoteProtocolError):
        unpack(bytes.fromhex(vector["bytes"]))


def plain(item):
    if isinstance(item, bytes):
        return item.hex()
    if isinstance(item, list | tuple):
        return [plain(part) for part in item]
    if hasattr(item, "__struct_fields__"):
        return [plain(getattr(item, name)) for name in item.__struct_fields__]
    return item


@pytest.mark.parametrize("vector", vectors("messages", "accept"))
def test_message_vector_is_accepted_with_its_meaning(vector):
    body = bytes.fromhex(vector["bytes"])
    message = decode_message(body)
    fields = {name: plain(getattr(message, name)) for name in message.__struct_fields__}
    kind = {"BATCH_RETURN": "BatchReturn", "GOAWAY": "GoAway"}.get(vector["meaning"]["kind"])
    kind = kind or vector["meaning"]["kind"].capitalize()
    assert type(message) is getattr(messages, kind)
    assert {"kind": vector["meaning"]["kind"], **fields} == vector["meaning"]
    assert encode_message(message)[4:] == body


@pytest.mark.parametrize("vector", vectors("messages", "refuse"))
def test_message_vector_is_refused(vector):
    with pytest.raises(RemoteProtocolError):
        decode_message(bytes.fromhex(vector["bytes"]))


def feed(buffer, pieces, frames):
    for piece in pieces:
        frames.extend(bytes(body).hex() for body in buffer.feed(piece))


@pytest.mark.parametrize("vector", vectors("frames", "accept"))
def test_frame_vector_is_accepted_with_its_meaning(vector):
    stream = bytes.fromhex(vector["bytes"])
    for pieces in ([stream], [stream[i : i + 1] for i in range(len(stream))]):
        buffer, frames = FrameBuffer(FIRST_FRAME_BYTES), []
        feed(buffer, pieces, frames)
        assert {"frames": frames, "left": buffer.partial_bytes} == vector["meaning"]


@pytest.mark.parametrize("vector", vectors("frames", "refuse"))
def test_frame_vector_is_refused_after_the_frames_before(vector):
    stream = bytes.fromhex(vector["bytes"])
    for pieces in ([stream], [stream[i : i + 1] for i in range(len(stream))]):
        buffer, frames = FrameBuffer(FIRST_FRAME_BYTES), []
        with pytest.raises(RemoteProtocolError):
            feed(buffer, pieces, frames)
        assert frames == vector["meaning"]["frames"]


def test_every_message_kind_and_every_value_type_has_a_vector():
    kinds = {vector.values[0]["meaning"]["kind"] for vector in vectors("messages", "accept")}
    assert len(kinds) == len(messages.AnyMessage.__args__)
    types = {key for vector in vectors("values", "accept") for key in vector.values[0]["meaning"]}
    assert len(types - {"fold", "depth"}) == 22
