"""Signed policies: enough people, these very files, and no older version."""

import fcntl
import json
import os
import subprocess

import pytest
from click.testing import CliRunner

from caprpc import Client
from caprpc.audit.notes import KIND_COSIGNER, KIND_LOG, NoteSigner
from caprpc.bundles import SignedPolicies, Signers, bundle_text, sign
from caprpc.cli import main
from caprpc.errors import ConfigurationError, PolicyError
from caprpc.policy import PolicySet
from caprpc.testing.deployment import Deployment
from tests.policy.conftest import NOW


@pytest.fixture
def people():
    return [NoteSigner.generate(name, KIND_LOG) for name in ("alice.example", "bob.example", "carol.example")]


class Bundle:
    """A directory, the people who may sign it, and a file that says so."""

    def __init__(self, directory, people, path):
        self.directory, self.people, self.path = directory, people, path
        self.write(2)

    def write(self, threshold, keys=None, **more):
        keys = [str(one.key) for one in self.people] if keys is None else keys
        lines = {
            "caprpc": 1,
            "kind": '"signers"',
            "threshold": threshold,
            "state": '"state/accepted"',
            "keys": json.dumps(keys),
        }
        self.path.write_text("".join(f"{key} = {value}\n" for key, value in {**lines, **more}.items()))
        self.path.chmod(0o600)

    def sign(self, *signers):
        for signer in signers:
            self.directory.write("caprpc.note", sign(self.directory.load(), signer).encode())

    def accept(self):
        Signers.load(self.path).accept(self.directory.load())

    def refusal(self):
        with pytest.raises(ConfigurationError) as caught:
            self.accept()
        return str(caught.value)


@pytest.fixture
def bundle(directory, people, tmp_path):
    return Bundle(directory, people, tmp_path / "signers.toml")


def test_enough_signatures_over_these_files_are_accepted(bundle, people):
    bundle.sign(*people[:2])
    bundle.accept()
    bundle.accept()


def test_too_few_signatures_are_refused_and_say_who(bundle, people):
    assert "are not signed" in bundle.refusal()
    bundle.sign(people[0])
    assert "signed by 1 of 2 needed (alice.example)" in bundle.refusal()


def test_one_person_counts_once(bundle, people):
    bundle.sign(people[0], people[0])
    assert "signed by 1 of 2" in bundle.refusal()
    again = [str(people[0].key), str(NoteSigner("other.example", KIND_LOG, people[0]._seed).key)]
    bundle.write(2, again)
    with pytest.raises(PolicyError, match="one key stands twice"):
        bundle.accept()


def test_a_stranger_does_not_count(bundle, people):
    bundle.sign(people[0], NoteSigner.generate("mallory.example", KIND_LOG))
    assert "signed by 1 of 2" in bundle.refusal()


def test_a_stranger_with_the_name_of_a_signer_does_not_count(bundle, people):
    bundle.sign(people[0], NoteSigner.generate("bob.example", KIND_LOG))
    assert "signed by 1 of 2" in bundle.refusal()


@pytest.mark.parametrize("file", ["org-b.toml", "caprpc.toml", "contracts.toml"])
def test_a_change_of_any_file_is_refused_and_named(bundle, people, file):
    bundle.sign(*people[:2])
    text = (bundle.directory.path / file).read_text()
    bundle.directory.write(file, text + "\n# one more line\n")
    assert f"changed since: {file}" in bundle.refusal()


def test_a_forged_signature_makes_the_whole_note_bad(bundle, people):
    bundle.sign(*people[:2])
    note = (bundle.directory.path / "caprpc.note").read_text()
    lines = note.splitlines()
    head, _, data = lines[-1].rpartition(" ")
    flipped = data[:20] + ("A" if data[20] != "A" else "B") + data[21:]
    bundle.directory.write("caprpc.note", "\n".join([*lines[:-1], f"{head} {flipped}"]) + "\n")
    assert "its key did not make" in bundle.refusal()


@pytest.mark.parametrize("content", [b"", b"no note\n", b"\xff\xfe", b"x" * 5000])
def test_what_is_no_note_is_refused(bundle, content):
    bundle.directory.write("caprpc.note", content)
    assert "not a signed note" in bundle.refusal()


def test_signing_again_after_a_change_drops_old_signatures(bundle, people):
    bundle.sign(*people[:2])
    bundle.directory.replace("version = 7", "version = 8", "caprpc.toml")
    bundle.sign(people[2])
    assert "signed by 1 of 2 needed (carol.example)" in bundle.refusal()


def test_an_older_version_does_not_come_back_after_a_restart(bundle, people):
    bundle.sign(*people[:2])
    old = {path.name: path.read_bytes() for path in bundle.directory.path.iterdir()}
    bundle.accept()
    bundle.directory.replace("version = 7", "version = 8", "caprpc.toml")
    bundle.sign(*people[:2])
    bundle.accept()
    for name, content in old.items():
        bundle.directory.write(name, content)
    assert "an older version may not come back" in bundle.refusal()


