"""Every bad certificate of a client or a server ends the handshake, or the proof of identity after it."""

import random
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from caprpc.errors import IdentityRefused
from caprpc.pki.certificates import Validity, common_name, new_key
from caprpc.testing.pki import ThrowawayPki
from caprpc.tls import ChannelState, TlsChannel, TlsRefused, client_context, server_context

CLIENT = "spiffe://org-b.example/treasury/feed"
SERVER = "spiffe://acme.example/ledger"
NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def refused_client(world, raw_peer, leaf, *, context=None, **options):
    """Let a client with this leaf connect; return the refusal and what the client read."""
    server = world.server_channel(context)
    peer = raw_peer(world.hostile_context(leaf, **options))
    with pytest.raises(TlsRefused) as caught:
        peer.shake_hands(server)
    assert server.state is ChannelState.FAILED
    assert server.read() == b""
    return caught.value, server


def test_client_without_certificate_is_refused_and_gets_an_alert(world, raw_peer):
    refusal, server = refused_client(world, raw_peer, None)
    assert refusal.code == "certificate"
    assert "no certificate" in refusal.detail
    assert server.pending_out > 0


def test_early_call_with_a_bad_certificate_is_never_decrypted(world, raw_peer):
    """The client of TLS 1.3 finishes first and may send at once."""
    server = world.server_channel()
    peer = raw_peer(world.hostile_context(None))
    server.receive_data(peer.step())
    flight = peer.step(server.data_to_send())
    assert peer.done
    peer.tls.write(b"a call, sent before anybody looked at the certificate")
    with pytest.raises(TlsRefused):
        server.receive_data(flight + peer.outgoing.read())
    assert (server.read(), server.verified_chain()) == (b"", ())


def test_self_signed_leaf_is_refused(world, raw_peer):
    stranger = world.pki.ca("Stranger")
    leaf = stranger.leaf(CLIENT)
    refusal, _ = refused_client(world, raw_peer, leaf)
    assert (refusal.code, refusal.verify_code) == ("certificate", 20)


def test_look_alike_ca_with_the_same_name_is_refused(world, raw_peer):
    impostor = world.pki.ca("Org B CA")
    refusal, _ = refused_client(world, raw_peer, impostor.leaf(CLIENT))
    assert refusal.code == "certificate"


@pytest.mark.parametrize(
    ("validity", "verify_code"),
    [(Validity(NOW - 2 * DAY, NOW - timedelta(seconds=1)), 10), (Validity(NOW + timedelta(hours=1), NOW + DAY), 9)],
    ids=["expired", "not yet valid"],
)
def test_leaf_outside_its_validity_is_refused(world, raw_peer, validity, verify_code):
    refusal, _ = refused_client(world, raw_peer, world.org_b.leaf(CLIENT, validity=validity))
    assert (refusal.code, refusal.verify_code) == ("certificate", verify_code)
    assert refusal.hint


def test_revoked_leaf_is_refused(world, raw_peer):
    ca = world.pki.ca("Org B CA")
    leaf = ca.leaf(CLIENT, role="client")
    ca.revoke(leaf.certificate)
    context = server_context(world.identity(world.acme.leaf(SERVER, role="server"), trust=[ca]))
    refusal, _ = refused_client(world, raw_peer, leaf, context=context)
    assert (refusal.code, refusal.verify_code) == ("certificate", 23)


def test_leaf_of_a_revoked_intermediate_is_refused(world, raw_peer):
    ca = world.pki.ca("Org B CA")
    middle = ca.intermediate()
    leaf = middle.leaf(CLIENT, role="client")
    ca.revoke(middle.certificate)
    context = server_context(world.identity(world.acme.leaf(SERVER, role="server"), trust=[ca, middle]))
    refusal, _ = refused_client(world, raw_peer, leaf, context=context)
    assert refusal.verify_code == 23


def test_leaf_of_a_good_intermediate_is_accepted(world, raw_peer):
    ca = world.pki.ca("Org B CA")
    middle = ca.intermediate()
    identity = world.identity(world.acme.leaf(SERVER, role="server"), trust=[ca, middle])
    server = world.server_channel(server_context(identity))
    raw_peer(world.hostile_context(middle.leaf(CLIENT, role="client"))).shake_hands(server)
    peer = world.verify(server, identity=identity, anchors={ca.fingerprint: frozenset({"org-b.example"})})
    assert [issuer for issuer, _ in peer.serials] == ["CN=Intermediate", "CN=Org B CA", "CN=Org B CA"]


