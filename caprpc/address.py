"""Addresses: ``caprpc://host:port``, ``host:port``, ``unix:/path``, ``caprpc+unix:///path`` and ``unix:@name``."""

from dataclasses import dataclass
from typing import Final

from caprpc.errors import ConfigurationError

DEFAULT_PORT: Final = 4853

LONGEST_PATH: Final = 107
"""Bytes that the address of a Unix socket has room for (unix(7))."""

_EXPECTED: Final = "caprpc://host:port, host:port, unix:/path or unix:@name expected"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or to connect: ``path`` for a Unix-domain socket, else host and port.

    A path that begins with NUL is a name in the abstract namespace of Linux, written ``unix:@name``: there is no file.
    """

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
        scheme, colon, path = text.partition(":")
        if colon and scheme in ("unix", "caprpc+unix"):
            return cls("", 0, _path(shown, path.removeprefix("//")))
        rest = text.removeprefix("caprpc://").rstrip("/")
        if "/" in rest or "@" in rest or "#" in rest or "?" in rest:
            raise ConfigurationError(f"address {shown!r}: {_EXPECTED}", where="address")
        host, colon, port_text = rest.rpartition(":")
        if not colon or rest.endswith("]"):
            host, port_text = rest, str(DEFAULT_PORT)
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port_text.isascii() or not port_text.isdigit() or int(port_text) > 65535:
            raise ConfigurationError(f"address {shown!r}: {_EXPECTED}", where="address")
        return cls(host, int(port_text))

    def __str__(self) -> str:
        if self.path:
            return f"unix:@{self.path[1:]}" if self.path.startswith("\0") else f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"caprpc://{host}:{self.port}"


def _path(text: str, path: str) -> str:
    name = path.removeprefix("@")
    if not path.startswith(("/", "@")) or not name or "\0" in path:
        raise ConfigurationError(
            f"address {text!r}: an absolute path, or @ and a name, expected after unix:", where="address"
        )
    if len(path.encode()) > LONGEST_PATH:
        raise ConfigurationError(
            f"address {text!r}: {len(path.encode())} bytes, {LONGEST_PATH} at most for a Unix socket", where="address"
        )
    return f"\0{name}" if path.startswith("@") else path
