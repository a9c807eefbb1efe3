"""``caprpc pki``: what it prints, and its exit codes."""

import json
import re

from caprpc.tls import Identity


def made(run):
    assert run("init", "pki", "--trust-domain", "acme.example")[0] == 0
    assert run("issue", "pki", "server", "--role", "server", "--dns", "rpc.acme.example")[0] == 0
    assert run("issue", "pki", "alice", "--role", "client", "--spiffe", "spiffe://acme.example/people/alice")[0] == 0


def test_init_prints_the_line_for_the_policy(run, tmp_path):
    code, out, _ = run("init", "pki", "--trust-domain", "acme.example")
    assert code == 0
    fingerprint = re.search(r'ca = \["(sha256:[0-9a-f]{64})"\]', out)[1]
    assert fingerprint in run("show", "pki")[1]


def test_issued_directories_load(run, tmp_path):
    made(run)
    assert Identity.load(tmp_path / "pki" / "server").principal == "spiffe://acme.example/server"
    assert Identity.load(tmp_path / "pki" / "alice").principal == "spiffe://acme.example/people/alice"


def test_issue_elsewhere(run, tmp_path):
    made(run)
    assert run("issue", "pki", "feed", "--role", "both", "--ip", "10.0.0.1", "--out", "etc/feed")[0] == 0
    assert Identity.load(tmp_path / "etc" / "feed").leaf.roles == {"client", "server"}


def test_second_init_is_refused_with_the_configuration_code(run):
    made(run)
    code, _, err = run("init", "pki", "--trust-domain", "acme.example")
    assert code == 78
    assert "not overwritten" in err


def test_id_of_another_trust_domain_is_refused(run):
    made(run)
    code, _, err = run("issue", "pki", "x", "--role", "client", "--spiffe", "spiffe://org-b.example/x")
    assert code == 78
    assert "this CA speaks for" in err


def test_both_ways_to_give_an_id_are_a_usage_error(run):
    made(run)
    words = ["--spiffe", "spiffe://acme.example/x", "--spiffe-path", "/x"]
    assert run("issue", "pki", "x", "--role", "client", *words)[0] == 64


def test_missing_options_are_usage_errors(run):
    assert run("init", "pki")[0] == 64
    made(run)
    assert run("issue", "pki", "x")[0] == 64
    assert run("issue", "pki", "x", "--role", "client", "--days", "0")[0] == 64


def test_list_shows_states(run):
    made(run)
    run("revoke", "pki", "alice")
    _, out, _ = run("list", "pki")
    assert re.search(r"^server +server +valid", out, re.MULTILINE)
    assert re.search(r"^alice +client +revoked", out, re.MULTILINE)
    states = {one["name"]: one["state"] for one in json.loads(run("list", "pki", "--format", "json")[1])}
    assert states == {"server": "valid", "alice": "revoked"}


def test_revoke_tells_where_the_list_went(run):
    made(run)
    code, out, _ = run("revoke", "pki", "alice")
    assert code == 0
    assert "pki/crl.pem" in out
    assert "pki/server" in out


def test_revoking_something_unknown_says_where_to_look(run):
    made(run)
    code, _, err = run("revoke", "pki", "mallory")
    assert code == 78
    assert "caprpc pki list" in err


def test_show_tells_principal_usages_and_names(run):
    made(run)
    _, out, _ = run("show", "pki/server")
    for words in ("spiffe://acme.example/server", "serverAuth", "rpc.acme.example", "Revocation list"):
        assert words in out


def test_show_as_json_has_a_kind_for_each_fact(run):
    made(run)
    facts = json.loads(run("show", "pki/alice", "--format", "json")[1])
    assert [fact["kind"] for fact in facts] == ["certificate", "certificate", "revocation-list"]
    assert facts[0]["principals"] == ["spiffe://acme.example/people/alice"]


def test_show_never_shows_a_private_key(run, tmp_path):
    made(run)
    key = (tmp_path / "pki" / "alice" / "key.pem").read_text().splitlines()[1]
    code, out, err = run("show", "pki/alice/key.pem")
    assert code == 78
    assert key not in out + err


def test_show_of_a_file_that_is_no_pem_is_an_error_without_traceback(run, tmp_path):
    (tmp_path / "junk").write_bytes(bytes(range(256)))
    code, _, err = run("show", "junk")
    assert code == 78
    assert "Traceback" not in err


def test_trust_prints_the_fingerprint_to_compare(run):
    made(run)
    run("init", "org-b", "--trust-domain", "org-b.example")
    code, out, _ = run("trust", "pki/server", "org-b/ca.pem", "org-b/crl.pem")
    assert code == 0
    assert re.search(r"sha256:[0-9a-f]{64}", out)[0] in run("show", "org-b")[1]
    assert "Compare" in out


def test_crl_and_renew_keep_identities_loadable(run, tmp_path):
    made(run)
    assert run("crl", "pki", "--days", "7")[0] == 0
    assert run("renew", "pki", "server")[0] == 0
    Identity.load(tmp_path / "pki" / "server")


def test_every_command_has_help(run):
    for command in ("init", "issue", "renew", "revoke", "crl", "trust", "list", "show"):
        code, out, _ = run(command, "--help")
        assert code == 0
        assert "Usage:" in out
