"""Notes, keys and checkpoints are those of C2SP; the openssl program and published examples say so."""

import base64
import shutil
import subprocess

import pytest

from caprpc.audit.notes import (
    KIND_COSIGNER,
    KIND_LOG,
    MAX_NOTE_BYTES,
    Checkpoint,
    Note,
    NoteError,
    NoteSigner,
    Signature,
    VerifierKey,
)

# Published with Go's golang.org/x/mod/sumdb/note.
NEUMANN = VerifierKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
NEUMANN_SECRET = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
NEUMANN_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NEUMANN_NOTE = (
    NEUMANN_TEXT + "\n— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
SOFA = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)
TEXT = str(Checkpoint("example/log", 7, bytes(range(32))))


@pytest.fixture
def log():
    return NoteSigner.generate("example/log", KIND_LOG)


@pytest.fixture
def witness():
    return NoteSigner.generate("example/witness", KIND_COSIGNER)


def openssl_verifies(tmp_path, public, message, signature):
    """Have the openssl program verify an Ed25519 signature; it knows nothing of us."""
    prefix = bytes.fromhex("302a300506032b6570032100")  # SubjectPublicKeyInfo of Ed25519, RFC 8410
    for name, data in (("key.der", prefix + public), ("message", message), ("signature", signature)):
        (tmp_path / name).write_bytes(data)
    command = "openssl pkeyutl -verify -pubin -keyform DER -inkey key.der -rawin -in message -sigfile signature"
    return subprocess.run(command.split(), cwd=tmp_path, capture_output=True, check=False).returncode == 0


def test_published_note_verifies_and_is_made_again_byte_for_byte():
    note = Note.parse(NEUMANN_NOTE.encode())
    assert note.text == NEUMANN_TEXT
    assert note.signature_of(NEUMANN) is not None
    signer = NoteSigner.parse(NEUMANN_SECRET)
    assert signer.key == NEUMANN
    assert str(signer.key) == "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    assert signer.secret == NEUMANN_SECRET
    assert str(Note(NEUMANN_TEXT, (signer.sign(NEUMANN_TEXT),))) == NEUMANN_NOTE


def test_published_checkpoint_is_read_with_its_cosignature():
    note = Note.parse(SOFA.encode())
    found = Checkpoint.parse(note.text)
    assert (found.origin, found.size) == ("example.com/behind-the-sofa", 20852163)
    assert str(found) == note.text
    assert [signature.name for signature in note.signatures] == [found.origin, "witness.example.com/w1"]
    assert note.signatures[1].time_s == 1679315147
    assert note.encode() == SOFA.encode()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
def test_openssl_accepts_our_signatures_and_no_others(tmp_path, log, witness):
    signature = log.sign(TEXT)
    assert openssl_verifies(tmp_path, log.key.public, TEXT.encode(), signature.data)
    assert not openssl_verifies(tmp_path, log.key.public, TEXT.replace("7", "8").encode(), signature.data)
    cosignature = witness.sign(TEXT, 1_679_315_147)
    message = b"cosignature/v1\ntime 1679315147\n" + TEXT.encode()
    assert cosignature.data[:8] == (1_679_315_147).to_bytes(8, "big")
    assert openssl_verifies(tmp_path, witness.key.public, message, cosignature.data[8:])


def test_changed_note_is_not_signed(log, witness):
    note = Note(TEXT, (log.sign(TEXT), witness.sign(TEXT, 5)))
    assert note.signature_of(log.key) is not None
    assert note.signature_of(witness.key).time_s == 5
    changed = Note(TEXT.replace("\n7\n", "\n8\n"), note.signatures)
    for signer in (log, witness):
        with pytest.raises(NoteError, match="its key did not make"):
            changed.signature_of(signer.key)


def test_cosignature_is_bound_to_its_time(witness):
    made = witness.sign(TEXT, 5)
    later = Signature(made.name, made.key_id, (6).to_bytes(8, "big") + made.data[8:])
    with pytest.raises(NoteError):
        Note(TEXT, (later,)).signature_of(witness.key)


def test_unknown_signatures_are_passed_over(log):
    stranger = NoteSigner.generate("example/log", KIND_LOG)
    assert Note(TEXT, (stranger.sign(TEXT),)).signature_of(log.key) is None


def test_keys_come_back_from_their_text(log, witness):
    for signer in (log, witness):
        assert VerifierKey.parse(str(signer.key)) == signer.key
        assert NoteSigner.parse(signer.secret).key == signer.key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+00000000+AQ==",
        "name+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW=",
        "x" * 10_000,
    ],
)
def test_texts_that_are_no_keys_are_refused(text):
    with pytest.raises(NoteError):
        VerifierKey.parse(text)
    with pytest.raises(NoteError):
        NoteSigner.parse("PRIVATE+KEY+" + text)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"text\n\n- name AAAAAAA=\n",
        "text\n\n— name AAAAAAA=".encode(),
        "text\n\n— name AAAA\n".encode(),
        "text\n\n— na me AAAAAAA=\n".encode(),
        "text\n\n— na+me AAAAAAA=\n".encode(),
        "text\n\n— name AAAAAA==\x00\n".encode(),
        "te\x1bxt\n\n— name AAAAAAA=\n".encode(),
        b"te\xffxt\n\n\xe2\x80\x94 name AAAAAAA=\n",
        ("text\n\n" + "— name AAAAAAA=\n" * 17).encode(),
        ("x" * MAX_NOTE_BYTES + "\n\n— name AAAAAAA=\n").encode(),
    ],
)
def test_bytes_that_are_no_notes_are_refused(data):
    with pytest.raises(NoteError):
        Note.parse(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "log\n",
        "log\n1\n",
        "log\n1\n" + base64.b64encode(bytes(31)).decode() + "\n",
        "log\n01\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log\n-1\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log\n\u0661\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log\n1\n" + base64.b64encode(bytes(32)).decode(),
        "log\n1\n" + base64.b64encode(bytes(32)).decode() + "\n\n",
        "\n1\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "x" * 300 + "\n1\n" + base64.b64encode(bytes(32)).decode() + "\n",
    ],
)
def test_texts_that_are_no_checkpoints_are_refused(text):
    with pytest.raises(NoteError):
        Checkpoint.parse(text)


def test_extension_lines_of_others_are_kept_and_say_nothing():
    assert Checkpoint.parse(TEXT + "extension\n") == Checkpoint.parse(TEXT)
