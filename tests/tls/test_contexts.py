"""Contexts hold every setting that the design names, whatever the environment says."""

import os
import ssl
import subprocess
import sys

import pytest

from caprpc.errors import ConfigurationError
from caprpc.tls import TlsRefused, client_context, server_context


@pytest.fixture(params=["server", "client"])
def context(request, world):
    return world.server_context if request.param == "server" else world.client_context


def test_context_speaks_tls_13_only(context):
    assert (context.minimum_version, context.maximum_version) == (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3)


def test_context_requires_a_certificate_and_checks_revocation_of_the_whole_chain(context):
    assert context.verify_mode is ssl.CERT_REQUIRED
    wanted = ssl.VERIFY_X509_STRICT | ssl.VERIFY_CRL_CHECK_CHAIN
    assert context.verify_flags & wanted == wanted


def test_context_accepts_no_partial_chain(context):
    assert not context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN


def test_context_has_no_tickets_renegotiation_or_late_authentication(context):
    wanted = ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    assert context.options & wanted == wanted
    assert context.post_handshake_auth is False


def test_server_issues_no_tickets(world):
    assert world.server_context.num_tickets == 0


def test_context_trusts_only_the_identitys_anchors(context):
    assert context.cert_store_stats()["x509_ca"] == 2


def test_context_keeps_the_security_level(context):
    assert context.security_level >= 2


def test_key_log_is_never_taken_from_the_environment(world, monkeypatch, tmp_path):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert server_context(world.server).keylog_filename is None
    assert client_context(world.client).keylog_filename is None
    assert not (tmp_path / "keys").exists()


def test_no_variable_or_openssl_configuration_relaxes_a_context(world, tmp_path):
    relaxed = tmp_path / "openssl.cnf"
    relaxed.write_text(
        "openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = relaxed\n"
        "[relaxed]\nMinProtocol = TLSv1\nCipherString = ALL:@SECLEVEL=0\nOptions = SessionTicket\n"
    )
    script = (
        "import sys; from caprpc.tls import *; i = Identity.load(sys.argv[1]); c = server_context(i);"
        "print(c.minimum_version.name, c.security_level, int(c.verify_flags), c.num_tickets, int(c.options),"
        " c.verify_mode.name, c.keylog_filename, c.cert_store_stats()['x509_ca'])"
    )
    plain = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    odd = {
        "OPENSSL_CONF": str(relaxed),
        "SSL_CERT_DIR": "/etc/ssl/certs",
        "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
        "SSLKEYLOGFILE": str(tmp_path / "keys"),
        "PYTHONHTTPSVERIFY": "0",
        "CAPRPC_VERIFY": "0",
        "CAPRPC_INSECURE": "1",
        "PYTHONOPTIMIZE": "2",
    }
    command = [sys.executable, "-c", script, str(world.server.directory)]
    seen = [
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=30).stdout
        for environment in (plain, plain | odd)
    ]
    assert seen[0] == seen[1]
    assert seen[0].startswith("TLSv1_3 2 ")


def test_client_leaf_cannot_listen_and_server_leaf_cannot_dial(world):
    with pytest.raises(ConfigurationError, match="serverAuth"):
        server_context(world.client)
    with pytest.raises(ConfigurationError, match="clientAuth"):
        client_context(world.server)


def test_server_picks_a_fast_key_exchange_group(world, raw_peer):
    if ssl.OPENSSL_VERSION_INFO[:2] >= (3, 5):
        pytest.skip("OpenSSL's own list is sane from 3.5 on")
    context = world.hostile_context(world.org_b.leaf("spiffe://org-b.example/x", role="client"))
    context.set_ecdh_curve("secp521r1")
    peer, server = raw_peer(context), world.server_channel()
    with pytest.raises(TlsRefused, match="handshake"):
        peer.shake_hands(server)


def test_context_is_made_without_a_secret_on_disk_where_the_system_can(world, monkeypatch):
    if not hasattr(os, "memfd_create"):
        pytest.skip("no memfd here")
    monkeypatch.setattr("tempfile.TemporaryDirectory", lambda *_, **__: pytest.fail("a directory was made"))
    server_context(world.server)


def test_context_is_made_where_the_system_has_no_memory_files(world, monkeypatch, carry):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    server = world.server_channel(server_context(world.server))
    carry(server, world.client_channel())
    assert server.handshake_done
