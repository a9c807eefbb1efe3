"""What is shipped: built anywhere it is the same to the bit, and it holds no key. CAP-SC-06, CAP-SC-09."""

import base64
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

# The backend runs by itself: pip would look for it on an index.
BUILD = """
import sys
from hatchling.build import build_sdist, build_wheel
print(build_wheel(sys.argv[1]))
print(build_sdist(sys.argv[1]))
"""
EPOCH = "1764374400"

# Written in pieces, so that this file does not find itself.
PEM = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]*(?:PRIVATE KEY|CERTIFICATE|X509 CRL))-----\s+([A-Za-z0-9+/=\s]{40,})-----" + b"END"
)
SUFFIXES = (".pem", ".key", ".p12", ".pfx", ".der", ".crt", ".cer", ".jks", ".crl", ".db")
SECRET = re.compile(rb"caprpc_sr_[A-Za-z0-9_-]{40,}")


def key(encoding=Encoding.PEM):
    return Ed25519PrivateKey.generate().private_bytes(encoding, PrivateFormat.PKCS8, NoEncryption())


def build(root, out, **environment):
    """Build both, offline, in an environment that says as little as possible; return their names and bytes."""
    out.mkdir()
    known = {"SOURCE_DATE_EPOCH": EPOCH, "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **environment}
    command = [sys.executable, "-I", "-c", BUILD, str(out)]
    subprocess.run(command, cwd=root, env=known, check=True, capture_output=True, timeout=120)
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def copy(files, repository, target):
    for path in files:
        place = target / path.relative_to(repository)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    return target


@pytest.fixture(scope="module")
def artefacts(tracked_files, repository, tmp_path_factory):
    directory = tmp_path_factory.mktemp("first")
    return build(copy(tracked_files, repository, directory / "clone"), directory / "dist")


def members(name, data):
    """Yield the name and the bytes of each file of a wheel or a source archive."""
    if name.endswith(".whl"):
        with zipfile.ZipFile(io.BytesIO(data)) as wheel:
            yield from ((info.filename, wheel.read(info)) for info in wheel.infolist())
        return
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for info in archive:
            held = archive.extractfile(info)
            yield info.name, held.read() if held is not None else b""


def keys_in(name, data):
    """Yield what looks like a key, a certificate, a list of the revoked or a secret."""
    for found in PEM.finditer(data):
        yield f"{name}: {found[1].decode()}"
    yield from (f"{name}: a sturdy secret" for _ in SECRET.finditer(data))
    if name.endswith(SUFFIXES):
        yield f"{name}: by its name"
    try:
        load_der_private_key(data, password=None)
    except (ValueError, TypeError):
        return
    yield f"{name}: a private key in DER"


def test_a_rebuild_elsewhere_is_the_same_to_the_bit(artefacts, tracked_files, repository, tmp_path):
    """Another directory, time zone, locale, hash seed, order of files, umask; and with keys of a developer about."""
    clone = copy(reversed(tracked_files), repository, tmp_path / "another place")
    for number, path in enumerate(sorted(clone.rglob("*"))):
        os.utime(path, (10_000 + number, 20_000 + number))
        if path.is_file():
            path.chmod(0o600)
    for left in ("caprpc/demo/left.pem", "caprpc/left.key", "policies/left.pem", "tests/pki/left.key", "docs/left.p12"):
        (clone / left).write_bytes(key())
    (clone / "policies" / "demo-server" / "left.key").write_bytes(key())
    again = build(clone, tmp_path / "dist", TZ="Pacific/Kiritimati", LC_ALL="C", PYTHONHASHSEED="7")
    digests = [{name: hashlib.sha256(data).hexdigest() for name, data in built.items()} for built in (artefacts, again)]
    assert digests[0] == digests[1]
    assert sorted(name.rpartition(".")[2] for name in artefacts) == ["gz", "whl"]


def test_a_wheel_of_the_source_archive_is_that_of_the_repository(artefacts, tmp_path):
    (name,) = (name for name in artefacts if name.endswith(".tar.gz"))
    with tarfile.open(fileobj=io.BytesIO(artefacts[name]), mode="r:gz") as archive:
        archive.extractall(tmp_path, filter="data")
    built = build(tmp_path / name.removesuffix(".tar.gz"), tmp_path / "dist")
    assert {name for name, data in artefacts.items() if built[name] != data} == set()


def test_no_key_and_no_certificate_is_shipped(artefacts):
    found = [
        f"{artefact}: {what}"
        for artefact, data in artefacts.items()
        for name, held in members(artefact, data)
        for what in keys_in(name, held)
    ]
    assert found == []
    counts = [sum(1 for _ in members(name, data)) for name, data in artefacts.items()]
    assert min(counts) > 200


def test_the_scan_finds_what_it_is_for():
    block = base64.encodebytes(bytes(60))
    certificate = b"-----BEGIN CERTIFI" + b"CATE-----\n" + block + b"-----" + b"END CERTIFICATE-----\n"
    planted = [key(), b"text = '''" + key() + b"'''", key(Encoding.DER), certificate, b"x caprpc_" + b"sr_" + b"a" * 43]
    assert [len(list(keys_in("caprpc/x.py", data))) for data in planted] == [1] * 5
    assert list(keys_in("caprpc/server.pem", b"")) == ["caprpc/server.pem: by its name"]
    assert list(keys_in("caprpc/x.py", b"-----BEGIN " + b"CERTIFICATE-----")) == []
