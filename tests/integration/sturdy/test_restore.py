"""Sturdy references over every pairing: what is granted comes back, for its holder, as far as policy lets it."""

import pytest
from click.testing import CliRunner

import caprpc
from caprpc import CallRefused, ConfigurationError, Denied, PolicyError
from caprpc.cli import main
from caprpc.sturdy import new_secret


def test_a_grant_survives_the_connection_and_a_restart_of_the_server(branch):
    uri = branch.grant()
    assert branch.restored(uri) == "42"
    branch.open()
    assert branch.restored(uri) == "42"
    assert branch.service.restored == ["42", "42"]


def test_a_root_can_be_granted_by_name_and_as_an_object(branch, interfaces):
    for target in ("bank", branch.service):
        uri = branch.grant(target=target)
        assert "/bank#caprpc_sr_" in uri

        async def scenario(face, uri=uri):
            return await face((await face(face.peer.restore(uri, interfaces.bank))).name())

        assert branch.run(scenario) == "bank"


def test_a_method_grants_to_its_caller(branch, interfaces):
    async def scenario(face):
        bank = await face.root("bank", interfaces.bank)
        uri = await face(bank.keep("41"))
        return uri, await face((await face(face.peer.restore(uri, interfaces.account))).number())

    uri, number = branch.run(scenario)
    assert number == "41"
    (grant,) = branch.grants()
    assert grant.holder.endswith("/alice")
    assert grant.expires_at == grant.granted_at + 60.0
    with pytest.raises(Denied):
        branch.restored(uri, side="bob")


def test_granting_needs_a_method_that_a_peer_has_called():
    with pytest.raises(LookupError, match="inside a method"):
        caprpc.grant("account", key="42")


def test_a_sturdy_reference_can_stand_for_the_url(branch):
    uri = branch.grant()
    branch.host.address = uri
    assert branch.restored(uri) == "42"


def test_a_secret_is_not_sent_to_another_address(branch):
    uri = branch.grant()
    elsewhere = uri.replace("127.0.0.1", "127.0.0.2")
    with pytest.raises(CallRefused, match="nothing was sent") as refused:
        branch.restored(elsewhere)
    assert uri.partition("#")[2] not in str(refused.value)


@pytest.mark.parametrize("side", ["alice", "mallory"])
def test_what_gives_nothing_is_refused_alike_and_explained_to_the_operator(branch, side):
    uri, other = branch.grant(), branch.grant("bob")
    expired, revoked = branch.grant(for_s=0.001), branch.grant()
    branch.ask("revoke_grant", branch.grants()[-1].grant_id)
    forged = uri.partition("#")[0] + "#" + new_secret()
    renamed = uri.replace("/account#", "/bank#")
    reasons = {
        forged: "sturdy-unknown",
        renamed: "sturdy-unknown",
        other: "sturdy-holder",
        expired: "sturdy-expired",
        revoked: "sturdy-revoked",
    }
    said = set()
    for wrong, reason in reasons.items():
        with pytest.raises(Denied) as refused:
            branch.restored(wrong, side=side)
        said.add((refused.value.code, refused.value.text, str(refused.value).replace(refused.value.reference, "R")))
        record = branch.record_of(reference=refused.value.reference)
        assert record["reason"] == (reason if side == "alice" else "not-granted")
        assert record["decision"] == "deny"
    assert len({text.replace("'bank'", "'account'") for _, _, text in said}) == 1
    assert len({(code, text) for code, text, _ in said}) == 1


def test_the_secret_is_in_no_log_and_the_id_is(branch):
    uri = branch.grant()
    branch.restored(uri)
    branch.ask("revoke_grant", branch.grants()[0].grant_id)
    with pytest.raises(Denied):
        branch.restored(uri)
    secret, grant_id = uri.partition("#")[2], branch.grants()[0].grant_id
    texts = [path.read_text(errors="replace") for path in branch.directory.rglob("*") if path.is_file()]
    assert all(secret not in text for text in texts)
    events = [(r["kind"], r.get("event")) for r in branch.host.records() if r.get("reference") == grant_id]
    assert events == [("grant", "granted"), ("grant", "restored"), ("revoke", "revoked")]
    life = CliRunner().invoke(main, ["explain", grant_id, "--audit", str(branch.host.audit)])
    assert life.exit_code == 0
    assert life.stdout.count("A grant was ended") == 1
    assert life.stdout.count("Something was granted for longer than a connection") == 2
    denied = branch.record_of(reason="sturdy-revoked")
    assert denied["detail"] == f"grant {grant_id}"