def broken_lists(world, kind):
    """Return the CRL file of an operator who made a mistake, and OpenSSL's code for it."""
    ca = world.pki.ca("Org B CA")
    other = world.pki.ca("Org B CA")
    if kind == "missing":
        return ca, [world.acme.crl_pem()], 3
    if kind == "expired":
        return ca, [ca.crl_pem(validity=Validity(NOW - 2 * DAY, NOW - DAY))], 12
    if kind == "not yet valid":
        return ca, [ca.crl_pem(validity=Validity(NOW + DAY, NOW + 2 * DAY))], 11
    return ca, [ca.crl_pem(signer=other.issuer)], None


@pytest.mark.parametrize("kind", ["missing", "expired", "not yet valid", "forged"])
def test_without_a_current_revocation_list_nobody_gets_in(world, raw_peer, kind):
    ca, lists, verify_code = broken_lists(world, kind)
    identity = world.identity(world.acme.leaf(SERVER, role="server"), trust=[ca], crls=lists)
    refusal, _ = refused_client(world, raw_peer, ca.leaf(CLIENT), context=server_context(identity))
    assert refusal.code == "certificate"
    if verify_code:
        assert refusal.verify_code == verify_code


def test_intermediate_without_a_revocation_list_is_refused(world, raw_peer):
    ca = world.pki.ca("Org B CA")
    middle = ca.intermediate()
    context = server_context(world.identity(world.acme.leaf(SERVER, role="server"), trust=[ca]))
    refusal, _ = refused_client(world, raw_peer, middle.leaf(CLIENT, role="client"), context=context)
    assert refusal.verify_code == 3


@pytest.mark.parametrize("alpn", [(), ("http/1.1",), ("h2", "http/1.1"), tuple(f"x{n}" for n in range(1000))])
def test_wrong_application_protocol_is_refused_by_the_server(world, raw_peer, alpn):
    refusal, server = refused_client(world, raw_peer, world.org_b.leaf(CLIENT, role="client"), alpn=alpn)
    assert refusal.code == "alpn"
    assert not server.handshake_done


def test_server_without_alpn_is_refused_by_the_client(world, raw_peer):
    context = world.hostile_server_context(world.acme.leaf(SERVER, role="server"), alpn=())
    peer, client = raw_peer(context, server_side=True), world.client_channel()
    with pytest.raises(TlsRefused) as caught:
        client.receive_data(peer.step(client.data_to_send()))
    assert caught.value.code == "alpn"


def hostile_channel(world, raw_peer, leaf):
    server = world.server_channel()
    raw_peer(world.hostile_context(leaf)).shake_hands(server)
    assert server.handshake_done
    return server


def code_of(world, channel, **changes):
    with pytest.raises(IdentityRefused) as caught:
        world.verify(channel, **changes)
    return caught.value.code


def uri_names(*uris):
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])


def test_good_client_is_who_its_certificate_says(world):
    server, _ = world.pair()
    peer = world.verify(server)
    assert peer.principal == CLIENT
    assert peer.trust_domain == "org-b.example"
    assert peer.anchor == world.org_b.fingerprint
    assert peer.leaf_key == world.client.leaf_key
    assert peer.serials[0] == ("CN=Org B CA", world.client.leaf.serial)


