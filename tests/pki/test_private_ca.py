"""The private CA: what it writes is exactly what the TLS floor accepts, and nothing is lost or overwritten."""

import json
import shutil
import stat
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from caprpc.errors import ConfigurationError
from caprpc.pki.authority import PrivateCa
from caprpc.pki.files import replace
from caprpc.pki.pem import parse_certificates, parse_revocation_lists
from caprpc.pki.trust import trust
from caprpc.tls import Identity, TlsChannel, TlsRefused, client_context, server_context, verify_peer


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def connect(server: Identity, client: Identity):
    """Shake hands in memory; return both channels."""
    listening = TlsChannel(server_context(server), server_side=True)
    dialling = TlsChannel(client_context(client), server_side=False)
    while listening.pending_out or dialling.pending_out:
        for source, target in ((dialling, listening), (listening, dialling)):
            data = source.data_to_send()
            if data:
                target.receive_data(data)
    return listening, dialling


def principal(channel, identity, anchors):
    return verify_peer(
        channel, identity=identity, anchors=anchors, hostname=None, now=time.time(), address=""
    ).principal


@pytest.mark.parametrize("kind", ["p256", "ed25519"])
@pytest.mark.parametrize("constrained", [True, False])
def test_issued_identities_shake_hands_and_prove_themselves(tmp_path, kind, constrained):
    ca = PrivateCa.create(tmp_path / "pki", trust_domain="acme.example", key_kind=kind, constrained=constrained)
    _, server_directory = ca.issue("server", role="server", dns_names=["rpc.acme.example"])
    _, client_directory = ca.issue("alice", role="client", spiffe_path="/people/alice")
    server, client = Identity.load(server_directory), Identity.load(client_directory)
    listening, dialling = connect(server, client)
    anchors = {ca.fingerprint: frozenset({"acme.example"})}
    assert principal(listening, server, anchors) == "spiffe://acme.example/people/alice"
    assert principal(dialling, client, anchors) == "spiffe://acme.example/server"


def test_identities_of_two_organizations_trust_each_other_after_pki_trust(ca, partner):
    _, server_directory = ca.issue("server", role="server")
    _, client_directory = partner.issue("feed", role="client")
    pem = {one: [(one.directory / name).read_bytes() for name in ("ca.pem", "crl.pem")] for one in (ca, partner)}
    assert trust(server_directory, *pem[partner]) == partner.fingerprint
    trust(client_directory, *pem[ca])
    server, client = Identity.load(server_directory), Identity.load(client_directory)
    assert server.problems(time.time()) == ()
    listening, _ = connect(server, client)
    anchors = {partner.fingerprint: frozenset({"org-b.example"})}
    assert principal(listening, server, anchors) == "spiffe://org-b.example/feed"


def test_identity_trusts_no_other_ca_by_itself(ca, partner):
    _, server_directory = ca.issue("server", role="server")
    _, client_directory = partner.issue("feed", role="client")
    trust(client_directory, (ca.directory / "ca.pem").read_bytes(), (ca.directory / "crl.pem").read_bytes())
    with pytest.raises(TlsRefused) as caught:
        connect(Identity.load(server_directory), Identity.load(client_directory))
    assert caught.value.code == "certificate"


def test_revoked_identity_is_refused_by_the_servers_next_epoch(ca):
    _, server_directory = ca.issue("server", role="server")
    _, client_directory = ca.issue("alice", role="client")
    before = Identity.load(server_directory)
    ca.revoke("alice")
    assert before.changed(), "the list reached the identity directory"
    with pytest.raises(TlsRefused) as caught:
        connect(before.reload(), Identity.load(client_directory))
    assert caught.value.verify_code == 23


def test_files_have_safe_modes(ca):
    _, directory = ca.issue("server", role="server")
    assert (mode(ca.directory), mode(directory)) == (0o700, 0o700)
    assert (mode(ca.directory / "ca.key"), mode(directory / "key.pem")) == (0o600, 0o600)


