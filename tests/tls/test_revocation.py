"""Established connections end when they could not be made any more."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from caprpc.errors import IdentityRefused
from caprpc.pki.certificates import Validity
from caprpc.tls import server_context, still_valid
from caprpc.tls.identity import VALIDITY_REASONS
from caprpc.tls.revocation import RevocationTable

SERVER = "spiffe://acme.example/ledger"
CLIENT = "spiffe://org-b.example/treasury/feed"
DAY = timedelta(days=1)


@pytest.fixture
def partner(world):
    return world.pki.ca("Org B CA")


@pytest.fixture
def connected(world, raw_peer, partner):
    """A peer of the partner that is connected, and a maker of later epochs of our identity."""
    leaf = partner.leaf(CLIENT, role="client")
    own = world.acme.leaf(SERVER, role="server")

    def epoch(**changes):
        return world.identity(own, **({"trust": [partner]} | changes))

    channel = world.server_channel(server_context(epoch()))
    raw_peer(world.hostile_context(leaf)).shake_hands(channel)
    peer = world.verify(channel, identity=epoch(), anchors={partner.fingerprint: frozenset({"org-b.example"})})
    return peer, leaf, epoch


def test_peer_revoked_during_its_handshake_is_refused_by_the_newest_epoch(connected, world, raw_peer, partner):
    _, leaf, epoch = connected
    channel = world.server_channel(server_context(epoch()))
    raw_peer(world.hostile_context(leaf)).shake_hands(channel)
    anchors = {partner.fingerprint: frozenset({"org-b.example"})}
    partner.revoke(leaf.certificate)
    with pytest.raises(IdentityRefused, match="revoked"):
        world.verify(channel, identity=epoch(), anchors=anchors)
    with pytest.raises(IdentityRefused, match="crl"):
        world.verify(channel, identity=epoch(trust=[world.acme]), anchors=anchors)


def test_connection_stays_while_nothing_changed(connected):
    peer, _, epoch = connected
    assert still_valid(peer, epoch(), time.time()) is None


def test_connection_ends_when_its_certificate_expires(connected):
    peer, _, epoch = connected
    assert still_valid(peer, epoch(), peer.not_after - 1) is None
    assert still_valid(peer, epoch(), peer.not_after) == "expired"


def test_connection_ends_when_its_certificate_is_revoked(connected, partner):
    peer, leaf, epoch = connected
    before = epoch()
    partner.revoke(leaf.certificate)
    assert still_valid(peer, before, time.time()) is None
    assert still_valid(peer, epoch(), time.time()) == "revoked"


def test_connection_ends_when_its_ca_is_revoked(connected, partner):
    peer, _, epoch = connected
    partner.revoke(partner.certificate)
    assert still_valid(peer, epoch(), time.time()) == "revoked"


def test_connection_ends_when_its_ca_is_no_longer_trusted(connected, world):
    peer, _, epoch = connected
    assert still_valid(peer, epoch(trust=[world.acme]), time.time()) == "anchor"


def test_connection_ends_when_the_revocation_list_expires(connected, partner):
    peer, _, epoch = connected
    now = datetime.now(UTC)
    short = epoch(crls=[partner.crl_pem(validity=Validity(now - DAY, now + timedelta(minutes=1)))])
    assert still_valid(peer, short, time.time()) is None
    assert still_valid(peer, short, time.time() + 60) == "crl"


def test_connection_ends_when_the_revocation_list_is_gone(connected, world):
    peer, _, epoch = connected
    assert still_valid(peer, epoch(crls=[world.pki.ca("Other").crl_pem()]), time.time()) == "crl"


def test_serial_of_another_issuer_revokes_nobody(connected, world, partner):
    peer, leaf, epoch = connected
    other = world.pki.ca("Other CA")
    other.revoke(leaf.certificate)
    assert still_valid(peer, epoch(trust=[partner, other]), time.time()) is None


def test_two_lists_of_one_issuer_are_united_and_the_older_expiry_counts(partner, world):
    now = datetime.now(UTC)
    first = partner.crl_pem(validity=Validity(now - DAY, now + DAY))
    leaf = partner.leaf(CLIENT)
    partner.revoke(leaf.certificate)
    second = partner.crl_pem(validity=Validity(now - DAY, now + 3 * DAY))
    for pem in (first + second, second + first):
        united = RevocationTable.parse(pem).of("CN=Org B CA")
        assert united.serials == {leaf.certificate.serial_number}
        assert united.next_update == pytest.approx((now + DAY).timestamp(), abs=1)


def test_issuer_names_compare_without_case_and_spacing(partner):
    assert RevocationTable.parse(partner.crl_pem()).of("cn=ORG  b ca") is not None


@pytest.mark.parametrize("pem", [b"", b"no pem", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"])
def test_file_without_a_whole_list_is_refused(pem):
    with pytest.raises(ValueError):
        RevocationTable.parse(pem)


def test_reasons_are_a_closed_list():
    assert {"expired", "revoked", "crl", "anchor"} == VALIDITY_REASONS