def test_good_server_is_who_its_certificate_says(world):
    _, client = world.pair()
    peer = world.verify(client)
    assert (peer.principal, peer.leaf_key) == (SERVER, world.server.leaf_key)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"without": [x509.ExtendedKeyUsage]}, "eku"),
        ({"without": [x509.SubjectAlternativeName], "subject": common_name(CLIENT)}, "identity-missing"),
        (
            {
                "without": [x509.SubjectAlternativeName],
                "extra": [(x509.SubjectAlternativeName([x509.DNSName("org-b.example")]), False)],
            },
            "identity-missing",
        ),
        (
            {
                "without": [x509.SubjectAlternativeName],
                "extra": [(uri_names(CLIENT, "spiffe://org-b.example/admin"), False)],
            },
            "identity-ambiguous",
        ),
        ({"spiffe_id": "spiffe://org-b.example/*"}, "identity-malformed"),
        ({"spiffe_id": "spiffe://*.example/feed"}, "identity-malformed"),
        ({"spiffe_id": "https://org-b.example/feed"}, "identity-malformed"),
        ({"spiffe_id": "spiffe://org-b.example/feed\x00.evil.example"}, "identity-malformed"),
        ({"spiffe_id": "spiffe://org-b.example/feed\r\nadmin"}, "identity-malformed"),
        ({"spiffe_id": "spiffe://org-b.example/\x1b[2J"}, "identity-malformed"),
        ({"spiffe_id": "spiffe://org-b.example"}, "identity-malformed"),
        ({"spiffe_id": "spiffe://ORG-B.example/feed"}, "identity-malformed"),
        ({"dns_names": ["*.org-b.example"]}, "identity-malformed"),
        ({"dns_names": ["a\x00b.example"]}, "identity-malformed"),
        ({"dns_names": [f"n{n}.example" for n in range(70)]}, "size"),
        ({"dns_names": [f"name-number-{n}.example" for n in range(1000)]}, "size"),
        ({"extra": [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), bytes(20_000)), False)]}, "size"),
        ({"spiffe_id": "spiffe://acme.example/ledger"}, "trust-domain"),
    ],
)
def test_client_leaf_with_a_defect_is_refused(world, raw_peer, changes, code):
    spiffe_id = changes.get("spiffe_id", CLIENT)
    rest = {key: value for key, value in changes.items() if key != "spiffe_id"}
    leaf = world.org_b.leaf(spiffe_id, role="client", **rest)
    assert code_of(world, hostile_channel(world, raw_peer, leaf)) == code


def test_refusal_detail_escapes_what_could_steer_a_terminal(world, raw_peer):
    leaf = world.org_b.leaf("spiffe://org-b.example/\x1b[2J\r\nforged line", role="client")
    with pytest.raises(IdentityRefused) as caught:
        world.verify(hostile_channel(world, raw_peer, leaf))
    assert caught.value.detail.isprintable()


def test_server_leaf_cannot_be_a_client(world, raw_peer):
    refusal, _ = refused_client(world, raw_peer, world.org_b.leaf(CLIENT, role="server"))
    assert refusal.verify_code == 26


def test_role_is_checked_by_us_besides_openssl(world, monkeypatch):
    server, _ = world.pair()
    servers_chain = world.pair()[1].verified_chain()
    monkeypatch.setattr(TlsChannel, "verified_chain", lambda _: servers_chain)
    assert code_of(world, server, identity=world.client) == "eku"


def test_client_leaf_cannot_be_a_server(world, raw_peer):
    leaf = world.acme.leaf(SERVER, role="client", dns_names=["ledger.acme.example"])
    context = world.hostile_server_context(leaf)
    peer, client = raw_peer(context, server_side=True), world.client_channel()
    with pytest.raises(TlsRefused) as caught:
        client.receive_data(peer.step(client.data_to_send()))
    assert caught.value.verify_code == 26


def test_ca_of_one_partner_cannot_speak_for_another(world, raw_peer):
    leaf = world.org_b.leaf("spiffe://acme.example/admin", role="client")
    assert code_of(world, hostile_channel(world, raw_peer, leaf)) == "trust-domain"


def test_ca_that_no_policy_names_proves_nobody(world):
    server, _ = world.pair()
    assert code_of(world, server, anchors={world.acme.fingerprint: frozenset({"org-b.example"})}) == "anchor"


def test_our_own_key_coming_back_is_refused_unless_expected(world, carry):
    both = world.identity(world.acme.leaf("spiffe://acme.example/both", role="both", dns_names=["ledger.acme.example"]))
    server, client = world.server_channel(server_context(both)), world.client_channel(client_context(both))
    carry(server, client)
    assert code_of(world, server, identity=both) == "self"
    assert code_of(world, client, identity=both) == "self"
    assert world.verify(server, identity=both, allow_self=True).principal == both.principal


def test_chain_that_expires_between_handshake_and_check_is_refused(world):
    server, _ = world.pair()
    peer = world.verify(server)
    assert world.verify(server, now=peer.not_after - 1) == peer
    assert code_of(world, server, now=peer.not_after) == "expired"


