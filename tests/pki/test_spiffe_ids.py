"""SPIFFE IDs are taken literally, or refused."""

import pytest

from caprpc.pki.spiffe import MAX_SPIFFE_BYTES, SpiffeId


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://acme.example/ledger",
        "spiffe://org-b.example/treasury/feed",
        "spiffe://a/b",
        "spiffe://10.0.0.1/x",
        "spiffe://acme_1.example/A.b-c_D",
        "spiffe://acme.example/...",
        "spiffe://acme.example/" + "x" * (MAX_SPIFFE_BYTES - len("spiffe://acme.example/")),
    ],
)
def test_valid_id_is_kept_byte_for_byte(text):
    parsed = SpiffeId.parse(text)
    assert parsed.text == text
    assert parsed.trust_domain == text.split("/")[2]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "acme.example/ledger",
        "SPIFFE://acme.example/ledger",
        "https://acme.example/ledger",
        "spiffe:/acme.example/ledger",
        "spiffe://",
        "spiffe:///ledger",
        "spiffe://acme.example",
        "spiffe://acme.example/",
        "spiffe://acme.example/a//b",
        "spiffe://acme.example/a/",
        "spiffe://acme.example/./a",
        "spiffe://acme.example/a/..",
        "spiffe://Acme.example/a",
        "spiffe://acme.example:443/a",
        "spiffe://user@acme.example/a",
        "spiffe://acme.example/a?b",
        "spiffe://acme.example/a#b",
        "spiffe://acme.example/a%2fb",
        "spiffe://*.example/a",
        "spiffe://acme.example/*",
        "spiffe://acme.example/a b",
        "spiffe://acme.example/a\x00",
        "spiffe://acme.example/a\n",
        "spiffe://acme.example\n/a",
        "spiffe://acme.example/\u202ea",
        "spiffe://acme.example/\u0430",
        "spiffe://acme..example/a",
        "spiffe://.acme.example/a",
        "spiffe://acme.example./a",
        "spiffe://-acme.example/a",
        "spiffe://\u0661.example/a",
        " spiffe://acme.example/a",
        "spiffe://acme.example/" + "x" * MAX_SPIFFE_BYTES,
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError):
        SpiffeId.parse(text)
