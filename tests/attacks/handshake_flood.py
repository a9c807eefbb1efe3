"""Handshakes that are begun at full rate and reset: for the attack, and for the bench of what others feel."""

import resource
import socket
import struct
import threading
import time
from contextlib import suppress

from caprpc.address import Address
from caprpc.sockets import is_gone
from caprpc.tls import Identity, TlsChannel, client_context

MOST = min(3_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 3)
"""Sockets of a flood at a time: more than a listening socket holds."""
RESET = struct.pack("ii", 1, 0)


class Flood:
    """Connects from some addresses as fast as it can, says the beginning of a handshake, and resets after a while."""

    def __init__(self, address, hello, sources, keep_s):
        where = Address.parse(address)
        self._where = (where.host, where.port)
        self._hello = hello
        self._sources = sources
        self._keep_s = keep_s
        self._ends = threading.Event()
        self.begun = 0
        self._thread = threading.Thread(target=self._run, name="flood")
        self._thread.start()

    def _run(self):
        waiting = []
        try:
            while not self._ends.is_set():
                now = time.monotonic()
                for _ in range(32):
                    sock = socket.socket()
                    sock.setblocking(False)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
                    with suppress(OSError):
                        sock.bind((self._sources[self.begun % len(self._sources)], 0))
                        sock.connect_ex(self._where)
                        self.begun += 1
                    waiting.append((now, sock))
                time.sleep(0)
                for _, sock in waiting[-32:]:
                    with suppress(OSError):
                        sock.send(self._hello)
                while waiting and waiting[0][0] + self._keep_s < now:
                    waiting.pop(0)[1].close()
                while len(waiting) >= MOST and not self._ends.is_set():
                    self._drop_closed(waiting)
        finally:
            for _, sock in waiting:
                sock.close()

    def _drop_closed(self, waiting):
        """Close those that the server has closed, or whose time is over; wait a moment if there are none."""
        now = time.monotonic()
        left = [one for one in waiting if one[0] + self._keep_s >= now and not is_gone(one[1])]
        for one in set(waiting).difference(left):
            one[1].close()
        if len(left) == len(waiting):
            time.sleep(0.02)
        waiting[:] = left

    def stop(self):
        self._ends.set()
        self._thread.join(10)


def hello_of(side):
    """Return what a client says first."""
    channel = TlsChannel(client_context(Identity.load(side.identity)), server_side=False, server_hostname="127.0.0.1")
    return channel.data_to_send()
