"""TLS 1.3 without a socket: ciphertext in, plaintext out, and back.

Why not ``SSLSocket``: two threads may not share one (OpenSSL's rule; cpython#143756, cpython#151508), and only the
owner of the ``MemoryBIO`` sees ciphertext that yields no plaintext. ADR 0002.
"""

import ssl
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Final

from caprpc.errors import LocalProtocolError
from caprpc.limits import HANDSHAKE_BYTES
from caprpc.tls.refusal import TlsRefused, refusal_of

ALPN: Final = "caprpc/1"
"""The only application protocol that either side accepts: no other service's bytes can be replayed here (ALPACA)."""

WRITE_CHUNK_BYTES: Final = 128 * 1024
"""Plaintext encrypted before the ciphertext is handed out: larger joins cost 40 to 80 % more CPU for
1 MiB."""

YIELD_CREDIT_BYTES: Final = 64 * 1024
"""Ciphertext that may arrive while it yields less than one eighth of plaintext: 2,400 KeyUpdates, or four records
under way."""

REKEY_BYTES: Final = 2**37
"""Ciphertext in one direction after which the connection should be made afresh. AES-GCM holds for 2^24.5 full records
(RFC 8446, 5.5), that is 2^38.5 bytes; small records cost up to twice as many cipher blocks a byte, and OpenSSL never
rekeys by itself."""

_READ_BYTES: Final = 64 * 1024
_TLS_HANDSHAKE_RECORD: Final = 0x16
_ENCODING_DER: Final = 2
"""The value of ``_ssl.ENCODING_DER``."""


class ChannelState(Enum):
    """Where a channel is in its life."""

    SILENT = "silent"
    """Server side: not a byte has arrived, nothing is allocated."""
    HANDSHAKE = "handshake"
    OPEN = "open"
    ENDED = "ended"
    """Closed cleanly: the peer said close_notify and everything it sent has been read, or we called ``close``."""
    TRUNCATED = "truncated"
    """The transport ended without close_notify: a lost connection, never a clean end."""
    FAILED = "failed"


