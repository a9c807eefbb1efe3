"""Our own identity: what is refused before anything starts, and what a reload does."""

import os
import shutil
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from caprpc.errors import ConfigurationError
from caprpc.pki.certificates import Validity
from caprpc.tls import Identity

SERVER = "spiffe://acme.example/ledger"
DAY = timedelta(days=1)


@pytest.fixture
def directory(world, tmp_path):
    target = tmp_path / "own"
    shutil.copytree(world.server.directory, target)
    return target


def refusal(directory) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        Identity.load(directory)
    return caught.value


def test_identity_tells_who_we_are(world):
    identity = Identity.load(str(world.server.directory))
    assert identity.principal == SERVER
    assert identity.leaf_key.startswith("sha256:")
    assert identity.anchors == {world.acme.fingerprint, world.org_b.fingerprint}


def test_private_key_does_not_show_in_repr(world):
    assert "PRIVATE" not in repr(world.server)
    assert "PRIVATE" not in repr(world.server.files)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620, 0o777])
def test_key_that_others_may_touch_is_refused(directory, mode):
    (directory / "key.pem").chmod(mode)
    error = refusal(directory)
    assert f"{mode:04o}" in error.message
    assert error.hint.startswith("chmod 0600")


def test_key_behind_a_symbolic_link_is_refused(directory):
    (directory / "key.pem").rename(directory / "elsewhere")
    (directory / "key.pem").symlink_to(directory / "elsewhere")
    assert "cannot be read" in refusal(directory).message


def test_key_that_is_no_regular_file_is_refused_without_waiting(directory):
    (directory / "key.pem").unlink()
    os.mkfifo(directory / "key.pem", 0o600)
    assert "regular" in refusal(directory).message


@pytest.mark.parametrize("name", ["cert.pem", "anchors.pem", "crl.pem"])
def test_directory_where_a_file_belongs_is_refused_with_its_name(directory, name):
    (directory / name).unlink()
    (directory / name).mkdir(mode=0o755)
    before = len(os.listdir("/proc/self/fd"))
    error = refusal(directory)
    assert (error.message, error.where) == ("not a regular file", str(directory / name))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["cert.pem", "key.pem", "anchors.pem"])
def test_a_damaged_file_is_refused_with_a_way_out(directory, name):
    (directory / name).write_text("nothing of use")
    error = refusal(directory)
    assert "damaged" in error.message
    assert "caprpc pki renew" in error.hint


def test_key_of_another_user_is_refused(directory, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert "belongs to user" in refusal(directory).message


def test_encrypted_key_is_refused_with_a_way_out(directory):
    key = load_pem_private_key((directory / "key.pem").read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (directory / "key.pem").write_bytes(locked)
    error = refusal(directory)
    assert "encrypted" in error.message
    assert "openssl pkey" in error.hint


@pytest.mark.parametrize("name", ["cert.pem", "anchors.pem", "crl.pem"])
def test_file_that_others_may_write_is_refused(directory, name):
    (directory / name).chmod(0o664)
    error = refusal(directory)
    assert "writable" in error.message
    assert name in error.where


def test_directory_that_others_may_write_is_refused(directory):
    directory.chmod(0o770)
    assert "writable" in refusal(directory).message


@pytest.mark.parametrize("name", ["cert.pem", "key.pem", "anchors.pem", "crl.pem"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "garbage"])
def test_damaged_file_is_named(directory, name, damage):
    path = directory / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        changed = {"empty": b"", "truncated": content[: len(content) // 3], "garbage": os.urandom(200)}[damage]
        path.write_bytes(changed)
    assert name in refusal(directory).where


def test_truncated_second_revocation_list_is_not_overlooked(directory):
    path = directory / "crl.pem"
    path.write_bytes(path.read_bytes()[:-60])
    assert "crl.pem" in refusal(directory).where


def test_missing_directory_is_named_with_a_way_out(tmp_path):
    error = refusal(tmp_path / "nowhere")
    assert "caprpc pki issue" in error.hint


def test_file_instead_of_a_directory_is_refused(directory):
    assert "not a directory" in refusal(directory / "cert.pem").message


def test_key_of_another_certificate_is_refused(world, directory):
    (directory / "key.pem").write_bytes((world.client.directory / "key.pem").read_bytes())
    assert "does not belong" in refusal(directory).message


@pytest.mark.parametrize(
    ("begin", "end", "words"), [(-2 * DAY, -DAY, "expired on"), (DAY, 2 * DAY, "not valid before")]
)
def test_own_certificate_outside_its_validity_is_refused(world, begin, end, words):
    now = datetime.now(UTC)
    leaf = world.acme.leaf(SERVER, validity=Validity(now + begin, now + end))
    assert words in refusal(world.identity_directory(leaf)).message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"without": [x509.ExtendedKeyUsage]}, "extended key usage"),
        (
            {
                "without": [x509.ExtendedKeyUsage],
                "extra": [(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CODE_SIGNING]), False)],
            },
            "neither clientAuth nor serverAuth",
        ),
        ({"without": [x509.SubjectAlternativeName]}, "common name is never read"),
    ],
)
def test_own_certificate_that_peers_would_refuse_is_refused_here(world, changes, words):
    assert words in refusal(world.identity_directory(world.acme.leaf(SERVER, **changes))).message


