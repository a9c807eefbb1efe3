"""Roots and proofs agree with the vectors of Certificate Transparency and with another implementation (pymerkle)."""

from hashlib import sha256

import pymerkle
import pytest

from caprpc.audit.merkle import (
    EMPTY_ROOT,
    Range,
    consistency_from_ranges,
    consistency_spans,
    fold,
    hashes_from_leaves,
    inclusion_spans,
    is_consistent,
    root_from_inclusion,
)

MOST = 40
CT_LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def leaf(data):
    return sha256(b"\0" + data).digest()


LEAVES = [leaf(b"%d" % number) for number in range(MOST)]


def tree(size, begin=0):
    found = Range(begin)
    for one in LEAVES[begin:size]:
        found.append(one)
    return found


@pytest.fixture(scope="module")
def oracle():
    found = pymerkle.InmemoryTree(algorithm="sha256")
    for number in range(MOST):
        found.append_entry(b"%d" % number)
    return found


def test_roots_are_those_of_the_vectors_of_certificate_transparency():
    found = Range()
    assert (
        found.root() == EMPTY_ROOT == bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    )
    for data, root in zip(CT_LEAVES, CT_ROOTS, strict=True):
        found.append(leaf(bytes.fromhex(data)))
        assert found.root().hex() == root


def test_roots_are_those_of_pymerkle(oracle):
    for size in range(MOST + 1):
        assert tree(size).root() == oracle.get_root(size)


def test_every_inclusion_path_is_that_of_pymerkle_and_verifies(oracle):
    for size in range(1, MOST + 1):
        for index in range(size):
            path = hashes_from_leaves(LEAVES, inclusion_spans(index, size))
            theirs = [bytes.fromhex(one) for one in oracle.prove_inclusion(index + 1, size).serialize()["path"]]
            assert sorted([*path, LEAVES[index]]) == sorted(theirs)
            assert root_from_inclusion(LEAVES[index], index, size, path) == tree(size).root()


def test_every_consistency_proof_verifies_and_nothing_else_does():
    for new in range(1, MOST + 1):
        for old in range(1, new + 1):
            proof = hashes_from_leaves(LEAVES, consistency_spans(old, new))
            roots = tree(old).root(), tree(new).root()
            assert is_consistent(old, new, *roots, proof)
            assert not is_consistent(old, new, roots[0], leaf(b"?"), proof)
            assert not is_consistent(old, new, leaf(b"?"), roots[1], proof)
            assert not is_consistent(old, new, *roots, [*proof, leaf(b"?")])
            if proof:
                assert not is_consistent(old, new, *roots, proof[:-1])
                assert not is_consistent(old, new, *roots, [leaf(b"?"), *proof[1:]])


def test_consistency_comes_from_what_is_kept_as_from_all_leaves():
    for new in range(1, MOST + 1):
        for old in range(1, new + 1):
            kept = consistency_from_ranges(tree(old), tree(new, begin=old))
            assert kept == hashes_from_leaves(LEAVES, consistency_spans(old, new))


def test_leaves_folded_together_are_those_appended_one_by_one():
    for begin in (0, 1, 6, 8):
        for start in range(begin, 40):
            for stop in range(start, MOST):
                found = tree(start, begin)
                widths = []
                for root, width in fold(start, LEAVES[start:stop]):
                    assert found.end % width == 0
                    found.append(root, width)
                    widths.append(width)
                expected = tree(stop, begin)
                assert (found.end, found.hashes) == (expected.end, expected.hashes)
                assert len(widths) <= 2 * stop.bit_length()


def test_what_is_kept_stays_small():
    for begin in range(200):
        found = Range(begin)
        for number in range(300):
            found.append(leaf(b"%d" % number))
            assert len(found.hashes) <= 2 * found.end.bit_length()


def test_paths_of_the_wrong_length_lead_nowhere():
    path = hashes_from_leaves(LEAVES, inclusion_spans(3, 7))
    assert root_from_inclusion(LEAVES[3], 3, 7, path[:-1]) is None
    assert root_from_inclusion(LEAVES[3], 3, 7, [*path, LEAVES[0]]) is None
    assert root_from_inclusion(LEAVES[3], 7, 7, path) is None
    assert root_from_inclusion(LEAVES[3], -1, 7, path) is None


def test_a_smaller_tree_is_no_successor():
    assert not is_consistent(5, 4, tree(5).root(), tree(4).root(), [])
    assert not is_consistent(0, 4, LEAVES[0], tree(4).root(), [])
    assert is_consistent(0, 4, EMPTY_ROOT, tree(4).root(), [])


def test_too_few_leaves_are_refused():
    with pytest.raises(ValueError, match="too few leaves"):
        hashes_from_leaves(LEAVES[:5], inclusion_spans(3, 7))
    with pytest.raises(ValueError, match="hashes for the leaves"):
        Range(0, [b""] * 3, 4)