def test_other_files_under_the_same_version_are_refused(bundle, people):
    bundle.sign(*people[:2])
    bundle.accept()
    bundle.directory.replace("per_second = 2", "per_second = 3")
    bundle.sign(*people[:2])
    assert "an older version may not come back" in bundle.refusal()


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "",
        "[]",
        '{"version": "1"}',
        "\xff",
        '"1"',
        "[" * 100_000,
        '{"version": 0, "digest": "x"}',
        '{"version": 1.0, "digest": "x"}',
    ],
)
def test_a_state_that_cannot_be_read_refuses(bundle, people, tmp_path, content):
    bundle.sign(*people[:2])
    bundle.accept()
    (tmp_path / "state" / "accepted").write_text(content, encoding="latin-1")
    said = bundle.refusal()
    assert "cannot be read" in said
    assert "hint: restore it" in said


@pytest.mark.parametrize(
    ("what", "why"),
    [("link", "is a symbolic link"), ("pipe", "not a regular file"), ("writable", "writable by group or others")],
)
def test_a_state_that_others_could_have_put_there_refuses(bundle, people, tmp_path, what, why):
    bundle.sign(*people[:2])
    state = tmp_path / "state" / "accepted"
    state.parent.mkdir(mode=0o700)
    if what == "link":
        state.symlink_to("nowhere")
    elif what == "pipe":
        os.mkfifo(state)
    else:
        state.touch()
        state.chmod(0o666)
    assert why in bundle.refusal()


def test_of_two_processes_that_accept_at_a_time_the_older_version_does_not_win(bundle, people, tmp_path, monkeypatch):
    bundle.sign(*people[:2])
    state, held = tmp_path / "state" / "accepted", []
    first = Signers.check_version

    def checked(signers, policies):
        lock = tmp_path / "state" / ".accepted.lock"
        if lock.exists():
            with lock.open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.append(True)
        newer = first(signers, policies)
        if not held:
            state.parent.mkdir(mode=0o700)
            state.write_text(json.dumps({"version": 8, "digest": "that of the other process"}))
        return newer

    monkeypatch.setattr(Signers, "check_version", checked)
    assert "version 7" in bundle.refusal()
    assert held == [True]
    assert json.loads(state.read_text())["version"] == 8


def test_no_signature_is_added_that_would_make_the_note_unreadable(bundle, people):
    bundle.sign(*(NoteSigner.generate(f"s{number}.example", KIND_LOG) for number in range(16)))
    with pytest.raises(ConfigurationError, match="16 others have signed, and a note has at most 16"):
        bundle.sign(people[0])
    assert "signed by 0 of 2" in bundle.refusal()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 4}, "4 signatures of 3 keys"),
        ({"threshold": 0}, "between 1 and 16"),
        ({"more": 1}, "unknown key 'more'"),
        ({"kind": '"policy"'}, "must be 'signers'"),
    ],
)
def test_a_file_of_signers_with_a_mistake_is_refused(bundle, change, message):
    bundle.write(change.pop("threshold", 2), **change)
    with pytest.raises(PolicyError, match=message):
        Signers.load(bundle.path)


def test_the_key_of_a_witness_cannot_sign_policies(bundle):
    witness = NoteSigner.generate("witness.example", KIND_COSIGNER)
    bundle.write(1, [str(witness.key)])
    with pytest.raises(PolicyError, match="key of a witness"):
        Signers.load(bundle.path)
    with pytest.raises(ConfigurationError, match="key of a witness"):
        sign(bundle.directory.load(), witness)


def test_signers_that_others_can_write_are_refused(bundle):
    bundle.path.chmod(0o666)
    with pytest.raises(PolicyError, match="writable by group or others"):
        Signers.load(bundle.path)


