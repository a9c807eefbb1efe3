"""The certificate profile by itself: what OpenSSL would let pass, or may in another version."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from caprpc.errors import IdentityRefused
from caprpc.pki.certificates import Issuer, Validity, authority_extensions, common_name, new_key, self_signed
from caprpc.tls import TlsChannel
from caprpc.tls.identity import MAX_CHAIN
from caprpc.tls.profile import check_name_constraints, parse_authority, parse_leaf

CLIENT = "spiffe://org-b.example/treasury/feed"
NOW = datetime.now(UTC)


def der(certificate):
    return certificate.public_bytes(Encoding.DER)


def refusal(parse, content):
    with pytest.raises(IdentityRefused) as caught:
        parse(content)
    return caught.value.code


def usage(**bits):
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign "
        "crl_sign encipher_only decipher_only"
    ).split()
    return x509.KeyUsage(**(dict.fromkeys(names, False) | bits))


def leaf_with(world, *extensions):
    """Return a leaf (DER) with these extensions in place of its own of the same type."""
    return der(
        world.org_b.leaf(
            CLIENT,
            without=[type(extension) for extension in extensions],
            extra=[(extension, False) for extension in extensions],
        ).certificate
    )


def test_leaf_facts_are_read_out(world):
    leaf = world.org_b.leaf(CLIENT, role="both", dns_names=["A.example"], addresses=["10.0.0.1", "::1"])
    facts = parse_leaf(der(leaf.certificate))
    assert facts.spiffe.text == CLIENT
    assert facts.roles == {"client", "server"}
    assert facts.dns_names == {"a.example"}
    assert {str(one) for one in facts.ip_addresses} == {"10.0.0.1", "::1"}
    assert facts.serial == leaf.certificate.serial_number


def test_ca_certificate_with_a_principal_is_no_leaf(world):
    content = leaf_with(world, x509.BasicConstraints(ca=True, path_length=None))
    assert refusal(parse_leaf, content) == "ca-leaf"


@pytest.mark.parametrize("bit", ["key_cert_sign", "crl_sign"])
def test_leaf_that_may_sign_certificates_or_lists_is_refused(world, bit):
    assert refusal(parse_leaf, leaf_with(world, usage(digital_signature=True, **{bit: True}))) == "ca-leaf"


def test_leaf_whose_key_may_not_sign_is_refused(world):
    assert refusal(parse_leaf, leaf_with(world, usage(key_encipherment=True))) == "key-usage"


def test_leaf_without_key_usage_is_accepted(world):
    leaf = world.org_b.leaf(CLIENT, without=[x509.KeyUsage])
    assert parse_leaf(der(leaf.certificate)).spiffe.text == CLIENT


def test_any_purpose_counts_as_no_purpose(world):
    content = leaf_with(world, x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]))
    assert parse_leaf(content).roles == frozenset()


def test_network_among_the_addresses_is_refused(world):
    names = [x509.UniformResourceIdentifier(CLIENT), x509.IPAddress(ip_network("10.0.0.0/8"))]
    assert refusal(parse_leaf, leaf_with(world, x509.SubjectAlternativeName(names))) in {
        "identity-malformed",
        "malformed",
    }


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP521R1()),
        ec.generate_private_key(ec.SECP256K1()),
        rsa.generate_private_key(public_exponent=65537, key_size=1024),
    ],
    ids=["p-521", "secp256k1", "rsa-1024"],
)
def test_key_outside_the_profile_is_refused_for_leaf_and_authority(world, key):
    assert refusal(parse_leaf, der(world.org_b.leaf(CLIENT, key=key).certificate)) == "key"
    extensions = authority_extensions(key.public_key())
    issuer = self_signed(key, common_name("Weak"), extensions, Validity.of_days(1))
    assert refusal(parse_authority, der(issuer.certificate)) == "key"


def test_signature_with_another_hash_is_refused(world):
    """SHA-224 stands for SHA-1 and MD5, with which the library no longer signs; the rule lists what is allowed."""
    key = new_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(common_name("x"))
        .issuer_name(common_name("x"))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    assert refusal(parse_leaf, der(builder.sign(key, hashes.SHA224()))) == "signature"


@pytest.mark.parametrize(
    "content", [b"", b"\x30", b"\x30\x03\x02\x01\x01", bytes(100), b"\x30\x82\xff\xff" + bytes(500)]
)
def test_bytes_that_are_no_certificate_are_refused(content):
    assert refusal(parse_leaf, content) == "malformed"
    assert refusal(parse_authority, content) == "malformed"


def test_damaged_certificate_is_refused_or_read_but_never_crashes(world):
    whole = der(world.org_b.leaf(CLIENT).certificate)
    for position in range(0, len(whole), 3):
        content = bytearray(whole)
        content[position] ^= 0x81
        with suppress(IdentityRefused):
            parse_leaf(bytes(content))


@pytest.mark.parametrize("bytes_", [b"\xe2\x80\xaesury", b"\xff\xfe\xfdsury", b"tre\x00sury", b"tre%00ry"])
def test_principal_with_bidirectional_or_other_foreign_bytes_is_refused(world, bytes_):
    content = der(world.org_b.leaf(CLIENT).certificate).replace(b"treasury", bytes_.ljust(8, b"y"))
    assert refusal(parse_leaf, content) in {"identity-malformed", "malformed"}


def test_certificate_over_the_size_is_not_parsed():
    assert refusal(parse_leaf, bytes(16 * 1024 + 1)) == "size"


def test_leaf_as_issuer_is_refused(world):
    assert refusal(parse_authority, der(world.org_b.leaf(CLIENT).certificate)) == "chain"


def constrained(permitted=None, excluded=None):
    """Return an authority with these URI name constraints."""

    def subtrees(hosts):
        return None if hosts is None else [x509.UniformResourceIdentifier(host) for host in hosts]

    key = new_key()
    constraints = x509.NameConstraints(permitted_subtrees=subtrees(permitted), excluded_subtrees=subtrees(excluded))
    extensions = [*authority_extensions(key.public_key()), (constraints, True)]
    issuer: Issuer = self_signed(key, common_name("Constrained"), extensions, Validity.of_days(1))
    return parse_authority(der(issuer.certificate))


@pytest.mark.parametrize(
    ("permitted", "excluded", "accepted"),
    [
        (["org-b.example"], None, True),
        (["acme.example"], None, False),
        (["acme.example", "org-b.example"], None, True),
        ([".example"], None, True),
        ([".org-b.example"], None, False),
        (["b.example"], None, False),
        (["example"], None, False),
        (None, ["org-b.example"], False),
        (None, [".example"], False),
        (None, ["acme.example"], True),
        (["org-b.example"], ["org-b.example"], False),
        (["Org-B.Example"], None, True),
        ([".EXAMPLE"], None, True),
        (None, ["ORG-B.example"], False),
        (None, [".Example"], False),
        (None, ["org-b.example."], False),
        (None, ["spiffe://org-b.example"], False),
        (None, ["*.acme.example"], False),
        (None, [""], False),
        (["spiffe://org-b.example"], None, False),
        (["*"], None, False),
        ([""], None, False),
    ],
)
def test_uri_name_constraints_are_enforced_by_us_too(world, permitted, excluded, accepted):
    leaf = parse_leaf(der(world.org_b.leaf(CLIENT).certificate))
    authority = constrained(permitted, excluded)
    if accepted:
        check_name_constraints(leaf, authority)
    else:
        assert refusal(lambda _: check_name_constraints(leaf, authority), b"") == "name-constraint"


def test_constraints_on_other_kinds_of_names_leave_uris_alone(world):
    key = new_key()
    constraints = x509.NameConstraints(permitted_subtrees=[x509.DNSName("acme.example")], excluded_subtrees=None)
    issuer = self_signed(
        key, common_name("DNS"), [*authority_extensions(key.public_key()), (constraints, True)], Validity.of_days(1)
    )
    leaf = parse_leaf(der(world.org_b.leaf(CLIENT).certificate))
    check_name_constraints(leaf, parse_authority(der(issuer.certificate)))


def verify_chain(world, monkeypatch, chain, **changes):
    """Verify a peer whose chain OpenSSL is made to have accepted."""
    server, _ = world.pair()
    monkeypatch.setattr(TlsChannel, "verified_chain", lambda _: tuple(map(der, chain)))
    return world.verify(server, **changes)


def test_name_constraints_of_every_ca_in_the_chain_count(world, monkeypatch):
    ca = world.pki.ca("Root", trust_domains=["acme.example"])
    chain = (ca.leaf(CLIENT, role="client").certificate, ca.certificate)
    with pytest.raises(IdentityRefused, match="name-constraint"):
        verify_chain(world, monkeypatch, chain, anchors={ca.fingerprint: frozenset({"org-b.example"})})


EVIL = "CA\x1b]52;c;x\x07\x9b2J\r\n\u202e"


@pytest.mark.parametrize("case", ["no-ca", "anchor", "trust-domain", "permitted"])
def test_names_of_cas_cannot_steer_a_terminal(world, monkeypatch, case):
    """A partner's CA chooses the names of those below it; a client shows why it refuses a server."""
    ca = world.pki.ca(EVIL, trust_domains=["acme.example"] if case == "permitted" else [])
    above = ca.certificate
    if case == "no-ca":
        key = new_key()
        above = self_signed(key, common_name(EVIL), [], Validity.of_days(1)).certificate
    domains = {} if case == "anchor" else {ca.fingerprint: frozenset({"other.example"})}
    with pytest.raises(IdentityRefused) as caught:
        verify_chain(world, monkeypatch, (ca.leaf(CLIENT, role="client").certificate, above), anchors=domains)
    assert "x1b]52" in str(caught.value)
    assert str(caught.value).isprintable()