def test_ca_certificate_as_own_identity_is_refused(world, directory):
    (directory / "cert.pem").write_bytes(world.acme.pem)
    assert "CA certificate" in refusal(directory).message


def test_leaf_among_the_anchors_is_refused(directory):
    (directory / "anchors.pem").write_bytes((directory / "cert.pem").read_bytes())
    assert "no CA" in refusal(directory).message


def test_intermediate_among_the_anchors_is_refused(world, directory):
    (directory / "anchors.pem").write_bytes(world.acme.intermediate().pem)
    assert "intermediate" in refusal(directory).message


def test_oversized_file_is_refused(directory):
    with (directory / "crl.pem").open("ab") as file:
        file.truncate(17 * 1024 * 1024)
    assert "at most" in refusal(directory).message


def test_snapshot_does_not_change_with_the_directory(world, directory):
    before = Identity.load(directory)
    shutil.copyfile(world.client.directory / "cert.pem", directory / "cert.pem")
    assert before.principal == SERVER
    assert before.files.cert != (directory / "cert.pem").read_bytes()


def test_change_is_noticed_and_reload_gives_a_new_epoch(world, directory):
    before = Identity.load(directory)
    assert not before.changed()
    leaf = world.acme.leaf("spiffe://acme.example/renewed", role="server")
    world.pki.write_identity(directory, leaf, trust=[world.acme])
    assert before.changed()
    after = before.reload()
    assert (before.principal, after.principal) == (SERVER, "spiffe://acme.example/renewed")
    assert not after.changed()


def test_half_finished_replacement_does_not_load(world, directory):
    before = Identity.load(directory)
    shutil.copyfile(world.client.directory / "cert.pem", directory / "cert.pem")
    assert before.changed()
    with pytest.raises(ConfigurationError):
        before.reload()


def test_vanished_directory_counts_as_a_change(directory):
    before = Identity.load(directory)
    shutil.rmtree(directory)
    assert before.changed()


def test_operator_is_warned_of_what_ends_soon_and_of_a_missing_list(world):
    now = datetime.now(UTC)
    year = Validity(now - DAY, now + 365 * DAY)
    ca, quiet = world.pki.ca("Long CA", validity=year), world.pki.ca("Quiet CA", validity=year)
    leaf = ca.leaf(SERVER, validity=year)
    lists = [ca.crl_pem(validity=Validity(now - DAY, now + 30 * DAY))]
    identity = world.identity(leaf, trust=[ca, quiet], crls=lists)
    assert identity.problems(time.time()) == ("no revocation list of CN=Quiet CA in crl.pem: its peers are refused",)
    soon = identity.problems(time.time() + 25 * 86_400)
    assert any(problem.startswith("the revocation list of CN=Long CA expires") for problem in soon)
    late = identity.problems(time.time() + 400 * 86_400)
    assert any(problem.startswith("our certificate expired") for problem in late)