def test_unfinished_handshake_proves_nobody(world):
    assert code_of(world, world.client_channel()) == "chain"


def test_failed_handshake_proves_nobody(world, raw_peer):
    _, server = refused_client(world, raw_peer, None)
    assert code_of(world, server) == "chain"


@pytest.mark.parametrize(
    ("hostname", "accepted"),
    [
        ("ledger.acme.example", True),
        ("LEDGER.acme.example.", True),
        ("other.acme.example", False),
        ("acme.example", False),
        ("x.ledger.acme.example", False),
        ("localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        (None, True),
    ],
)
def test_dialled_name_is_checked_besides_the_identity(world, hostname, accepted):
    _, client = world.pair()
    if accepted:
        assert world.verify(client, hostname=hostname).principal == SERVER
    else:
        assert code_of(world, client, hostname=hostname) == "hostname"


@pytest.mark.parametrize(("hostname", "accepted"), [("10.0.0.5", True), ("10.0.0.6", False), ("[fe80::5]", True)])
def test_dialled_address_must_be_listed_if_any_is(world, carry, hostname, accepted):
    identity = world.identity(world.acme.leaf(SERVER, role="server", addresses=["10.0.0.5", "fe80::5"]))
    client = world.client_channel()
    carry(world.server_channel(server_context(identity)), client)
    if accepted:
        world.verify(client, hostname=hostname)
    else:
        assert code_of(world, client, hostname=hostname) == "hostname"


def test_dns_constrained_intermediate_cannot_issue_outside_its_domain(world, raw_peer):
    ca = world.pki.ca("Org B CA", trust_domains=["org-b.example"])
    context = server_context(world.identity(world.acme.leaf(SERVER, role="server"), trust=[ca]))
    server = world.server_channel(context)
    raw_peer(world.hostile_context(ca.leaf(CLIENT, role="client"))).shake_hands(server)
    assert world.verify(server, anchors={ca.fingerprint: frozenset({"org-b.example"})}).principal == CLIENT


def test_uri_constrained_intermediate_cannot_issue_outside_its_domain(world, raw_peer):
    ca = world.pki.ca("Root")
    middle = ca.intermediate(trust_domains=["org-b.example"])
    context = server_context(world.identity(world.acme.leaf(SERVER, role="server"), trust=[ca, middle]))
    refusal, _ = refused_client(world, raw_peer, middle.leaf("spiffe://acme.example/x", role="client"), context=context)
    assert refusal.verify_code == 47


def rsa_key(bits):
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@pytest.mark.parametrize("kind", ["rsa-1024", "p-192", "p-521", "rsa-5120"])
def test_leaf_with_a_weak_or_oversized_key_is_refused(world, raw_peer, kind):
    curves = {"p-192": ec.SECP192R1, "p-521": ec.SECP521R1}
    key = ec.generate_private_key(curves[kind]()) if kind in curves else rsa_key(int(kind.partition("-")[2]))
    leaf = world.org_b.leaf(CLIENT, role="client", key=key)
    server = world.server_channel()
    with suppress(TlsRefused, OSError):
        # OpenSSL may refuse it on our side, or be unable to use it on theirs (P-192 is no TLS 1.3 signature).
        raw_peer(world.hostile_context(leaf)).shake_hands(server)
    assert not server.handshake_done or code_of(world, server) == "key"


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa_key(2048)], ids=["p-384", "rsa-2048"])
def test_leaf_with_another_strong_key_is_accepted(world, raw_peer, key):
    leaf = world.org_b.leaf(CLIENT, role="client", key=key)
    assert world.verify(hostile_channel(world, raw_peer, leaf)).principal == CLIENT


def test_ed25519_authority_and_leaf_are_accepted(world, raw_peer):
    ca = ThrowawayPki(key_kind="ed25519").ca("Org B CA")
    context = server_context(world.identity(world.acme.leaf(SERVER, role="server"), trust=[ca]))
    server = world.server_channel(context)
    raw_peer(world.hostile_context(ca.leaf(CLIENT, role="client", key=new_key("ed25519")))).shake_hands(server)
    assert world.verify(server, anchors={ca.fingerprint: frozenset({"org-b.example"})}).anchor == ca.fingerprint


