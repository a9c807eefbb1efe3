"""Trusting a partner's CA that has intermediates."""

import time

import pytest

from caprpc.errors import ConfigurationError
from caprpc.pki.pem import parse_certificates
from caprpc.pki.trust import trust
from caprpc.testing.pki import ThrowawayPki
from caprpc.tls import Identity


@pytest.fixture
def pki():
    return ThrowawayPki()


@pytest.fixture
def root(pki):
    return pki.ca("Partner Root")


@pytest.fixture
def directory(pki, tmp_path):
    ca = pki.ca("Own CA")
    return pki.write_identity(tmp_path / "own", ca.leaf(), trust=[ca])


def test_root_becomes_an_anchor_and_every_list_is_kept(directory, root):
    middle = root.intermediate("Partner Issuing CA")
    assert trust(directory, middle.pem + root.pem, root.crl_pem() + middle.crl_pem()) == root.fingerprint
    identity = Identity.load(directory)
    assert {one.name for one in identity.authorities.values()} == {"CN=Own CA", "CN=Partner Root"}
    assert identity.revocation.of("CN=Partner Issuing CA") is not None


def test_renewal_replaces_the_lists_of_intermediates_too(directory, root):
    middle = root.intermediate("Partner Issuing CA")
    trust(directory, root.pem + middle.pem, root.crl_pem() + middle.crl_pem())
    leaf = middle.leaf("spiffe://org-b.example/x")
    middle.revoke(leaf.certificate)
    trust(directory, root.pem + middle.pem, root.crl_pem() + middle.crl_pem())
    assert (directory / "crl.pem").read_bytes().count(b"BEGIN X509 CRL") == 3
    revoked = (("CN=Partner Issuing CA", leaf.certificate.serial_number),)
    assert Identity.load(directory).revocation.objection(revoked, time.time()) == "revoked"


def test_missing_list_of_an_intermediate_is_named(directory, root):
    middle = root.intermediate("Partner Issuing CA")
    with pytest.raises(ConfigurationError, match="Partner Issuing CA"):
        trust(directory, root.pem + middle.pem, root.crl_pem())


def test_intermediate_without_its_root_is_refused(directory, root):
    middle = root.intermediate()
    with pytest.raises(ConfigurationError, match="0 self-signed"):
        trust(directory, middle.pem, middle.crl_pem())


def test_intermediate_of_another_root_is_refused(directory, root, pki):
    stranger = pki.ca("Stranger").intermediate("Strange CA")
    with pytest.raises(ConfigurationError, match="Strange CA"):
        trust(directory, root.pem + stranger.pem, root.crl_pem() + stranger.crl_pem())


def test_self_signed_certificate_that_is_no_ca_is_refused(directory, pki, root):
    leaf = root.leaf()
    with pytest.raises(ConfigurationError, match="no CA"):
        trust(directory, root.pem + leaf.chain_pem, root.crl_pem())


def test_missing_identity_directory_is_an_error_and_makes_nothing(tmp_path, root):
    with pytest.raises((ConfigurationError, FileNotFoundError)):
        trust(tmp_path / "nowhere", root.pem, root.crl_pem())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [30, 200])
def test_damaged_second_certificate_is_not_overlooked(root, pki, cut):
    """A file that lost its tail must not silently lose a trust anchor."""
    with pytest.raises(ValueError):
        parse_certificates(root.pem + pki.ca("Other").pem[:-cut])
