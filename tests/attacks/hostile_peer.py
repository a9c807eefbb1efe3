"""A peer with no scruples: plain blocking sockets and our TLS channel, and any bytes that a test wants to send."""

import socket
import threading
import time
from collections import deque
from contextlib import suppress

from caprpc.address import Address
from caprpc.ids import OP_CALL, OP_ROOT
from caprpc.tls import ChannelState, Identity, TlsChannel, client_context, server_context
from caprpc.wire import messages as m
from caprpc.wire.codec import decode_message, encode_message, pack, unpack
from caprpc.wire.frame import FrameBuffer, frame
from caprpc.wire.values import OwnReference, RemoteReference

NONCE = b"\x5a" * 32
GENEROUS = m.PeerLimits(1 << 24, 1 << 20, 1 << 20, 32)
NOTHING = pack([[], {}])


class RawPeer:
    """One end of a real connection that says whatever it is told to; owns every byte that the other end has sent."""

    def __init__(self, sock, channel, *, timeout_s=5.0):
        self.sock = sock
        self.channel = channel
        self.timeout_s = timeout_s
        self.heard = bytearray()
        """All plaintext of the other end."""
        self.closed = False
        """Whether the other end has closed the connection."""
        self.welcome = None
        self.mute = False
        """Whether it keeps back what TLS wants to say by itself."""
        self._frames = FrameBuffer(1 << 24)
        self._inbox = deque()
        self._answers = {}
        self._question = 0

    def shake_hands(self):
        self._send_cipher()
        end = time.monotonic() + self.timeout_s
        while not self.channel.handshake_done and not self.closed:
            self._read(end)
        return self

    def send(self, *items):
        """Send messages, or bytes as they are, in one TLS record batch."""
        self.channel.write(b"".join(item if isinstance(item, bytes) else encode_message(item) for item in items))
        self._send_cipher()

    def send_body(self, body):
        """Send one frame of a body that may be anything."""
        self.send(frame(body))

    def try_to_send(self, *items):
        """Send if the other end still listens."""
        with suppress(OSError):
            self.send(*items)

    def _send_cipher(self):
        data = self.channel.data_to_send()
        if data:
            self.sock.settimeout(self.timeout_s)
            self.sock.sendall(data)

    def _read(self, end):
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the other end says nothing")
        self.sock.settimeout(left)
        try:
            cipher = self.sock.recv(1 << 16)
        except ConnectionError:
            cipher = b""
        if not cipher:
            self.closed = True
            return
        plain = self.channel.receive(cipher)
        if not plain:
            plain = self.channel.read()
        if self.channel.pending_out and not self.mute:
            self._send_cipher()
        self.heard += plain
        for body in self._frames.feed(plain) if plain else ():
            self._inbox.append(decode_message(bytes(body)))

    def receive(self, timeout_s=None):
        """Return the next message, None once the other end has closed."""
        end = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        while not self._inbox and not self.closed:
            self._read(end)
        return self._inbox.popleft() if self._inbox else None

    def rest(self, timeout_s=None):
        """Return every message until the other end closes; raise TimeoutError if it does not."""
        messages = []
        end = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        while True:
            message = self.receive(max(0.001, end - time.monotonic()))
            if message is None:
                return messages
            messages.append(message)

    def silence(self, seconds):
        """Return what comes within some time in which the other end must not close."""
        messages = []
        end = time.monotonic() + seconds
        with suppress(TimeoutError):
            while (left := end - time.monotonic()) > 0:
                message = self.receive(left)
                assert message is not None, "the other end has closed"
                messages.append(message)
        return messages

    def open(self, limits=GENEROUS, features=()):
        """Open as the dialer: take WELCOME and send HELLO."""
        self.shake_hands()
        self.welcome = self.receive()
        assert isinstance(self.welcome, m.Welcome), self.welcome
        self.send(m.Hello([1], NONCE, limits, list(features)))
        return self

    def next_question(self):
        self._question += 1
        return self._question

    def call(self, target, member="", args=(), kwargs=None, *, operation=OP_CALL, meta=None, payload=None):
        """Make a CALL message under the next question."""
        if payload is None:
            payload = pack([list(args), kwargs or {}])
        return m.Call(self.next_question(), target, operation, member, meta, payload)

    def ask(self, target, member="", args=(), kwargs=None, **more):
        """Call, and return the answer: RETURN or RAISE, or None if the connection was closed instead."""
        call = self.call(target, member, args, kwargs, **more)
        self.send(call)
        return self.answer(call.question)

    def answer(self, question):
        """Return the answer to a question; everything else that comes is left out."""
        while question not in self._answers:
            message = self.receive()
            if message is None:
                return None
            if isinstance(message, m.Return | m.Raise | m.BatchReturn):
                self._answers[message.question] = message
        return self._answers.pop(question)

    def value(self, target, member="", args=(), kwargs=None, **more):
        """Call, and return the value."""
        answer = self.ask(target, member, args, kwargs, **more)
        assert isinstance(answer, m.Return), answer
        return unpack(answer.payload)

    def root(self, name="vault"):
        """Return the export number of a root."""
        return self.value(0, name, operation=OP_ROOT).export

    def next_call(self):
        """Return the next CALL of the other end; the announcements before it are left out."""
        while True:
            message = self.receive()
            assert message is not None, "the other end has closed"
            if isinstance(message, m.Call):
                return message

    def close(self):
        self.sock.close()


def dial(address, side, **more):
    """Connect a hostile client with the identity of a side; it has not said anything yet."""
    identity = Identity.load(side.identity)
    where = Address.parse(address)
    sock = connect_socket(address)
    channel = TlsChannel(client_context(identity), server_side=False, server_hostname=where.host or None)
    return RawPeer(sock, channel, **more)


def connect_socket(address):
    """Return a plain socket to where a server listens."""
    where = Address.parse(address)
    if where.path:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(where.path)
        return sock
    sock = socket.create_connection((where.host, where.port), timeout=5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class HostileServer:
    """Listens with the identity of a side, takes one connection, and follows a script on a thread of its own."""

    def __init__(self, side, script, *, identity=None, alpn=True):
        self._identity = identity or Identity.load(side.identity)
        self._script = script
        self.peer = None
        self.error = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"caprpc://localhost:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, name="hostile-server")
        self._thread.start()

    def _run(self):
        try:
            self._listener.settimeout(10)
            sock, _ = self._listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.peer = RawPeer(sock, TlsChannel(server_context(self._identity), server_side=True))
            self.peer.shake_hands()
            if self.peer.channel.state is ChannelState.OPEN:
                self._script(self.peer)
        except BaseException as exc:  # shown by the test that reads it
            self.error = exc

    def close(self):
        """End it; whatever went wrong in the script is raised here."""
        self._listener.close()
        self._thread.join(15)
        if self.peer is not None:
            self.peer.close()
        if self.error is not None:
            raise self.error

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.close()
            return
        with suppress(BaseException):
            self.close()


def welcome(peer, limits=GENEROUS):
    """Open as the acceptor."""
    peer.send(m.Welcome([1], NONCE, limits, []))
    hello = peer.receive()
    assert isinstance(hello, m.Hello), hello


def reference(export, facet=1):
    return RemoteReference(export, facet)


def own(export):
    return OwnReference(export)


def until(condition, seconds=5.0):
    """Wait until something has become true that no message tells of."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
