"""The list of what a private CA has issued: ``index.json``."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from caprpc.errors import ConfigurationError

FORMAT: Final = "caprpc-pki/1"


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate that the CA signed."""

    name: str
    spiffe_id: str
    role: str
    dns_names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    serial: str = ""
    """Hexadecimal."""
    not_after: str = ""
    """ISO 8601, UTC."""
    revoked: str = ""
    """When it was revoked, ISO 8601, UTC; empty if it was not."""


@dataclass(frozen=True, slots=True)
class Index:
    """All of them, in order of issue."""

    trust_domain: str
    list_number: int
    """Number of the last revocation list; it only grows (RFC 5280, 5.2.3)."""
    issued: tuple[Issued, ...]

    def to_json(self) -> bytes:
        """Return the file's content."""
        document = {
            "format": FORMAT,
            "trust_domain": self.trust_domain,
            "list_number": self.list_number,
            "issued": [asdict(one) for one in self.issued],
        }
        return (json.dumps(document, indent=2) + "\n").encode("ascii")

    @classmethod
    def parse(cls, content: bytes, *, where: str) -> "Index":
        """Return the index that a file holds.

        Raises:
            ConfigurationError: It is damaged: without it nothing could be revoked.
        """
        try:
            document: Any = json.loads(content)
            if document["format"] != FORMAT:
                raise ValueError(f"format {document['format']!r}, expected {FORMAT!r}")
            issued = tuple(_issued(entry) for entry in document["issued"])
            return cls(str(document["trust_domain"]), int(document["list_number"]), issued)
        except (ValueError, TypeError, KeyError) as exc:
            raise ConfigurationError(
                f"damaged index: {exc}", where=where, hint="restore it from a backup; it says what can be revoked"
            ) from exc


def _issued(entry: dict[str, Any]) -> Issued:
    made = Issued(
        name=str(entry["name"]),
        spiffe_id=str(entry["spiffe_id"]),
        role=str(entry["role"]),
        dns_names=tuple(map(str, entry["dns_names"])),
        addresses=tuple(map(str, entry["addresses"])),
        serial=str(entry["serial"]),
        not_after=str(entry["not_after"]),
        revoked=str(entry["revoked"]),
    )
    # Both must parse when the next revocation list is made.
    int(made.serial, 16)
    if made.revoked:
        datetime.fromisoformat(made.revoked)
    return made
