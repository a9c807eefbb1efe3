"""Leaves are parsed once for each epoch: a peer that connects again costs no parsing, and refusals are not kept."""

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from caprpc.errors import IdentityRefused
from caprpc.testing.pki import ThrowawayPki
from caprpc.tls import profile
from caprpc.tls.profile import LeafCache


@pytest.fixture(scope="module")
def ders():
    ca = ThrowawayPki().ca("cache.example")
    names = ("one", "two", "three")
    return [ca.leaf(f"spiffe://cache.example/{name}").certificate.public_bytes(Encoding.DER) for name in names]


def test_leaf_is_parsed_once(ders):
    cache = LeafCache()
    first = cache.parse(ders[0])
    assert cache.parse(bytes(bytearray(ders[0]))) is first
    assert cache.parse(ders[1]).spiffe.text == "spiffe://cache.example/two"


def test_cache_is_bounded(ders, monkeypatch):
    monkeypatch.setattr(profile, "MAX_CACHED_LEAVES", 2)
    cache = LeafCache()
    for der in ders * 3:
        cache.parse(der)
    assert len(cache._leaves) <= 2


def test_leaf_that_does_not_fit_is_refused_each_time(ders):
    cache = LeafCache()
    for _ in range(2):
        with pytest.raises(IdentityRefused):
            cache.parse(ders[0][:-1])
    assert cache._leaves == {}