def test_openssl_verifies_a_signature(bundle, people, tmp_path):
    """An independent oracle: the note's signature is plain Ed25519 over its text."""
    import base64

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    note = sign(bundle.directory.load(), people[0])
    public = Ed25519PublicKey.from_public_bytes(people[0].key.public)
    (tmp_path / "key.pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "text").write_text(bundle_text(bundle.directory.load()))
    encoded = str(note).splitlines()[-1].rpartition(" ")[2]
    (tmp_path / "signature").write_bytes(base64.b64decode(encoded)[4:])
    command = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        "key.pem",
        "-rawin",
        "-in",
        "text",
        "-sigfile",
        "signature",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "Signature Verified Successfully" in done.stdout + done.stderr


def test_commands_make_keys_sign_and_verify(directory, tmp_path):
    runner = CliRunner()

    def run(*words):
        return runner.invoke(main, ["policy", *map(str, words)])

    keys = []
    for name in ("alice.example", "bob.example"):
        made = run("keygen", name, "--write", tmp_path / f"{name}.key")
        assert made.exit_code == 0, made.output
        keys.append(made.stdout.strip())
    assert (tmp_path / "alice.example.key").stat().st_mode & 0o777 == 0o600
    assert run("keygen", "alice.example", "--write", tmp_path / "alice.example.key").exit_code == 3
    signers = tmp_path / "signers.toml"
    signers.write_text(f'caprpc = 1\nkind = "signers"\nthreshold = 2\nstate = "state"\nkeys = {json.dumps(keys)}\n')
    signers.chmod(0o600)
    assert run("verify", directory.path, "--signers", signers).exit_code == 1
    assert run("sign", directory.path, "--show").stdout.startswith("caprpc policy bundle v1\nversion 7\nsha256:")
    for name in ("alice.example", "bob.example"):
        assert run("sign", directory.path, "--key", tmp_path / f"{name}.key").exit_code == 0
    verified = run("verify", directory.path, "--signers", signers)
    assert (verified.exit_code, verified.stdout) == (
        0,
        "yes: version 7, signed by alice.example, bob.example (2 needed)\n",
    )
    assert run("check", directory.path).exit_code == 0
    Signers.load(signers).accept(directory.load())
    assert run("verify", directory.path, "--signers", signers).exit_code == 0, "accepted, and still the same"
    directory.replace("version = 7", "version = 6", "caprpc.toml")
    for name in ("alice.example", "bob.example"):
        assert run("sign", directory.path, "--key", tmp_path / f"{name}.key").stderr == ""
    back = run("verify", directory.path, "--signers", signers)
    assert back.exit_code == 1
    assert "an older version may not come back" in back.stdout
    directory.replace("per_second = 2", "per_second = 1")
    again = run("sign", directory.path, "--key", tmp_path / "alice.example.key")
    assert "other files were signed as version 6 before" in again.stderr
    assert "version = 7, and sign again" in again.stderr
    (tmp_path / "state").write_text("nothing")
    assert run("verify", directory.path, "--signers", signers).exit_code == 1
    (tmp_path / "alice.example.key").chmod(0o644)
    assert run("sign", directory.path, "--key", tmp_path / "alice.example.key").exit_code == 3


def test_changes_are_shown_since_the_last_version_that_enough_have_signed(bundle, people, tmp_path):
    above, path = bundle.directory.path.parent, bundle.directory.path
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

    def commit(message):
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        for words in (("add", path.name), ("commit", "-qm", message)):
            subprocess.run(["git", "-C", above, *identity, *words], check=True, env=environment)

    def run(*words):
        return CliRunner().invoke(main, ["policy", *map(str, words)])

    subprocess.run(["git", "-C", above, "init", "-q"], check=True, env=environment)
    commit("not signed")
    none = run("diff", "--last-signed", bundle.path, path)
    assert none.exit_code == 3
    assert "no revision of" in none.stderr
    bundle.sign(*people[:2])
    commit("signed by two")
    bundle.directory.replace("per_second = 2", "per_second = 3")
    bundle.sign(people[0])
    commit("signed by one, which is not enough")
    bundle.directory.replace("max = 10_000", "max = 20_000")
    found = run("diff", "--last-signed", bundle.path, path)
    assert found.exit_code == 1, found.output
    assert "Ledger.post: limits" in found.stdout
    assert "Ledger.post: arguments" in found.stdout
    report = tmp_path / "report.html"
    assert run("report", path, "--html", report, "--last-signed", bundle.path).exit_code == 0
    names = ", ".join(person.key.name for person in people[:2])
    assert f"Changes since version 7, signed by {names} (" in report.read_text()
    assert run("report", path, "--html", report, "--last-signed", bundle.path, "--git", "HEAD").exit_code == 2
    assert run("diff", path, path, "--last-signed", bundle.path).exit_code == 2


def test_a_side_takes_only_signed_policies_and_keeps_the_last_good_ones(tmp_path, people):
    deployment = Deployment(tmp_path / "sides")
    text = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/bob"]\n'
    side = deployment.side("alice", {"bob": text})
    signers = tmp_path / "signers.toml"
    keys = json.dumps([str(people[0].key)])
    signers.write_text(f'caprpc = 1\nkind = "signers"\nthreshold = 1\nstate = "state"\nkeys = {keys}\n')
    signers.chmod(0o600)
    signed = SignedPolicies(side.policies, signers)
    with pytest.raises(ConfigurationError, match="are not signed"):
        Client(identity=side.identity, policies=signed)
    note = side.policies / "caprpc.note"
    note.write_bytes(sign(PolicySet.load(side.policies, now=NOW), people[0]).encode())
    note.chmod(0o600)
    with Client(identity=side.identity, policies=signed) as client:
        deployment.rewrite(side, {"bob": text + "[limits]\nin_flight = 9\n"}, 2)
        with pytest.raises(ConfigurationError, match="changed since: bob.toml, caprpc.toml"):
            client.reload()
        assert client._admission.epoch.policies.version == 1
        note.write_bytes(sign(PolicySet.load(side.policies, now=NOW), people[0]).encode())
        client.reload()
        assert client._admission.epoch.policies.version == 2