def test_a_grant_gives_no_more_than_policy_says_now(branch):
    uri = branch.grant()
    branch.town.rewrite(alice='[restore.bank]\nas = "Bank"\n')
    branch.host.reload()
    with pytest.raises(Denied) as refused:
        branch.restored(uri)
    assert branch.record_of(reference=refused.value.reference)["reason"] == "not-granted"
    branch.town.rewrite()
    branch.host.reload()
    assert branch.restored(uri) == "42"


def test_a_policy_shortens_the_life_of_grants_that_are_out(branch):
    uri = branch.grant()
    branch.town.rewrite(alice='[restore.account]\nas = "Account"\nmax_for_s = 1\n')
    branch.host.reload()
    granted = branch.grants()[0].granted_at
    branch.host.server._admission.wall = lambda: granted + 1.0
    with pytest.raises(Denied) as refused:
        branch.restored(uri)
    assert branch.record_of(reference=refused.value.reference)["reason"] == "sturdy-expired"


def test_granting_is_refused_where_no_policy_lets_the_holder_restore(branch):
    with pytest.raises(CallRefused, match=r"\[restore.account\] with as ="):
        branch.grant("mallory")
    with pytest.raises(CallRefused, match="no policy lets"):
        branch.grant("nobody")
    assert branch.grants() == []


def test_a_bearer_grant_must_be_asked_for_and_allowed_by_policy(branch):
    with pytest.raises(ConfigurationError, match="sealed to one holder"):
        branch.grant(None)
    with pytest.raises(CallRefused, match="bearer = true"):
        branch.grant(None, bearer=True)
    branch.town.rewrite(bob='[restore.account]\nas = "Account"\nbearer = true\n')
    branch.host.reload()
    uri = branch.grant(None, bearer=True)
    assert branch.restored(uri, side="bob") == "42"
    with pytest.raises(Denied) as refused:
        branch.restored(uri, side="alice")
    assert branch.record_of(reference=refused.value.reference)["reason"] == "sturdy-bearer"


def test_granting_for_longer_than_policy_allows_is_refused(branch):
    branch.town.rewrite(alice='[restore.account]\nas = "Account"\nmax_for_s = 60\n')
    branch.host.reload()
    with pytest.raises(CallRefused, match="60 s at most, 61 s asked for"):
        branch.grant(for_s=61.0)
    branch.grant()
    (grant,) = branch.grants()
    assert grant.expires_at == grant.granted_at + 60.0


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("account", {"key": ""}, "takes key="),
        ("account", {"key": "4" * 513}, "at most 512"),
        ("bank", {"key": "42"}, "no key: it is a root"),
        ("nothing", {}, "what there is: account, bank"),
        (object(), {}, "found again after a restart"),
        ("account", {"for_s": 0.0}, "seconds above 0"),
        ("account", {"for_s": float("nan")}, "seconds above 0"),
        ("account", {"bearer": True}, "sealed to one holder"),
    ],
)
def test_a_grant_that_makes_no_sense_is_refused(branch, target, options, said):
    with pytest.raises(ConfigurationError, match=said):
        branch.grant(target=target, **options)
    assert branch.grants() == []


def test_a_restorer_that_fails_answers_internal_and_the_log_says_why(branch):
    uri = branch.grant(key="gone")
    with pytest.raises(caprpc.RemoteError) as failed:
        branch.restored(uri)
    assert failed.value.code == "internal"
    assert branch.record_of(reference=failed.value.reference, kind="outcome")["error"] == "KeyError"


def test_an_object_of_another_interface_than_policy_says_does_not_leave(branch):
    uri = branch.grant()
    branch.service.accounts["42"] = branch.service
    with pytest.raises(caprpc.RemoteError) as failed:
        branch.restored(uri)
    assert failed.value.code == "invalid-result"


def test_a_policy_for_what_cannot_be_restored_stops_the_start(town, branch):
    town.rewrite(alice='[restore.safe]\nas = "Account"\n')
    with pytest.raises(PolicyError, match="'safe' may be restored, and this service has no such root or kind"):
        branch.host.reload()


def test_a_policy_to_restore_from_a_service_that_keeps_no_grants_stops_the_start(town, branch, tmp_path):
    made = caprpc.Server if branch.server_kind == "blocking" else caprpc.aio.Server
    with pytest.raises(PolicyError, match="this service keeps no grants"):
        made({"bank": branch.service}, **town.server.directories, audit=tmp_path / "again")
