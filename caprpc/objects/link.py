"""One connection without its socket: ciphertext in, events and ciphertext out.

Wires the TLS channel, the admission of the peer, the session and its capability layer together. No byte of a peer
is decoded before ``Admission`` has proved who it is.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from caprpc.errors import AuditError, IdentityRefused, RemoteProtocolError, printable
from caprpc.ids import new_reference
from caprpc.limits import DEFAULT_LIMITS
from caprpc.objects.admission import VALIDITY_CHECK_S, Admission, Admitted
from caprpc.objects.endpoint import Endpoint
from caprpc.objects.outgoing import Outgoing
from caprpc.objects.records import Recorder
from caprpc.objects.restoring import Restoring
from caprpc.objects.revocation import OPEN
from caprpc.objects.roots import RootNames, root_export
from caprpc.objects.stubs import Caller
from caprpc.objects.transfer import StubMaker
from caprpc.policy import buffer_share
from caprpc.session import FEATURE_WITNESS, UNBOUNDED, Closer, Ended, Event, Exports, Opening, Session, State, tighten
from caprpc.tls import WRITE_CHUNK_BYTES, ChannelState, TlsChannel, TlsRefused, sealed_in_chunks
from caprpc.wire import codec
from caprpc.wire.messages import Checkpoint, Cosigned, GoAway

_WRITABLE: Final = (ChannelState.OPEN, ChannelState.ENDED)

_BULK_SIGN: Final = 4 * 1024
"""More plaintext than this in one read may be the beginning of a large frame."""


class Way(NamedTuple):
    """How the two sides met."""

    address: str
    """Of the other side, for people."""
    hostname: str | None
    """What we dialed, if it has a name or an address."""
    expected: str | None
    """The principal that must answer, if the caller said so."""


class Link:
    """Owns the order handshake, identity, session. The driver holds the connection's lock around every call."""

    __slots__ = (
        "_admission",
        "_bulk",
        "_caller",
        "_our_leaf_key",
        "_receive",
        "_unsent",
        "_way",
        "admitted",
        "channel",
        "ended",
        "endpoint",
        "outgoing",
        "session",
        "started",
    )

    session: Session
    endpoint: Endpoint
    outgoing: Outgoing

    def __init__(
        self,
        admission: Admission,
        caller: Caller,
        *,
        acceptor: bool,
        hostname: str | None,
        address: str,
        expected: str | None,
        now: float,
    ) -> None:
        self._admission = admission
        self._caller = caller
        self._way = Way(address, hostname, expected)
        self._unsent: list[bytes] = []
        epoch = admission.epoch
        self._our_leaf_key = epoch.identity.leaf_key
        self.channel: TlsChannel = epoch.channel(acceptor=acceptor, hostname=hostname)
        self._receive = self.channel.receive
        self._bulk = False
        self.admitted: Admitted | None = None
        self.ended: Ended | None = None
        self.started = now

    def receive(self, data: bytes | memoryview, now: float, most: int = UNBOUNDED) -> list[Event]:
        """Take received ciphertext; return what happened, in order.

        Once the messages have cost ``most``, the rest is left for ``go_on``: ``behind`` tells of it.
        """
        try:
            if self._bulk:
                events = self._receive_bulk(data, now, most)
            elif plain := self._receive(data):
                events = self.session.receive_data(plain, now, most)
                if len(plain) > _BULK_SIGN:
                    self._bulk = self.session.frames.awaits_bulk
            elif self.admitted is None:
                if not self.channel.handshake_done:
                    return []
                self._admit(now)
                plain = self.channel.read()
                events = self.session.receive_data(plain, now) if plain else []
            else:
                events = []
        except (TlsRefused, IdentityRefused) as exc:
            return self._refuse(exc)
        if self.channel.state is not ChannelState.OPEN:
            self._note_silence(events)
        if events and type(events[-1]) is Ended:
            self._note_end(events)
        return events

    def go_on(self, now: float, most: int = UNBOUNDED) -> list[Event]:
        """Handle more of what ``receive`` has left; return what happened, in order."""
        session = self.session
        events = session.go_on(now, most)
        self._bulk = session.frames.awaits_bulk
        if self.channel.state is not ChannelState.OPEN:
            self._note_silence(events)
        if events and type(events[-1]) is Ended:
            self._note_end(events)
        return events

    @property
    def behind(self) -> bool:
        """Whether messages have been received that wait for ``go_on``."""
        return self.admitted is not None and self.session.frames.rest is not None

    def _note_silence(self, events: list[Event]) -> None:
        """The peer will send no more; what it has sent before comes first."""
        if self.ended is None and not self.behind:
            self.session.connection_lost("the peer ended the TLS connection", events)

    def _receive_bulk(self, data: bytes | memoryview, now: float, most: int) -> list[Event]:
        """Decrypt straight into the large frame that is under way, and go on with what is behind it."""
        channel, session = self.channel, self.session
        channel.receive_data(data)
        events = session.receive_bulk(channel.read_into, now)
        if not session.frames.awaits_bulk:
            plain = channel.read()
            if plain:
                events += session.receive_data(plain, now, most)
            self._bulk = session.frames.awaits_bulk
        return events

    def receive_eof(self, now: float) -> list[Event]:
        """Take note that the transport has ended."""
        events: list[Event] = []
        try:
            self.channel.receive_eof()
        except TlsRefused as exc:
            return self._refuse(exc)
        if self.admitted is not None:
            self.session.connection_lost(f"{printable(self.session.peer.principal)} closed the connection", events)
            self._note_end(events)
        return events

    def lost(self, detail: str) -> list[Event]:
        """Take note that the transport failed."""
        events: list[Event] = []
        if self.admitted is not None:
            self.session.connection_lost(detail, events)
            self._note_end(events)
        elif self.ended is None:
            self.ended = Ended("lost", detail, by_peer=True)
            events.append(self.ended)
        return events

    def abort(self, code: str, detail: str) -> list[Event]:
        """End the connection from our side."""
        events: list[Event] = []
        if self.admitted is not None:
            self.session.abort(code, detail, events)
            self._note_end(events)
        elif self.ended is None:
            self.ended = Ended(code, detail, by_peer=False)
            events.append(self.ended)
        return events

    def expel(self) -> list[Event]:
        """End everything that the peer holds, and the connection: from here on it is permitted nothing."""
        if self.admitted is None or self.ended is not None:
            return []
        events = self.endpoint.revoke(Exports.live, cut=True)
        self.admitted.guard.narrow(None)
        return events + self.abort("revoked", f"everything that {self.admitted.peer.principal} held was revoked")

    def data_to_send(self) -> Iterable[bytes]:
        """Return the ciphertext to send, in pieces; iterate over all of it, sending each piece before the next."""
        channel = self.channel
        if self.admitted is not None and self.ended is None:
            frames = self.session.data_to_send()
            if len(frames) == 1 and len(frames[0]) <= WRITE_CHUNK_BYTES:
                return (channel.seal(frames[0]),)
            if frames:
                return sealed_in_chunks(channel, frames)
            return (channel.data_to_send(),) if channel.pending_out else ()
        return self._last_data()

    def _last_data(self) -> Iterator[bytes]:
        """Yield what is to be sent while the handshake is under way, and after the end."""
        channel = self.channel
        frames = self._unsent or (self.session.data_to_send() if self.admitted is not None else [])
        self._unsent = []
        if frames and channel.state in _WRITABLE:
            yield from sealed_in_chunks(channel, frames)
        if self.ended is not None:
            channel.close()
        if channel.pending_out:
            yield channel.data_to_send()

    @property
    def address(self) -> str:
        """Of the other side, for people; on the side that dialed, what was dialed."""
        return self._way.address

    @property
    def wants_to_send(self) -> bool:
        """Whether ``data_to_send`` would yield anything."""
        if self.admitted is not None and self.session.wants_to_send:
            return True
        return bool(self._unsent) or bool(self.channel.pending_out)

    @property
    def write_high_water_bytes(self) -> int:
        """Bytes waiting to be sent above which the peer's calls are not read (``limits.write_high_water_bytes``)."""
        limits = self.session.limits if self.admitted is not None else DEFAULT_LIMITS
        if self.admitted is None:
            return limits.write_high_water_bytes
        return buffer_share(limits, self.admitted.connections)

    def deadline(self) -> float:
        """Return the time of the next ``tick``, seconds of the monotonic clock."""
        if self.admitted is None:
            return self.started + self._admission.server_limits.handshake_timeout_s
        if self.admitted.witnessing and self.admitted.witness.waiting:
            return 0.0
        return min(self.session.deadline(), self.admitted.checked_at + VALIDITY_CHECK_S)

    def tick(self, now: float) -> list[Event]:
        """Do what is due: handshake timeout, signs of life, the peer's certificate and policy."""
        if self.ended is not None:
            return []
        if self.admitted is None:
            if now < self.deadline():
                return []
            limit = self._admission.server_limits.handshake_timeout_s
            return self._refuse(TlsRefused("timeout", f"no handshake within {limit:g} s (handshake_timeout_s)"))
        events: list[Event] = []
        self.endpoint.recorder.failures.tick(now)
        if now >= self.admitted.checked_at + VALIDITY_CHECK_S:
            events = self.check_validity()
        if self.ended is None:
            self.session.tick(now, events)
            if self.admitted.witnessing:
                self._show_checkpoints(self.admitted)
            if self.channel.rekey_due and self.session.state is not State.CLOSED:
                self._wear_out(events)
            self._note_end(events)
        return events

    def _wear_out(self, events: list[Event]) -> None:
        """Have a connection that has encrypted too much under one key end once nothing is under way."""
        self.session.drain()
        if self.session.drained:
            self.session.abort("closed", "the connection has carried as much as its keys are good for", events)

    def closing(self) -> list[Closer]:
        """Return what the peer has let go of, and forget it: the driver closes it on some thread, without the lock."""
        if self.admitted is None:
            return []
        exports = self.session.exports
        closers = exports.closing
        if closers:
            exports.closing = []
        return closers

    def check_validity(self) -> list[Event]:
        """End the connection if the peer's certificate has expired or was revoked, or no policy is for it any more."""
        if self.admitted is None or self.ended is not None:
            return []
        reason = self._admission.check_still_valid(self.admitted)
        if reason is not None:
            return self.abort(reason.code, reason.detail)
        tighten(self.session, self.admitted.guard.limits)
        return []

    def protocol_error(self, exc: RemoteProtocolError) -> list[Event]:
        """End the connection because the peer broke the protocol."""
        return self.abort("protocol-error", str(exc))

    def _admit(self, now: float) -> None:
        admitted = self._admission.admit(self.channel, self._way.hostname, self._way.address, self._way.expected)
        peer, policy = admitted.peer, admitted.policy
        log = self._admission.log
        recorder = Recorder(
            log.lasting(peer.principal, policy.audit_durability),
            peer.principal,
            policy.audit_level,
            log.redactor if policy.audit_arguments == "digest" else None,
        )
        opening = Opening(
            acceptor=self.channel.server_side,
            our_leaf_key=self._our_leaf_key,
            peer_leaf_key=peer.leaf_key,
            policy=policy.digest,
        )
        root = root_export(self._admission.served.roots, peer, admitted.guard)
        session = Session(peer, admitted.guard, root, opening, now)
        stubs = StubMaker(self._caller)
        admitted.pools.join(session.limits, admitted.connections, session.holding())
        session.liveness.glitches.shared = admitted.pools.glitches
        self.session = session
        names: RootNames = root.obj  # type: ignore[assignment]
        restoring = Restoring(self._admission, admitted.guard, peer.principal, names, recorder.fact)
        self.endpoint = Endpoint(session, recorder, stubs, names, restoring, self._caller)
        self.outgoing = Outgoing(session, stubs, self._caller)
        self.admitted = admitted

    def opened(self) -> None:
        """Record that the connection is open; the driver calls it on ``Opened``, before anything else runs.

        Raises:
            AuditError: It could not be recorded.
        """
        admitted = self.admitted
        if admitted is not None:
            OPEN.add(self._caller)
            recorder = self.endpoint.recorder
            recorder.connection_id = self.session.opening.connection_id
            recorder.fact(
                "open",
                address=self._way.address,
                anchor=admitted.peer.anchor,
                leaf=admitted.peer.leaf_key,
                rule=admitted.policy.peer_rule,
                policy=admitted.policy.digest,
            )
            admitted.witnessing = FEATURE_WITNESS in self.session.opening.features
            self._show_checkpoints(admitted)

    def witnessed(self, message: Checkpoint | Cosigned) -> None:
        """Keep what the peer says about the audit logs until the next tick of ours."""
        if self.admitted is not None:
            self.admitted.witness.receive(message)

    def _show_checkpoints(self, admitted: Admitted) -> None:
        """Send what waits about the audit logs."""
        if admitted.witnessing and self.session.state is State.OPEN:
            for message in admitted.witness.take():
                self.session.queue(message)
        else:
            admitted.witnessing = False

    def _note_end(self, events: list[Event]) -> None:
        if self.ended is not None or self.admitted is None:
            return
        for event in events:
            if type(event) is Ended:
                self.ended = event
                self._admission.release(self.admitted)
                self.admitted.pools.leave(self.session.holding())
                self._record_end(event)

    def _record_end(self, event: Ended) -> None:
        self.endpoint.recorder.failures.sum_up()
        detail, reference = printable(event.detail, 512), event.reference
        if event.by_peer and reference:
            # A number of the peer's log: in a field of ours it would be looked for here.
            detail, reference = f"{detail} (reference number of the peer: {reference})", ""
        try:
            asked = self.session.asked.count
            self.endpoint.recorder.fact("close", reason=event.code, detail=detail, reference=reference, count=asked)
        except AuditError:
            # The connection is over either way; the log itself reports that it could not be written.
            return

    def _refuse(self, exc: Exception) -> list[Event]:
        if self.admitted is not None:
            events = self.lost(f"TLS: {exc}")
        else:
            reference = new_reference()
            # A side that dialed has said nothing yet and does not begin with a server that it refuses.
            if self.channel.state in _WRITABLE and self.channel.server_side:
                self._unsent = [codec.encode_message(GoAway("refused", "", reference))]
            self._admission.rejected(self._way.address, self.channel, exc, reference)
            self.ended = Ended("refused", str(exc), by_peer=False, reference=reference)
            events = [self.ended]
        return events
