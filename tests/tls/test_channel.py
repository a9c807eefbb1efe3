"""The channel: bytes in, bytes out, and every way in which it ends."""

import ssl
import tracemalloc

import pytest

from caprpc.errors import LocalProtocolError
from caprpc.limits import HANDSHAKE_BYTES
from caprpc.tls import ChannelState, TlsChannel, TlsRefused
from caprpc.tls.channel import REKEY_BYTES, WRITE_CHUNK_BYTES, YIELD_CREDIT_BYTES


def test_message_arrives_whole_in_both_directions(world):
    server, client = world.pair()
    assert server.receive(client.seal(b"question")) == b"question"
    assert client.receive(server.seal(b"answer")) == b"answer"


def test_several_records_in_one_delivery_are_returned_together(world):
    server, client = world.pair()
    assert server.receive(client.seal(b"one") + client.seal(b"two") + client.seal(b"three")) == b"onetwothree"


def test_record_split_at_every_byte_arrives_whole(world):
    server, client = world.pair()
    cipher = client.seal(b"patience")
    assert [server.receive(cipher[i : i + 1]) for i in range(len(cipher))][-1] == b"patience"


def test_half_a_record_with_a_whole_one_gives_the_whole_one_now(world):
    server, client = world.pair()
    whole, half = client.seal(b"whole"), client.seal(b"later")
    assert server.receive(whole + half[:9]) == b"whole"
    assert server.receive(half[9:]) == b"later"


def test_message_larger_than_the_delivery_that_completes_it_arrives_whole(world):
    server, client = world.pair()
    cipher = client.seal(b"x" * 16_000)
    assert server.receive(cipher[:-1]) == b""
    assert server.receive(cipher[-1:]) == b"x" * 16_000


def test_small_exchange_provokes_no_exception_in_openssl(world, monkeypatch):
    server, client = world.pair()
    cipher = client.seal(b"x" * 50)
    absorbed = []
    monkeypatch.setattr(TlsChannel, "_absorb", lambda self, error: absorbed.append(error))
    assert server.receive(cipher) == b"x" * 50
    assert absorbed == []


def test_memoryview_is_taken_as_bytes_are(world):
    server, client = world.pair()
    assert server.receive(memoryview(bytearray(client.seal(b"view")))) == b"view"


def test_large_payload_is_read_straight_into_a_buffer(world):
    server, client = world.pair()
    payload = bytes(range(256)) * 2048
    target = bytearray(len(payload))
    filled = 0
    for piece in client.write_chunks(payload):
        server.receive_data(piece)
        filled += server.read_into(memoryview(target)[filled:])
    assert filled == len(payload)
    assert target == payload


def test_read_into_leaves_what_does_not_fit_for_the_next_read(world):
    server, client = world.pair()
    server.receive_data(client.seal(b"headbody"))
    head = bytearray(4)
    assert server.read_into(memoryview(head)) == 4
    assert (bytes(head), server.read()) == (b"head", b"body")


def test_read_returns_everything_that_has_arrived(world):
    server, client = world.pair()
    cipher = client.seal(b"x" * 100_000) + client.seal(b"end")
    server.receive_data(cipher[:-5])
    assert server.read() == b"x" * 100_000
    server.receive_data(cipher[-5:])
    assert server.read() == b"end"
    assert server.read() == b""


def test_read_into_with_nothing_there_fills_nothing(world):
    server, _ = world.pair()
    assert server.read_into(memoryview(bytearray(4))) == 0


def test_write_chunks_gives_ciphertext_before_all_is_encrypted(world):
    _, client = world.pair()
    pieces = client.write_chunks(b"x" * (2 * WRITE_CHUNK_BYTES + 1))
    assert WRITE_CHUNK_BYTES < len(next(pieces)) < WRITE_CHUNK_BYTES + 4096
    assert len(list(pieces)) == 2


def test_written_data_waits_until_it_is_asked_for(world):
    server, client = world.pair()
    client.write(b"queued")
    assert client.pending_out > 0
    assert server.receive(client.data_to_send()) == b"queued"
    assert client.pending_out == 0


