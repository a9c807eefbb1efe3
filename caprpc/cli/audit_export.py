"""``caprpc audit export``: records in the forms that collectors of logs take, one event on a line."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, Final

import click

from caprpc.audit import Entry, Selection, select
from caprpc.cli.exits import TOOL_FINDINGS, TOOL_OK
from caprpc.cli.moments import SPELLINGS, moment
from caprpc.cli.version import package_version
from caprpc.errors import cut_text, printable

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_OCSF_VERSION: Final = "1.3.0"
_API_ACTIVITY: Final = 6003
_OTHER: Final = 99
_ACTIVITIES: Final[Mapping[str, int]] = {"get": 2, "next": 2, "length": 2, "contains": 2, "index_get": 2, "set": 3}
"""OCSF knows create, read, update and delete; what a ``call`` does, only the service knows."""
_FAILED: Final = frozenset({"reject", "limit"})
_CEF_KEYS: Final[Mapping[str, tuple[str, int]]] = {
    "peer": ("suser", 1_023),
    "member": ("request", 1_023),
    "operation": ("act", 63),
    "outcome": ("outcome", 63),
    "reason": ("reason", 1_023),
    "reference": ("externalId", 40),
    "detail": ("msg", 1_023),
}
"""Fields of ours that have a name in CEF, and how long a value CEF takes there; what is longer is cut."""
_CEF_HEAD: Final = 512
"""The longest name of an event."""
_CEF_IPV6: Final = "Source IPv6 Address"
_LONGEST_PORT: Final = 5
_CEF_TEXT: Final = 4_000
"""The longest value of a custom string in CEF."""


@click.command(epilog="\b\nExample:\n  caprpc audit export --to ocsf audit/server > events.jsonl\n")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--to", "form", type=click.Choice(["ocsf", "otlp", "cef", "jsonl"]), required=True)
@click.option("--since", default="", metavar="WHEN", callback=moment, help=f"Not before {SPELLINGS}.")
def export(directory: Path, form: str, since: str) -> int:
    """Print all records in DIRECTORY in order of time, one event on a line; damage is named on standard error."""
    write, damaged = _FORMS[form], 0
    for entry in select(directory, Selection(since=since)):
        if entry.record is None:
            damaged += 1
            click.echo(f"{entry.file}:{entry.line}: {printable(entry.damage)}", err=True)
        else:
            click.echo(write(entry))
    return TOOL_FINDINGS if damaged else TOOL_OK


def to_ocsf(entry: Entry) -> str:
    """Return a record as an event of the class API Activity of OCSF."""
    fields = _fields(entry)
    activity = _ACTIVITIES.get(str(fields.get("operation", "")), _OTHER)
    failed = _failed(fields)
    subject = {"name": fields.get("peer") or entry.relation or "-", "type_id": 3}
    event: dict[str, Any] = {
        "metadata": {
            "version": _OCSF_VERSION,
            "product": {"name": "caprpc", "vendor_name": "CapRPC", "version": package_version()},
            "uid": f"{entry.file}:{fields['seq']}",
            "original_time": fields["time"],
            "sequence": fields["seq"],
        },
        "time": _nanoseconds(str(fields["time"])) // 1_000_000,
        "category_uid": 6,
        "class_uid": _API_ACTIVITY,
        "activity_id": activity,
        "activity_name": str(fields.get("operation") or fields["kind"]),
        "type_uid": _API_ACTIVITY * 100 + activity,
        "severity_id": 3 if failed else 1,
        "status_id": 2 if failed else 1,
        "actor": {"user": subject},
        "src_endpoint": _endpoint(fields, entry),
        "api": {
            "operation": ".".join(str(fields[one]) for one in ("facet", "member") if fields.get(one))
            or str(fields["kind"]),
            "request": {"uid": f"{fields.get('connection', '')}:{fields.get('question', '')}"},
        },
        "unmapped": fields,
    }
    if fields.get("reason"):
        event["status_detail"] = fields["reason"]
    return json.dumps(event)


def to_otlp(entry: Entry) -> str:
    """Return a record as one request of OTLP for logs, in its JSON form."""
    fields = _fields(entry)
    failed = _failed(fields)
    when = str(_nanoseconds(str(fields["time"])))
    record = {
        "timeUnixNano": when,
        "observedTimeUnixNano": when,
        "severityNumber": 13 if failed else 9,
        "severityText": "WARN" if failed else "INFO",
        "body": {"stringValue": entry.text},
        "attributes": [_attribute(f"caprpc.{name}", value) for name, value in fields.items()],
    }
    scope = {"scope": {"name": "caprpc.audit", "version": package_version()}, "logRecords": [record]}
    resource = {"attributes": [_attribute("service.name", "caprpc"), _attribute("caprpc.relation", entry.relation)]}
    return json.dumps({"resourceLogs": [{"resource": resource, "scopeLogs": [scope]}]})


def to_cef(entry: Entry) -> str:
    """Return a record in the Common Event Format."""
    fields = _fields(entry)
    failed = _failed(fields)
    kind = str(fields["kind"])
    signature = ":".join(str(fields[one]) for one in ("kind", "event", "decision") if fields.get(one))
    name = " ".join(str(fields[one]) for one in ("operation", "facet", "member") if fields.get(one)) or kind
    head = ("CEF:0", "CapRPC", "caprpc", package_version(), signature, name, "6" if failed else "2")
    extension = {"rt": str(_nanoseconds(str(fields["time"])) // 1_000_000), "cs1Label": "relation"}
    extension["cs1"] = cut_text(entry.relation, _CEF_TEXT)
    for field, value in fields.items():
        key, most = _CEF_KEYS.get(field, (f"caprpc{field.title().replace('_', '')}", _CEF_TEXT))
        extension[key] = cut_text(json.dumps(value) if isinstance(value, dict) else str(value), most)
    where = _ip(fields)
    if where is not None:
        source = {"src": str(where[0])} if where[0].version == 4 else {"c6a2": str(where[0]), "c6a2Label": _CEF_IPV6}
        extension |= {**source, "spt": str(where[1])}
    text = " ".join(f"{key}={_cef_value(value)}" for key, value in extension.items())
    return "|".join([head[0], *(_cef_head(cut_text(one, _CEF_HEAD)) for one in head[1:]), text])


def _endpoint(fields: Mapping[str, Any], entry: Entry) -> dict[str, object]:
    """Return where a connection came from: address and port, or the name of what is neither."""
    where = _ip(fields)
    if where is None:
        return {"name": str(fields.get("address") or entry.relation or "-")}
    return {"ip": str(where[0]), "port": where[1]}


def _ip(fields: Mapping[str, Any]) -> tuple[IPv4Address | IPv6Address, int] | None:
    """Return address and port, or None: a listening address is a URL, and that of a socket file is a path."""
    host, colon, port = str(fields.get("address", "")).rpartition(":")
    if not colon or not port.isdecimal() or len(port) > _LONGEST_PORT:
        return None
    try:
        return ip_address(host.strip("[]").partition("%")[0]), int(port)
    except ValueError:
        return None


def _cef_head(text: str) -> str:
    return _visible(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("\r", " ")


def _cef_value(text: str) -> str:
    escaped = _visible(text).replace("\\", "\\\\").replace("=", "\\=")
    return escaped.replace("\r", "\\r").replace("\n", "\\n")


def _visible(text: str) -> str:
    """Return text in which nothing but line ends steers a terminal or a parser."""
    return "".join(one if one.isprintable() or one in "\r\n" else f"<U+{ord(one):04X}>" for one in text)


def _fields(entry: Entry) -> dict[str, Any]:
    if entry.record is None:
        raise TypeError("damage is not an event")
    return dict(entry.record.fields)


def _failed(fields: Mapping[str, Any]) -> bool:
    return fields["kind"] in _FAILED or fields.get("decision") == "deny" or fields.get("outcome", "ok") != "ok"


def _attribute(name: str, value: object) -> dict[str, object]:
    if isinstance(value, dict):
        return {"key": name, "value": {"kvlistValue": {"values": [_attribute(key, one) for key, one in value.items()]}}}
    if isinstance(value, int):
        return {"key": name, "value": {"intValue": str(value)} if value < 1 << 63 else {"stringValue": str(value)}}
    return {"key": name, "value": {"stringValue": str(value)}}


def _nanoseconds(text: str) -> int:
    passed = datetime.fromisoformat(text) - _EPOCH
    return ((passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds) * 1_000


_FORMS: Final[Mapping[str, Callable[[Entry], str]]] = {
    "ocsf": to_ocsf,
    "otlp": to_otlp,
    "cef": to_cef,
    "jsonl": lambda entry: entry.text,
}
