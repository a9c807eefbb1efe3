"""Secrets are compared by ``compare_digest``, by verifying a signature, or by looking their digest up. CAP-SI-04.

``==`` ends at the first byte that differs: how long it takes tells how much of a guess was right. What compares
something named like a secret is absent, or listed here with the reason.
"""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

import pytest

WORDS = {
    *("secret", "secrets", "token", "tokens", "password", "passphrase", "mac", "hmac", "seed", "cookie", "otp"),
    *("digest", "digests", "hexdigest", "signature", "signatures", "cosignature", "checksum"),
}
BY_CONTENT = {"startswith", "endswith", "removeprefix", "removesuffix", "fullmatch", "match"}
"""Methods that compare, and end early."""

_FILES = "both are of files that the operator has; nobody sends either"
_RECORD = "both are of a log that lies open before whoever verifies it"
ALLOWED = {
    (
        "caprpc/audit/chain.py",
        "record.fields.get('digest') != digest_of(fd, self.good, raw.offset).hexdigest()",
    ): _RECORD,
    ("caprpc/audit/sealed.py", "sha256(key.public).hexdigest() == record.text('digest')"): _RECORD,
    ("caprpc/bundles.py", "policies.digest != digest"): _FILES,
    ("caprpc/bundles.py", "lines.get(name) != digest"): _FILES,
    (
        "caprpc/cli/audit_proofs.py",
        "digest_with(opening, pack(candidate)) == digest",
    ): "an auditor's own tool, who has the key and the digest",
    ("caprpc/cli/audit_proofs.py", "digest.startswith(DIGEST_MARK)"): "the mark is the same for every digest",
    ("caprpc/analysis/events.py", "policy.digest == event.policy"): _FILES,
    ("caprpc/cli/policy_ask.py", "policy.digest == event.policy"): _FILES,
    ("caprpc/objects/admission.py", "policy.digest != guard.policy.digest"): _FILES,
    ("caprpc/policy/directory.py", "loaded.digest != previous.digest"): _FILES,
    ("caprpc/policy/directory.py", "'sha256:' + sha256(content).hexdigest() != digest"): _FILES,
    ("caprpc/policy/directory.py", "file in self._digests"): "looks up the name of a file",
    ("caprpc/policy/directory.py", "file not in self._digests"): "looks up the name of a file",
    ("caprpc/policy/shared.py", "name in self._digests"): "looks up the name of a file",
    ("caprpc/policy/offers.py", "name in secret"): "the names of parameters that are declared sensitive",
    (
        "caprpc/tls/profile.py",
        "certificate.signature_algorithm_oid != SignatureAlgorithmOID.ED25519",
    ): "the name of an algorithm, in a certificate that everybody may see",
    ("caprpc/tls/credentials.py", "_read_files(self.directory).digest != self.files.digest"): _FILES,
}
"""(file, expression) -> why nobody learns a secret from how long it takes."""


def words_of(node: ast.AST) -> Iterator[str]:
    """Yield the words by which a value is called: of a name, an attribute, a function that makes it, or a key."""
    if isinstance(node, ast.Name | ast.Attribute):
        name = node.id if isinstance(node, ast.Name) else node.attr
        if not name.isupper():
            # A constant of a module is no secret: it stands in the source.
            yield from re.split(r"_+", name.lower())
    elif isinstance(node, ast.Call):
        yield from words_of(node.func)
        if isinstance(node.func, ast.Attribute) and node.func.attr in {"encode", "decode", "hex", "lower", "strip"}:
            yield from words_of(node.func.value)
        for argument in node.args[:1]:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield from re.split(r"\W+|_+", argument.value.lower())
    elif isinstance(node, ast.Subscript):
        yield from words_of(node.value)
        if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
            yield from re.split(r"_+", node.slice.value.lower())
    elif isinstance(
        node, ast.BinOp | ast.JoinedStr | ast.FormattedValue | ast.Tuple | ast.List | ast.Set | ast.Starred
    ):
        for child in ast.iter_child_nodes(node):
            yield from words_of(child)
    elif isinstance(node, ast.NamedExpr | ast.IfExp | ast.Await):
        for child in ast.iter_child_nodes(node):
            yield from words_of(child)


def is_secret(node: ast.AST) -> bool:
    return not WORDS.isdisjoint(words_of(node))


def tells_little(node: ast.AST) -> bool:
    """Whether what is compared with is a constant of at most a character: nothing, a flag, a number."""
    return isinstance(node, ast.Constant) and (not isinstance(node.value, str | bytes) or len(node.value) <= 1)


def comparisons(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every comparison of something that is called like a secret and may end early."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            for (left, right), how in zip(pairwise(operands), node.ops, strict=True):
                if isinstance(how, ast.Eq | ast.NotEq | ast.In | ast.NotIn):
                    little = tells_little(left) or tells_little(right)
                    if not little and (is_secret(left) or is_secret(right)):
                        yield node
                        break
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = node.func.attr
            if name in {"__eq__", "__ne__"} or (
                name in BY_CONTENT
                and node.args
                and not tells_little(node.args[0])
                and (is_secret(node.args[0]) or is_secret(node.func.value))
            ):
                yield node
        elif isinstance(node, ast.Match) and is_secret(node.subject):
            yield node.subject


def found_in(package):
    return {(module.path, ast.unparse(node)): node.lineno for module in package for node in comparisons(module.tree)}


def test_nothing_that_is_called_like_a_secret_is_compared_byte_by_byte(package):
    bare = [f"{path}:{line} {text}" for (path, text), line in found_in(package).items() if (path, text) not in ALLOWED]
    assert not bare, "\n".join(bare)


def test_every_allowed_comparison_is_still_there(package):
    assert set(ALLOWED) - set(found_in(package)) == set()


@pytest.mark.parametrize(
    "source",
    [
        "secret == guess",
        "guess != self._secret",
        "token in known",
        "given == expected_mac",
        "sha256(text).hexdigest() == stored",
        "hmac.new(key, text).digest() == given",
        "'sha256:' + hexdigest == row['seal']",
        "row['digest'] == given",
        "fields.get('digest') != given",
        "(name, secret) == (other, guess)",
        "f'{prefix}{secret}' == text",
        "secret.encode() == data",
        "stored.startswith(token)",
        "secret.startswith(guess)",
        "secret.__eq__(guess)",
        "a < b == the_token",
        "match = [one for one in grants if one.digest == digest]",
        "match secret:\n    case 'x1': pass",
        "(token := read()) == guess",
        "user_password == given",
    ],
)
def test_the_test_sees_the_comparison(source):
    assert list(comparisons(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "compare_digest(secret, guess)",
        "key.verify(signature, message)",
        "secret is None",
        "signature == ''",
        "len(secret) != 32",
        "tokens < 1.0",
        "signature.name == name",
        "store.find(digest_of(secret))",
    ],
)
def test_what_tells_nothing_passes(source):
    assert not list(comparisons(ast.parse(source)))