class TlsChannel:
    """One side of a TLS connection; its invariant: no plaintext leaves it unless the handshake finished with ALPN
    ``caprpc/1``.

    **Not thread-safe.** OpenSSL allows one thread at a time in one connection, reading *or* writing: every method
    must be called under the one lock of the connection.

    A finished handshake proves a chain, not an identity: call ``verify_peer`` before any plaintext is read.
    """

    __slots__ = (
        "_context",
        "_debt",
        "_incoming",
        "_outgoing",
        "_read",
        "_ssl",
        "_write",
        "received_bytes",
        "sent_bytes",
        "server_hostname",
        "server_side",
        "state",
    )

    # Made by ``_begin``, with the first byte: 10,000 silent connections may not cost 10,000 OpenSSL objects.
    _ssl: ssl.SSLObject
    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None = None) -> None:
        """Make a channel; a client's first flight is in ``data_to_send()`` at once.

        Args:
            context: From ``server_context`` or ``client_context``.
            server_side: Whether we listen.
            server_hostname: Client only: sent as SNI if it is a DNS name. It is checked by ``verify_peer``, not here.
        """
        self._context = context
        self.server_side = server_side
        self.server_hostname = server_hostname
        self.state = ChannelState.SILENT
        self.received_bytes = 0
        self.sent_bytes = 0
        self._debt = 0
        # Both are None whenever plaintext may not pass, so that one look decides on the hot path.
        self._read: Callable[..., Any] | None = None
        self._write: Callable[..., int] | None = None
        if not server_side:
            self._begin()
            self._shake_hands()

    # Ciphertext in.

    def receive(self, data: bytes | memoryview) -> bytes:
        """Take received ciphertext and return all the plaintext that it completes.

        Returns ``b""`` while the handshake is under way, and in the call that finishes it: plaintext that came with
        it waits for ``read()``, so that the peer's identity can be verified first. Send ``data_to_send()`` afterwards
        if ``pending_out``: also a read can make output (KeyUpdate).

        Raises:
            TlsRefused: The peer is refused, or refused us; the alert to send is in ``data_to_send()``.
        """
        read = self._read
        if read is None:
            self.receive_data(data)
            return b""
        incoming = self._incoming
        incoming.write(data)
        size = len(data)
        self.received_bytes += size
        try:
            plain: bytes = read(size)
        except ssl.SSLError as exc:
            self._absorb(exc)
            plain = b""
        else:
            if not plain:
                self._end()
            elif incoming.pending or self._ssl.pending():
                plain = self._read_rest(plain)
        debt = self._debt + size - 8 * len(plain)
        if debt > 0:
            self._debt = debt
            if debt > YIELD_CREDIT_BYTES:
                self._refuse_yield()
        elif self._debt:
            self._debt = 0
        return plain

    def receive_data(self, data: bytes | memoryview) -> None:
        """Take received ciphertext and go on with the handshake; plaintext is left for ``read`` and ``read_into``.

        Raises:
            TlsRefused: As for ``receive``.
        """
        state = self.state
        if state is ChannelState.SILENT and len(data):
            if data[0] != _TLS_HANDSHAKE_RECORD:
                self.state = ChannelState.FAILED
                raise TlsRefused("foreign", f"expected a TLS handshake, got a first byte of 0x{data[0]:02x}")
            self._begin()
            state = self.state
        self.received_bytes += len(data)
        if state is ChannelState.OPEN:
            self._incoming.write(data)
            self._debt += len(data)
        elif state is ChannelState.HANDSHAKE:
            if self.received_bytes > HANDSHAKE_BYTES:
                self._fail()
                raise TlsRefused(
                    "handshake-bytes",
                    f"{self.received_bytes} bytes before the handshake finished, at most {HANDSHAKE_BYTES} allowed",
                )
            self._incoming.write(data)
            self._shake_hands()

    def receive_eof(self) -> None:
        """Take note that the transport ended: ``state`` tells a clean end from a truncated one.

        Raises:
            TlsRefused: The handshake had not finished.
        """
        if self.state is ChannelState.OPEN:
            self._read = self._write = None
            self.state = ChannelState.TRUNCATED
        elif self.state in (ChannelState.SILENT, ChannelState.HANDSHAKE):
            self._fail()
            raise TlsRefused("closed", "the peer closed the connection before the TLS handshake finished")

    # Plaintext out.

    def read(self) -> bytes:
        """Return all plaintext that has arrived; ``b""`` if there is none now.

        Raises:
            TlsRefused: As for ``receive``.
        """
        if self._read is None:
            return b""
        plain = self._read_rest(b"")
        self._settle(len(plain))
        return plain

    def read_into(self, view: memoryview) -> int:
        """Decrypt straight into ``view`` and return how much of it was filled; 0 if nothing has arrived.

        Fills as much as there is, so one call a received chunk is enough.

        Raises:
            TlsRefused: As for ``receive``.
        """
        read = self._read
        filled = 0
        size = len(view)
        while filled < size and read is not None and self._has_input():
            try:
                count: int = read(size - filled, view[filled:])
            except ssl.SSLError as exc:
                self._absorb(exc)
                break
            if not count:
                self._end()
                break
            filled += count
        self._settle(filled)
        return filled

    # Plaintext in, ciphertext out.

    def seal(self, data: bytes | bytearray | memoryview) -> bytes:
        """Encrypt a message and return all the ciphertext that waits to be sent.

        Raises:
            LocalProtocolError: The channel is not open.
        """
        write = self._write
        if write is None:
            raise LocalProtocolError(f"write on a TLS channel that is {self.state.value}")
        if write(data) != len(data):
            raise LocalProtocolError("OpenSSL took a part of the data")
        cipher = self._outgoing.read()
        self.sent_bytes += len(cipher)
        return cipher

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt a message; the ciphertext waits in ``data_to_send()``. For large data use ``write_chunks``.

        Raises:
            LocalProtocolError: The channel is not open.
        """
        write = self._write
        if write is None:
            raise LocalProtocolError(f"write on a TLS channel that is {self.state.value}")
        write(data)

    def write_chunks(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """Encrypt large data piece by piece, 128 KiB each; every piece is to be sent before the next is asked for.

        Raises:
            LocalProtocolError: The channel is not open.
        """
        view = memoryview(data)
        for start in range(0, len(view), WRITE_CHUNK_BYTES):
            yield self.seal(view[start : start + WRITE_CHUNK_BYTES])

    def data_to_send(self) -> bytes:
        """Return the ciphertext that waits, which may be an alert after a refusal; ``b""`` if there is none."""
        if not self.pending_out:
            return b""
        cipher = self._outgoing.read()
        self.sent_bytes += len(cipher)
        return cipher

    @property
    def pending_out(self) -> int:
        """Bytes of ciphertext that wait to be sent."""
        return self._outgoing.pending if hasattr(self, "_outgoing") else 0

    def close(self) -> None:
        """Say close_notify, which waits in ``data_to_send()``; what the peer still sends is ignored."""
        if self._write is not None:
            self._read = self._write = None
            self.state = ChannelState.ENDED
            try:
                self._ssl.unwrap()
            except ssl.SSLError:
                # Wants the peer's close_notify, or met data before it; ours has been written either way.
                return

    # What the handshake left.

    @property
    def handshake_done(self) -> bool:
        """Whether the handshake has finished; the chain verified and ALPN is right, the identity is not yet proved."""
        return self._read is not None

    @property
    def rekey_due(self) -> bool:
        """Whether so much was encrypted in one direction that the connection should be replaced by a fresh one."""
        return self.received_bytes > REKEY_BYTES or self.sent_bytes > REKEY_BYTES

    @property
    def cipher(self) -> str:
        """The cipher suite, for the audit log; empty before the handshake has finished."""
        suite = self._ssl.cipher() if self.handshake_done else None
        return suite[0] if suite else ""

    def verified_chain(self) -> tuple[bytes, ...]:
        """Return the chain that OpenSSL verified as DER, leaf first, trust anchor last; empty before the handshake
        has finished.
        """
        if not self.handshake_done:
            return ()
        if sys.version_info >= (3, 13):
            return tuple(self._ssl.get_verified_chain())
        # Python 3.11 and 3.12 have it on the inner object only, and it returns objects.
        inner: Any = getattr(self._ssl, "_sslobj")  # noqa: B009 - mypy does not know the attribute
        return tuple(certificate.public_bytes(_ENCODING_DER) for certificate in inner.get_verified_chain() or ())

    # Inside.

    def _begin(self) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = self._context.wrap_bio(
            self._incoming, self._outgoing, server_side=self.server_side, server_hostname=self.server_hostname
        )
        self.state = ChannelState.HANDSHAKE

    def _shake_hands(self) -> None:
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as exc:
            self._fail()
            raise refusal_of(exc, handshaking=True) from exc
        selected = self._ssl.selected_alpn_protocol()
        if self._ssl.session_reused:
            self._fail()
            raise TlsRefused("handshake", "the session was resumed, and revocation not checked")
        if selected != ALPN:
            self._fail()
            raise TlsRefused("alpn", f"expected the application protocol {ALPN}, the peer offers {selected or 'none'}")
        self.state = ChannelState.OPEN
        # The wrapper methods of ssl.SSLObject cost 0.12 µs each and do nothing for a read without a buffer.
        inner: Any = getattr(self._ssl, "_sslobj")  # noqa: B009 - mypy does not know the attribute
        self._read = inner.read
        self._write = inner.write

    def _has_input(self) -> bool:
        return bool(self._incoming.pending or self._ssl.pending())

    def _read_rest(self, first: bytes) -> bytes:
        """Read on until nothing is left, and return it behind ``first``."""
        pieces = [first]
        while self._has_input():
            try:
                piece = self._ssl.read(_READ_BYTES)
            except ssl.SSLError as exc:
                self._absorb(exc)
                break
            if not piece:
                self._end()
                break
            pieces.append(piece)
        return b"".join(pieces)

    def _absorb(self, error: ssl.SSLError) -> None:
        """Take an error of a read: half a record is none, close_notify is an end, all others kill the channel."""
        if isinstance(error, ssl.SSLWantReadError):
            return
        if isinstance(error, ssl.SSLZeroReturnError):
            self._end()
            return
        self._fail()
        raise refusal_of(error, handshaking=False) from error

    def _settle(self, plain_bytes: int) -> None:
        """Pay the debt of received ciphertext with the plaintext it gave; once all is read, the rest must be small."""
        debt = self._debt - 8 * plain_bytes
        self._debt = max(debt, 0)
        if debt > YIELD_CREDIT_BYTES and not self._has_input():
            self._refuse_yield()

    def _refuse_yield(self) -> None:
        self._fail()
        raise TlsRefused(
            "yield", f"more than {YIELD_CREDIT_BYTES} bytes of ciphertext gave less than one eighth of plaintext"
        )

    def _end(self) -> None:
        """The peer will send no more; we still may."""
        self._read = None
        self.state = ChannelState.ENDED

    def _fail(self) -> None:
        self._read = self._write = None
        self.state = ChannelState.FAILED
