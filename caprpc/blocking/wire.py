"""The socket of one blocking connection: reads with a deadline, sends without waiting, and what waits to be sent."""

import contextlib
import select
import socket
import struct
import time
from collections import deque
from typing import Final

from caprpc.blocking.spin import Spin

_READ_BYTES: Final = 16 * 1024
_LARGE_READ_BYTES: Final = 256 * 1024
"""After a read that came back full: one system call for many records of a large transfer. Into a buffer that is
kept, because the allocator maps and unmaps 256 KiB each time (34 µs)."""

_SLICE_S: Final = 0.5
"""The longest a thread sleeps in the kernel before it looks at its deadline."""

_PEEK: Final = socket.MSG_DONTWAIT


class Wire:
    """Owns the socket and the ciphertext that it has not taken yet; one thread reads, the lock's holder sends."""

    __slots__ = ("_buffer", "_spin", "blocked_since", "closed", "sock", "unsent", "unsent_bytes")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.unsent: deque[memoryview | bytes] | None = None
        """Made when the socket takes less than there is: an empty deque holds 600 bytes."""
        self.unsent_bytes = 0
        self.blocked_since: float | None = None
        self.closed = False
        self._buffer: bytearray | None = None
        self._spin: Spin | None = None
        sock.setblocking(True)
        seconds, fraction = divmod(_SLICE_S, 1)
        # A kernel timeout costs nothing a call; settimeout() would add a poll to each (3 µs).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(seconds), int(fraction * 1e6)))
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def opened(self) -> None:
        """Look for answers before sleeping from now on; a handshake takes the other side longer than that pays."""
        self._spin = Spin()

    def read_now(self) -> bytes | memoryview | None:
        """Return what has arrived, b"" at the end of the stream, None if there is nothing now."""
        try:
            if self._buffer is not None:
                return self._read_large(_PEEK)
            data = self.sock.recv(_READ_BYTES, _PEEK)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        if len(data) == _READ_BYTES:
            self._buffer = bytearray(_LARGE_READ_BYTES)
        return data

    def _read_large(self, flags: int) -> memoryview | bytes:
        """Read into the buffer that is kept; what is returned is good until the next read."""
        buffer = self._buffer
        if buffer is None:
            return self.sock.recv(_READ_BYTES, flags)
        count = self.sock.recv_into(buffer, 0, flags)
        if count < _READ_BYTES:
            self._buffer = None
        return memoryview(buffer)[:count] if count else b""

    def read(self, deadline: float) -> bytes | memoryview | None:
        """Wait: return what has arrived, b"" at the end of the stream, None after half a second or at the deadline."""
        spin = self._spin
        until = spin.until() if spin is not None else 0.0
        if spin is not None and until:
            clock, recv = time.perf_counter, self.sock.recv
            while True:
                try:
                    data = recv(_READ_BYTES, _PEEK) if self._buffer is None else self._read_large(_PEEK)
                except BlockingIOError:
                    if clock() > until:
                        spin.wasted()
                        break
                except OSError:
                    return b""
                else:
                    spin.paid()
                    if len(data) == _READ_BYTES:
                        self._buffer = bytearray(_LARGE_READ_BYTES)
                    return data
        left = deadline - time.monotonic()
        if left < _SLICE_S or self.unsent:
            return self._read_polling(max(0.0, min(left, _SLICE_S)))
        try:
            data = self._read_large(0)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        if len(data) == _READ_BYTES:
            self._buffer = bytearray(_LARGE_READ_BYTES)
        return data

    def send(self, cipher: bytes) -> None:
        """Send what the socket takes now and keep the rest; the connection's lock is held."""
        if self.unsent:
            self.unsent.append(cipher)
            self.unsent_bytes += len(cipher)
            return
        try:
            sent = self.sock.send(cipher, _PEEK)
        except BlockingIOError:
            sent = 0
        except OSError:
            # The reader meets the same error and ends the connection.
            return
        if sent < len(cipher):
            self.unsent = deque((memoryview(cipher)[sent:],))
            self.unsent_bytes += len(cipher) - sent
            self.blocked_since = time.monotonic()

    def send_more(self) -> bool:
        """Send what waits, as far as the socket takes it; whether all is sent. The connection's lock is held."""
        while self.unsent:
            piece = self.unsent[0]
            try:
                sent = self.sock.send(piece, _PEEK)
            except BlockingIOError:
                return False
            except OSError:
                break
            self.blocked_since = time.monotonic()
            self.unsent_bytes -= sent
            if sent < len(piece):
                self.unsent[0] = memoryview(piece)[sent:]
                return False
            self.unsent.popleft()
        self.unsent = None
        self.unsent_bytes = 0
        self.blocked_since = None
        return True

    def wait_writable(self, deadline: float) -> None:
        """Return when the socket takes more, at the deadline, or after half a second."""
        poll = select.poll()
        with contextlib.suppress(ValueError, OSError):  # closed meanwhile
            poll.register(self.sock, select.POLLOUT)
            poll.poll(max(0.0, min(deadline - time.monotonic(), _SLICE_S)) * 1000)

    def close(self) -> None:
        """Close both ways; a thread that sleeps in ``read`` wakes with the end of the stream."""
        if not self.closed:
            self.closed = True
            with contextlib.suppress(OSError):  # the peer was faster; closing is all that is left
                self.sock.shutdown(socket.SHUT_RDWR)
            self.sock.close()

    def _read_polling(self, seconds: float) -> bytes | memoryview | None:
        poll = select.poll()
        wanted = select.POLLIN | (select.POLLOUT if self.unsent else 0)
        try:
            poll.register(self.sock, wanted)
        except (ValueError, OSError):
            return b""
        ready = poll.poll(seconds * 1000)
        if ready and ready[0][1] & ~select.POLLOUT:
            return self.read_now()
        return None