def test_silent_server_channel_allocates_less_than_a_kibibyte(world):
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    channels = [world.server_channel() for _ in range(200)]
    each = (tracemalloc.get_traced_memory()[0] - before) / len(channels)
    tracemalloc.stop()
    assert each < 1024
    assert not any(hasattr(channel, "_ssl") for channel in channels)


def test_silent_server_channel_has_nothing_to_send(world):
    channel = world.server_channel()
    assert (channel.state, channel.pending_out, channel.data_to_send()) == (ChannelState.SILENT, 0, b"")


def test_client_speaks_first_in_tls(world):
    assert world.client_channel().data_to_send()[0] == 0x16


def test_plaintext_that_came_with_the_finished_waits_for_the_identity_check(world):
    server, client = world.server_channel(), world.client_channel()
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    flight = client.data_to_send() + client.seal(b"early")
    assert server.receive(flight) == b""
    assert server.handshake_done
    assert server.read() == b"early"


def test_write_before_the_handshake_is_refused(world):
    channel = world.client_channel()
    for write in (channel.seal, channel.write, lambda data: list(channel.write_chunks(data))):
        with pytest.raises(LocalProtocolError, match="handshake"):
            write(b"too early")


def test_close_notify_is_a_clean_end_and_data_before_it_is_kept(world):
    server, client = world.pair()
    last = client.seal(b"last words")
    client.close()
    assert server.receive(last + client.data_to_send()) == b"last words"
    assert server.state is ChannelState.ENDED
    server.receive_eof()
    assert server.state is ChannelState.ENDED


def test_close_notify_seen_by_read_is_a_clean_end(world):
    server, client = world.pair()
    client.close()
    server.receive_data(client.data_to_send())
    assert server.read() == b""
    assert server.state is ChannelState.ENDED


def test_end_without_close_notify_is_a_truncation(world):
    server, client = world.pair()
    server.receive(client.seal(b"first half"))
    server.receive_eof()
    assert server.state is ChannelState.TRUNCATED
    with pytest.raises(LocalProtocolError):
        server.seal(b"into the void")


def test_end_in_the_middle_of_a_record_is_a_truncation(world):
    server, client = world.pair()
    assert server.receive(client.seal(b"cut off")[:-3]) == b""
    server.receive_eof()
    assert server.state is ChannelState.TRUNCATED


def test_answer_may_follow_the_peers_close_notify(world):
    server, client = world.pair()
    client.close()
    server.receive(client.data_to_send())
    assert len(server.seal(b"goodbye")) > 0


def test_data_after_close_notify_is_ignored(world):
    server, client = world.pair()
    extra = client.seal(b"x")
    client.close()
    server.receive(client.data_to_send().join([extra, b""]))
    assert server.receive(b"\x17\x03\x03\x00\x20" + bytes(32)) == b""
    assert server.state is ChannelState.ENDED


def test_close_is_idempotent_and_harmless_before_the_handshake(world):
    _, client = world.pair()
    client.close()
    client.data_to_send()
    client.close()
    assert client.pending_out == 0
    world.server_channel().close()


def test_close_with_unread_data_of_the_peer_still_says_close_notify(world):
    server, client = world.pair()
    client.receive_data(server.seal(b"unread"))
    client.close()
    server.receive(client.data_to_send())
    assert server.state is ChannelState.ENDED


def test_end_during_the_handshake_is_a_refusal(world):
    server, client = world.server_channel(), world.client_channel()
    server.receive_data(client.data_to_send()[:50])
    with pytest.raises(TlsRefused, match="closed") as caught:
        server.receive_eof()
    assert caught.value.code == "closed"
    assert server.state is ChannelState.FAILED


def test_changed_byte_kills_the_channel(world):
    server, client = world.pair()
    cipher = bytearray(client.seal(b"untouched"))
    cipher[-1] ^= 1
    with pytest.raises(TlsRefused) as caught:
        server.receive(cipher)
    assert caught.value.code == "record"
    assert server.state is ChannelState.FAILED
    assert server.pending_out > 0, "the alert"


def test_replayed_record_kills_the_channel(world):
    server, client = world.pair()
    cipher = client.seal(b"once")
    server.receive(cipher)
    with pytest.raises(TlsRefused):
        server.receive(cipher)


