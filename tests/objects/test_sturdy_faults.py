"""What is wrong with what a peer presents, each by itself: the one function that decides it."""

import pytest

from caprpc.objects.restoring import fault_of
from caprpc.policy import REASONS, Restorable
from caprpc.store import StoredGrant

ALICE, BOB = "spiffe://org-b.example/alice", "spiffe://org-b.example/bob"


def granted(holder=ALICE, expires_at=None, revoked_at=None):
    return StoredGrant("G-AAAAAAAAAAAA", "account", "42", holder, None, "server", 1_000.0, expires_at, revoked_at)


def rule(bearer=False, max_for_s=None):
    return Restorable("account", "Account", bearer, max_for_s, "org-b.toml:9")


@pytest.mark.parametrize(
    ("found", "name", "principal", "allowed", "now", "fault"),
    [
        (granted(), "account", ALICE, rule(), 2_000.0, ""),
        (None, "account", ALICE, rule(), 2_000.0, "sturdy-unknown"),
        (granted(), "bank", ALICE, rule(), 2_000.0, "sturdy-unknown"),
        (granted(), "account", BOB, rule(), 2_000.0, "sturdy-holder"),
        (granted(), "account", BOB, rule(bearer=True), 2_000.0, "sturdy-holder"),
        (granted(), "account", "", rule(bearer=True), 2_000.0, "sturdy-holder"),
        (granted(holder=""), "account", BOB, rule(bearer=True), 2_000.0, ""),
        (granted(holder=""), "account", BOB, rule(), 2_000.0, "sturdy-bearer"),
        (granted(revoked_at=1_500.0), "account", ALICE, rule(), 2_000.0, "sturdy-revoked"),
        (granted(revoked_at=3_000.0), "account", ALICE, rule(), 2_000.0, "sturdy-revoked"),
        (granted(expires_at=2_000.0), "account", ALICE, rule(), 1_999.9, ""),
        (granted(expires_at=2_000.0), "account", ALICE, rule(), 2_000.0, "sturdy-expired"),
        (granted(), "account", ALICE, rule(max_for_s=60.0), 1_059.9, ""),
        (granted(), "account", ALICE, rule(max_for_s=60.0), 1_060.0, "sturdy-expired"),
        (granted(expires_at=1e9), "account", ALICE, rule(max_for_s=60.0), 1_060.0, "sturdy-expired"),
    ],
)
def test_each_fault_has_its_reason(found, name, principal, allowed, now, fault):
    assert fault_of(found, name, principal, allowed, now) == fault
    assert not fault or fault in REASONS
