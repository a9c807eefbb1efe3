"""Secrets of sturdy references: random enough, recognizable by scanners, and in no message."""

import hashlib
import re
import zlib
from base64 import b32decode

import pytest

from caprpc.address import Address
from caprpc.errors import ConfigurationError
from caprpc.sturdy import PATTERN, PREFIX, SturdyUri, address_of, digest_of, is_secret, new_secret

SECRET = new_secret()


def test_a_secret_has_160_random_bits_and_a_checksum():
    body = SECRET.removeprefix("caprpc_sr_")
    assert len(b32decode(body[:32].upper())) * 8 == 160
    checksum = b32decode(body[32:].upper() + "=")
    assert checksum == zlib.crc32(SECRET[:-7].encode()).to_bytes(4, "big")
    assert len({new_secret() for _ in range(1_000)}) == 1_000


@pytest.mark.parametrize("position", range(len(PREFIX), len(SECRET)))
def test_every_typing_error_is_found(position):
    wrong = "b" if SECRET[position] == "a" else "a"
    assert not is_secret(SECRET[:position] + wrong + SECRET[position + 1 :])


def test_what_is_no_secret():
    for text in ("", "x", SECRET[:-1], SECRET + "a", SECRET.upper(), " " + SECRET, "é" * 49):
        assert not is_secret(text)


def test_scanners_find_a_secret_in_any_text():
    leak = f'url = "caprpc://127.0.0.1:4853/account#{SECRET}"  # {PREFIX}, and {PREFIX}short'
    assert re.findall(PATTERN, leak) == [SECRET]


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/how-to/sturdy-references.md"])
def test_the_documents_state_the_pattern(pytestconfig, page):
    assert PATTERN in (pytestconfig.rootpath / page).read_text(encoding="utf-8")


def test_the_digest_is_that_of_the_wire_protocol(pytestconfig):
    assert digest_of(SECRET) == hashlib.sha256(b"caprpc sturdy reference 1\0" + SECRET.encode()).digest()
    assert digest_of(SECRET) != hashlib.sha256(SECRET.encode()).digest()
    page = (pytestconfig.rootpath / "docs/reference/wire-protocol.md").read_text(encoding="utf-8")
    assert "SHA-256 over `caprpc sturdy reference 1`, a zero byte, and the fragment" in page


@pytest.mark.parametrize("text", ["", "\ud800", "x" * 10_000])
def test_any_text_has_a_digest(text):
    assert len(digest_of(text)) == 32


@pytest.mark.parametrize(
    "where", ["caprpc://127.0.0.1:4853", "caprpc://[::1]:1", "caprpc://ledger.example:65535", "unix:/run/ledger.sock"]
)
def test_a_sturdy_reference_is_read_as_it_is_written(where):
    uri = SturdyUri(Address.parse(where), "account", SECRET)
    assert uri.reveal() == f"{where}/account#{SECRET}"
    assert SturdyUri.parse(uri.reveal()) == uri
    assert address_of(uri.reveal()) == address_of(where) == Address.parse(where)


def test_neither_str_nor_repr_show_the_secret():
    uri = SturdyUri.parse(f"caprpc://127.0.0.1:1/account#{SECRET}")
    assert str(uri) == "caprpc://127.0.0.1:1/account#(secret)"
    assert SECRET not in repr(uri)


@pytest.mark.parametrize(
    "text",
    [
        "caprpc://127.0.0.1:1#SECRET",
        "caprpc://127.0.0.1:1/#SECRET",
        "caprpc://127.0.0.1:1/_x#SECRET",
        "caprpc://127.0.0.1:1/a/b#SECRET",
        "caprpc://127.0.0.1:x/account#SECRET",
        "caprpc://127.0.0.1:1/account?#SECRET",
        "caprpc://127.0.0.1:1/account#SECRETa",
        "#SECRET",
        "caprpc://127.0.0.1:1/account#xSECRET",
    ],
)
def test_what_is_mistyped_is_refused_without_showing_the_secret(text):
    text = text.replace("SECRET", SECRET)
    for parse in (SturdyUri.parse, address_of, Address.parse):
        with pytest.raises(ConfigurationError) as refused:
            parse(text)
        assert SECRET not in str(refused.value)