def test_failed_channel_takes_and_gives_nothing(world):
    server, client = world.pair()
    with pytest.raises(TlsRefused):
        server.receive(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert server.receive(client.seal(b"still here?")) == b""
    assert server.read() == b""
    assert server.verified_chain() == ()


def flood(deliver) -> tuple[TlsRefused, int]:
    """Deliver until the channel refuses; return the refusal and how many bytes it took without one."""
    sent = 0
    try:
        while sent < 1024 * 1024:
            sent += deliver()
    except TlsRefused as refusal:
        return refusal, sent
    pytest.fail(f"{sent} bytes were taken")


@pytest.mark.parametrize(("content", "batch"), [(b"", 20), (b"", 5_000), (b"x", 20), (b"x", 5_000)])
def test_flood_of_tiny_records_is_refused(forge, content, batch):
    channel, records = forge

    def deliver() -> int:
        data = b"".join(records.application_data(content) for _ in range(batch))
        channel.receive(data)
        return len(data)

    refusal, sent = flood(deliver)
    # OpenSSL itself refuses 33 empty records in a row.
    assert refusal.code == "yield" if content else refusal.code in {"yield", "record"}
    assert sent < 2 * YIELD_CREDIT_BYTES


@pytest.mark.parametrize("split", [False, True], ids=["receive", "receive_data and read"])
@pytest.mark.parametrize("requested", [False, True])
def test_flood_of_key_updates_is_refused(forge, requested, split):
    channel, records = forge

    def deliver() -> int:
        data = b"".join(records.key_update(requested=requested) for _ in range(20))
        if split:
            channel.receive_data(data)
            channel.read()
        else:
            channel.receive(data)
        channel.data_to_send()
        return len(data)

    refusal, sent = flood(deliver)
    assert refusal.code == "yield"
    assert sent < 2 * YIELD_CREDIT_BYTES


def test_key_update_is_answered_and_the_channel_goes_on(forge):
    channel, records = forge
    usual = len(channel.seal(b"answer"))
    assert channel.receive(records.key_update(requested=True)) == b""
    assert channel.pending_out + len(channel.seal(b"answer")) > usual, "our own KeyUpdate goes before the answer"
    assert channel.receive(records.application_data(b"under the new key")) == b"under the new key"


def test_useful_traffic_never_runs_out_of_yield(world):
    server, client = world.pair()
    for _ in range(50):
        cipher = client.seal(b"y" * 16_384)
        for start in range(0, len(cipher), 1_000):
            server.receive(cipher[start : start + 1_000])
    for _ in range(5_000):
        server.receive(client.seal(b"small message"))
    assert server.state is ChannelState.OPEN


@pytest.mark.parametrize(
    ("kind", "body"),
    [(1, bytes(60)), (13, bytes(10)), (11, bytes(4)), (20, bytes(48)), (4, bytes(20)), (99, b"")],
    ids=["ClientHello", "CertificateRequest", "Certificate", "Finished", "NewSessionTicket", "unknown"],
)
def test_post_handshake_message_kills_the_channel(forge, kind, body):
    channel, records = forge
    with pytest.raises(TlsRefused):
        channel.receive(records.handshake_message(kind, body))
    assert channel.state is ChannelState.FAILED


def test_unencrypted_record_after_the_handshake_kills_the_channel(forge):
    channel, _ = forge
    with pytest.raises(TlsRefused):
        channel.receive(b"\x14\x03\x03\x00\x01\x01" * 40)


def test_endless_client_hello_is_refused(world):
    channel = world.server_channel()
    # A ClientHello that announces more than it brings, in plausible records.
    first = b"\x16\x03\x01\x40\x00" + b"\x01\x00\xff\xff" + bytes(0x4000 - 4)
    more = b"\x16\x03\x01\x40\x00" + bytes(0x4000)
    deliveries = iter([first] + [more] * 100)

    def deliver() -> int:
        data = next(deliveries)
        channel.receive_data(data)
        return len(data)

    refusal, sent = flood(deliver)
    assert refusal.code in {"handshake-bytes", "handshake"}
    assert sent <= HANDSHAKE_BYTES


def test_bytes_of_a_handshake_at_the_edge_of_their_bound(world):
    codes = []
    for size in (HANDSHAKE_BYTES, HANDSHAKE_BYTES + 1):
        with pytest.raises(TlsRefused) as caught:
            world.server_channel().receive_data(b"\x16\x03\x01" + bytes(size - 3))
        codes.append(caught.value.code)
    assert codes[0] != "handshake-bytes"
    assert codes[1] == "handshake-bytes"


def test_handshake_bytes_over_the_bound_are_not_given_to_openssl(world):
    channel = world.server_channel()
    with pytest.raises(TlsRefused) as caught:
        channel.receive_data(b"\x16\x03\x01" + bytes(HANDSHAKE_BYTES))
    assert caught.value.code == "handshake-bytes"
    assert channel.pending_out == 0


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", b"\x80\x04\x95", b"\x00", b"\xff" * 100])
def test_foreign_protocol_is_refused_at_its_first_byte_without_an_answer(world, data):
    channel = world.server_channel()
    with pytest.raises(TlsRefused) as caught:
        channel.receive_data(data)
    assert caught.value.code == "foreign"
    assert channel.data_to_send() == b""
    assert not hasattr(channel, "_ssl"), "nothing was allocated"


def test_garbage_after_a_plausible_first_byte_is_refused(world):
    channel = world.server_channel()
    with pytest.raises(TlsRefused) as caught:
        channel.receive_data(b"\x16" + bytes(range(200)))
    assert caught.value.code == "handshake"


def test_plaintext_hidden_behind_the_client_hello_never_becomes_data(world):
    """CVE-2023-40217: bytes sent before the handshake must not be read as if it had taken place."""
    channel = world.server_channel()
    channel.receive_data(world.client_channel().data_to_send())
    with pytest.raises(TlsRefused):
        channel.receive_data(b"\x17\x03\x03\x00\x05hello")
    assert channel.read() == b""


def test_rekey_is_due_after_the_bound_in_either_direction(world):
    server, _ = world.pair()
    assert not server.rekey_due
    server.sent_bytes = REKEY_BYTES + 1
    assert server.rekey_due
    server.sent_bytes, server.received_bytes = 0, REKEY_BYTES + 1
    assert server.rekey_due


def test_byte_counters_count_ciphertext_both_ways(world):
    server, client = world.pair()
    before = client.sent_bytes, server.received_bytes
    cipher = client.seal(b"count me")
    server.receive(cipher)
    assert (client.sent_bytes - before[0], server.received_bytes - before[1]) == (len(cipher), len(cipher))


def test_cipher_is_an_aead_of_tls_13(world):
    server, _ = world.pair()
    assert server.cipher.startswith("TLS_")
    assert world.server_channel().cipher == ""


def test_handshake_leaves_no_ticket_on_the_client(world, raw_peer, carry):
    server, client = world.pair()
    assert client.receive(server.seal(b"x")) == b"x", "an unread ticket would come first"
    context = world.hostile_context(world.org_b.leaf("spiffe://org-b.example/x", role="client"))
    peer = raw_peer(context)
    channel = world.server_channel()
    peer.shake_hands(channel)
    peer.incoming.write(channel.seal(b"read, so that a ticket would have been processed"))
    peer.tls.read(100)
    assert peer.tls.session is None or not peer.tls.session.has_ticket


def test_session_of_an_earlier_connection_cannot_be_resumed(world, raw_peer):
    context = world.hostile_context(world.org_b.leaf("spiffe://org-b.example/x", role="client"))
    first = raw_peer(context)
    first.shake_hands(world.server_channel())
    again = raw_peer(context)
    if first.tls.session is not None:
        again.tls.session = first.tls.session
    again.shake_hands(world.server_channel())
    assert not again.tls.session_reused


def test_tls_12_is_refused(world, raw_peer):
    context = world.hostile_context(world.org_b.leaf(role="client"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(TlsRefused) as caught:
        raw_peer(context).shake_hands(world.server_channel())
    assert caught.value.code == "handshake"
    assert "version" in caught.value.detail or "protocol" in caught.value.detail