def test_nothing_is_overwritten(ca, tmp_path):
    _, directory = ca.issue("server", role="server")
    before = {path: path.read_bytes() for path in ca.directory.rglob("*.pem")}
    for attempt in (
        lambda: PrivateCa.create(ca.directory, trust_domain="acme.example"),
        lambda: ca.issue("server", role="server"),
        lambda: ca.issue("other", role="server", out=directory),
        lambda: ca.issue("crl.pem", role="server"),
    ):
        with pytest.raises(ConfigurationError):
            attempt()
    assert {path: path.read_bytes() for path in ca.directory.rglob("*.pem")} == before
    assert [one.name for one in ca.index.issued] == ["server"]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../evil"},
        {"name": ""},
        {"name": "a/b"},
        {"name": ".hidden"},
        {"name": "a\n"},
        {"role": "admin"},
        {"spiffe_path": "no-slash"},
        {"spiffe_path": "/a//b"},
        {"spiffe_path": "/*"},
        {"dns_names": ["*.acme.example"]},
        {"dns_names": ["a b"]},
        {"dns_names": ["a..b"]},
        {"addresses": ["10.0.0.0/8"]},
    ],
)
def test_malformed_request_is_refused_before_anything_is_written(ca, changes):
    before = sorted(ca.directory.rglob("*"))
    with pytest.raises(ConfigurationError):
        ca.issue(**({"name": "server", "role": "server"} | changes))
    assert sorted(ca.directory.rglob("*")) == before
    assert ca.index.issued == ()


@pytest.mark.parametrize("domain", ["", "Acme.example", "acme.example/x", "*.example", "a b"])
def test_malformed_trust_domain_makes_no_ca(tmp_path, domain):
    with pytest.raises(ConfigurationError):
        PrivateCa.create(tmp_path / "pki", trust_domain=domain)
    assert not (tmp_path / "pki").exists()


def test_ca_certificate_has_what_strict_verification_needs(ca):
    certificate = parse_certificates((ca.directory / "ca.pem").read_bytes())[0]
    extensions = {one.oid: one for one in certificate.extensions}
    basic = extensions[x509.BasicConstraints.oid]
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    usage = extensions[x509.KeyUsage.oid].value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    assert x509.SubjectKeyIdentifier.oid in extensions
    assert certificate.not_valid_after_utc - datetime.now(UTC) > timedelta(days=5 * 365 - 1)


def test_leaf_does_not_outlive_its_ca(tmp_path):
    ca = PrivateCa.create(tmp_path / "pki", trust_domain="acme.example", days=30)
    _, directory = ca.issue("server", role="server", days=400)
    leaf = parse_certificates((directory / "cert.pem").read_bytes())[0]
    authority = parse_certificates((ca.directory / "ca.pem").read_bytes())[0]
    assert leaf.not_valid_after_utc <= authority.not_valid_after_utc


def test_renewal_replaces_key_and_certificate_and_keeps_the_names(ca):
    first, directory = ca.issue("server", role="server", dns_names=["rpc.acme.example"], addresses=["10.0.0.1"])
    before = Identity.load(directory)
    second, _ = ca.renew("server")
    after = Identity.load(directory)
    assert after.principal == before.principal
    assert after.leaf.dns_names == {"rpc.acme.example"}
    assert after.leaf_key != before.leaf_key
    assert first.serial != second.serial


def test_revoking_a_name_revokes_all_its_certificates_and_a_serial_one(ca):
    first, _ = ca.issue("server", role="server")
    second, _ = ca.renew("server")
    assert [one.serial for one in ca.revoke(first.serial)] == [first.serial]
    assert {one.serial for one in ca.revoke("server")} == {first.serial, second.serial}
    crl = parse_revocation_lists((ca.directory / "crl.pem").read_bytes())[0]
    assert {f"{entry.serial_number:x}" for entry in crl} == {first.serial, second.serial}


def test_revoked_name_cannot_be_renewed(ca):
    ca.issue("server", role="server")
    ca.revoke("server")
    with pytest.raises(ConfigurationError, match="revoked"):
        ca.renew("server")


