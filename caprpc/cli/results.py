"""What a member returned, as JSON or text that a terminal can show."""

import base64
import json
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from operator import attrgetter
from types import NoneType
from typing import Any, Final
from uuid import UUID

from caprpc.errors import printable
from caprpc.interface.records import is_record, record_fields
from caprpc.objects.stubs import Stub

_LONGEST_LINE: Final = 1 << 20
_AS_THEY_ARE: Final = frozenset({NoneType, bool, int, float, str})
_AS_TEXT: Final = (Decimal, UUID, complex)


def as_json(value: Any) -> Any:
    """Return a value as what JSON can express: dates as ISO 8601, bytes as base64, the rest as text or lists."""
    if type(value) in _AS_THEY_ARE:
        return value
    if isinstance(value, dict):
        return {_key(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [as_json(item) for item in value]
    if isinstance(value, (bytes, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, _AS_TEXT):
        return str(value)
    if isinstance(value, Enum):
        return value.name
    if is_record(type(value)):
        return {name: as_json(attrgetter(name)(value)) for name in record_fields(type(value))}
    return {"reference": repr(value)} if isinstance(value, Stub) else repr(value)


def shown(value: Any, form: str) -> str:
    """Return one result for the terminal; texts of a peer cannot steer it."""
    if form == "text" and type(value) is str:
        return "\n".join(printable(line, _LONGEST_LINE) for line in value.split("\n"))
    if form == "text" and isinstance(value, Stub):
        return repr(value)
    return json.dumps(as_json(value), indent=2 if form == "text" and isinstance(value, dict) else None)


def lines_of(values: Iterable[Any], form: str) -> Iterator[str]:
    """Yield one line for each item of a remote iterator."""
    for value in values:
        yield shown(value.removesuffix("\n") if form == "text" and type(value) is str else value, form)


def _key(key: Any) -> str:
    plain = as_json(key)
    return plain if type(plain) is str else json.dumps(plain)
