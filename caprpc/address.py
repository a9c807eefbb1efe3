"""Addresses: ``caprpc://host:port``, ``host:port`` and ``unix:/path``."""

from dataclasses import dataclass
from typing import Final

from caprpc.errors import ConfigurationError

DEFAULT_PORT: Final = 4853


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or to connect: ``path`` for a Unix-domain socket, else host and port."""

    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Return the address that a text names.

        Raises:
            ConfigurationError: It names none.
        """
        # What stands behind # may be the secret of a sturdy reference: no message shows it.
        shown = text.partition("#")[0]
        if text.startswith("unix:"):
            path = text.removeprefix("unix:").removeprefix("//")
            if not path.startswith("/"):
                raise ConfigurationError(f"address {shown!r}: an absolute path expected after unix:")
            return cls("", 0, path)
        rest = text.removeprefix("caprpc://").rstrip("/")
        if "/" in rest or "@" in rest or "#" in rest or "?" in rest:
            raise ConfigurationError(
                f"address {shown!r}: caprpc://host:port, host:port or unix:/path expected", where="address"
            )
        host, colon, port_text = rest.rpartition(":")
        if not colon or rest.endswith("]"):
            host, port_text = rest, str(DEFAULT_PORT)
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port_text.isascii() or not port_text.isdigit() or int(port_text) > 65535:
            raise ConfigurationError(
                f"address {shown!r}: caprpc://host:port, host:port or unix:/path expected", where="address"
            )
        return cls(host, int(port_text))

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"caprpc://{host}:{self.port}"