def test_chain_longer_than_the_bound_is_refused(world, monkeypatch):
    leaf = world.org_b.leaf(CLIENT, role="client").certificate
    for length, accepted in ((MAX_CHAIN, True), (MAX_CHAIN + 1, False), (1, False)):
        chain = (leaf, *[world.org_b.certificate] * (length - 1))
        if accepted:
            verify_chain(world, monkeypatch, chain)
        else:
            with pytest.raises(IdentityRefused, match="chain"):
                verify_chain(world, monkeypatch, chain)


def test_earliest_expiry_of_the_chain_counts(world, monkeypatch):
    early = world.pki.ca("Org B CA", validity=Validity(NOW - timedelta(days=1), NOW + timedelta(hours=1)))
    chain = (early.leaf(CLIENT, role="client").certificate, early.certificate)
    anchors = {early.fingerprint: frozenset({"org-b.example"})}
    peer = verify_chain(world, monkeypatch, chain, anchors=anchors)
    assert peer.not_after == early.certificate.not_valid_after_utc.timestamp()
    with pytest.raises(IdentityRefused, match="expired"):
        verify_chain(world, monkeypatch, chain, anchors=anchors, now=peer.not_after)


@pytest.mark.filterwarnings("ignore")
def test_serial_number_that_is_not_positive_is_refused(world):
    """With it, no revocation list could be trusted to name the certificate; OpenSSL lets it pass."""
    content = bytearray(der(world.org_b.leaf(CLIENT).certificate))
    start = content.index(b"\xa0\x03\x02\x01\x02\x02") + 7
    content[start] |= 0x80
    assert refusal(parse_leaf, bytes(content)) == "malformed"