def test_refused_client_learns_why_and_what_to_do(world, carry):
    """The client's handshake succeeds; the server's alert comes with the first read."""
    stranger = world.pki.ca("Stranger")
    identity = world.identity(stranger.leaf(CLIENT, role="client"))
    server, client = world.server_channel(), world.client_channel(client_context(identity))
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    assert client.handshake_done
    with pytest.raises(TlsRefused):
        server.receive_data(client.data_to_send())
    with pytest.raises(TlsRefused) as caught:
        client.receive(server.data_to_send())
    assert caught.value.code == "alert"
    assert "does not trust the authority" in caught.value.detail
    assert "operator" in caught.value.hint


@pytest.mark.parametrize("kind", ["expired", "revoked"])
def test_refused_client_is_told_that_its_certificate_ended(world, raw_peer, kind):
    ca = world.pki.ca("Org B CA")
    validity = Validity(NOW - 2 * DAY, NOW - DAY) if kind == "expired" else None
    leaf = ca.leaf(CLIENT, role="client", validity=validity)
    if kind == "revoked":
        ca.revoke(leaf.certificate)
    context = server_context(world.identity(world.acme.leaf(SERVER, role="server"), trust=[ca]))
    server = world.server_channel(context)
    peer = raw_peer(world.hostile_context(leaf))
    with pytest.raises(TlsRefused):
        peer.shake_hands(server)
    peer.incoming.write(server.data_to_send())
    with pytest.raises(ssl.SSLError, match=kind.upper()):
        peer.tls.read(1)


def test_server_says_nothing_but_tls_to_a_stranger(world, raw_peer):
    """Nothing after the alert, and the request for a certificate names no CA: it is as long with one as with ten."""
    lengths = []
    for count in (1, 10):
        trust = [world.pki.ca(f"Partner {n} with a long name") for n in range(count)]
        identity = world.identity(world.acme.leaf(SERVER, role="server", subject=common_name("x")), trust=trust)
        server = world.server_channel(server_context(identity))
        server.receive_data(raw_peer(world.hostile_context(None)).step())
        lengths.append(len(server.data_to_send()))
    # Two ECDSA signatures of at most 72 bytes, each a few bytes shorter now and then.
    assert abs(lengths[0] - lengths[1]) < 16


def test_certificate_larger_than_a_handshake_may_be_is_refused(world, raw_peer):
    huge = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), bytes(100_000))
    refusal, _ = refused_client(world, raw_peer, world.org_b.leaf(CLIENT, role="client", extra=[(huge, False)]))
    assert refusal.code in {"handshake-bytes", "handshake"}


def test_subject_as_large_as_fits_is_refused(world, raw_peer):
    names = [x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "x" * 64) for _ in range(300)]
    leaf = world.org_b.leaf(CLIENT, role="client", subject=x509.Name(names))
    assert code_of(world, hostile_channel(world, raw_peer, leaf)) == "size"


def test_mutated_server_bytes_never_finish_the_clients_handshake(world):
    seed = random.Random(5)
    for _ in range(150):
        server, victim = world.server_channel(), world.client_channel()
        server.receive_data(victim.data_to_send())
        data = bytearray(server.data_to_send())
        for _change in range(seed.randint(1, 6)):
            data[seed.randrange(len(data))] ^= seed.randint(1, 255)
        code = outcome(victim, bytes(data[: seed.randint(1, len(data))]))
        assert code in {"", "handshake", "alert", "certificate"}
        assert not victim.handshake_done


def outcome(server, data: bytes) -> str:
    """Return the code of the refusal, or nothing if the channel waits for more."""
    try:
        server.receive_data(data)
    except TlsRefused as refusal:
        return refusal.code
    return ""


def test_mutated_client_bytes_end_in_a_refusal_or_wait_for_more(world, raw_peer):
    """Whatever comes instead of a ClientHello, only TlsRefused leaves the channel, and no handshake finishes."""
    seed = random.Random(4)
    hello = raw_peer(world.hostile_context(None)).step()
    for _ in range(500):
        server = world.server_channel()
        data = bytearray(hello)
        for _change in range(seed.randint(1, 8)):
            data[seed.randrange(1, len(data))] = seed.randrange(256)
        code = outcome(server, bytes(data[: seed.randint(1, len(data))]))
        assert code in {"", "handshake", "alert"}
        assert (server.state is ChannelState.FAILED) == bool(code)
        assert not server.handshake_done