def test_revocation_time_is_not_moved_by_revoking_again(ca):
    ca.issue("server", role="server")
    first = ca.revoke("server", now=datetime(2026, 1, 1, tzinfo=UTC))[0].revoked
    assert ca.revoke("server")[0].revoked == first


def test_list_number_only_grows(ca):
    numbers = []
    for _ in range(3):
        ca.renew_list()
        crl = parse_revocation_lists((ca.directory / "crl.pem").read_bytes())[0]
        numbers.append(crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
    assert numbers == sorted(set(numbers))


def test_renewed_list_leaves_a_partners_list_alone(ca, partner):
    _, directory = ca.issue("server", role="server")
    trust(directory, (partner.directory / "ca.pem").read_bytes(), (partner.directory / "crl.pem").read_bytes())
    ca.renew_list()
    issuers = {one.issuer.rfc4514_string() for one in parse_revocation_lists((directory / "crl.pem").read_bytes())}
    assert issuers == {"CN=acme.example CA", "CN=org-b.example CA"}


def test_trusting_a_partner_again_renews_its_list_and_adds_no_second_anchor(ca, partner):
    _, directory = ca.issue("server", role="server")
    for _ in range(2):
        trust(directory, (partner.directory / "ca.pem").read_bytes(), (partner.directory / "crl.pem").read_bytes())
        partner.issue(f"x{time.monotonic_ns()}", role="client")
        partner.renew_list()
    assert len(parse_certificates((directory / "anchors.pem").read_bytes())) == 2
    assert len(parse_revocation_lists((directory / "crl.pem").read_bytes())) == 2


def test_trust_refuses_what_is_no_ca_or_not_its_list(ca, partner):
    _, directory = ca.issue("server", role="server")
    _, other = partner.issue("feed", role="client")
    authority, revocation = ((partner.directory / name).read_bytes() for name in ("ca.pem", "crl.pem"))
    before = (directory / "anchors.pem").read_bytes(), (directory / "crl.pem").read_bytes()
    for pair in (
        ((other / "cert.pem").read_bytes(), revocation),
        (authority, (ca.directory / "crl.pem").read_bytes()),
        (authority + (ca.directory / "ca.pem").read_bytes(), revocation),
        (b"", revocation),
        (authority, b""),
        (revocation, authority),
    ):
        with pytest.raises(ConfigurationError):
            trust(directory, *pair)
    assert ((directory / "anchors.pem").read_bytes(), (directory / "crl.pem").read_bytes()) == before


@pytest.mark.parametrize("damage", ["", "{}", "[]", "not json", '{"format": "other"}'])
def test_damaged_index_is_named_and_not_replaced(ca, damage):
    (ca.directory / "index.json").write_text(damage)
    with pytest.raises(ConfigurationError, match=r"index\.json"):
        ca.issue("server", role="server")
    assert (ca.directory / "index.json").read_text() == damage


@pytest.mark.parametrize("field", ["serial", "revoked", "name"])
def test_index_entry_that_could_not_be_revoked_is_refused(ca, field):
    ca.issue("server", role="server")
    document = json.loads((ca.directory / "index.json").read_text())
    document["issued"][0][field] = "zz"
    if field == "name":
        del document["issued"][0][field]
    (ca.directory / "index.json").write_text(json.dumps(document))
    with pytest.raises(ConfigurationError, match="damaged index"):
        ca.renew_list()


def test_ca_key_that_others_may_read_is_refused(ca):
    (ca.directory / "ca.key").chmod(0o640)
    with pytest.raises(ConfigurationError, match="readable"):
        PrivateCa.open(ca.directory)


def test_ca_key_of_another_ca_is_refused(ca, partner):
    shutil.copy(partner.directory / "ca.key", ca.directory / "ca.key")
    with pytest.raises(ConfigurationError, match="does not belong"):
        PrivateCa.open(ca.directory)


def test_failed_replacement_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    target = tmp_path / "file"
    target.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        replace(target, b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
