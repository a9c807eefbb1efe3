"""The digest of the policy in WELCOME: announced by acceptors, read by dialers, never agreed on."""

import pytest

from caprpc.errors import RemoteProtocolError
from caprpc.limits import DEFAULT_LIMITS
from caprpc.session.opening import FEATURES, Opening

DIGEST = "sha256:" + "d" * 64


def opening(*, acceptor, policy=""):
    return Opening(acceptor=acceptor, our_leaf_key="a", peer_leaf_key="b", policy=policy)


def welcome(*features):
    message = opening(acceptor=True).greeting(DEFAULT_LIMITS)
    message.features = [*FEATURES, *features]
    return message


def test_dialer_learns_the_digest_and_does_not_repeat_it():
    dialer = opening(acceptor=False, policy=DIGEST)
    dialer.receive(opening(acceptor=True, policy=DIGEST).greeting(DEFAULT_LIMITS))
    assert dialer.peer_policy == DIGEST
    assert dialer.greeting(DEFAULT_LIMITS).features == sorted(FEATURES)


@pytest.mark.parametrize("feature", ["policy:", "policy:sha256:dd", f"policy:{DIGEST.upper()}", f"policies:{DIGEST}"])
def test_feature_that_only_looks_like_it_is_ignored(feature):
    dialer = opening(acceptor=False)
    dialer.receive(welcome(feature))
    assert dialer.peer_policy == ""


def test_two_policies_are_an_error():
    with pytest.raises(RemoteProtocolError, match="two policies"):
        opening(acceptor=False).receive(welcome(f"policy:{DIGEST}", f"policy:{DIGEST[:-1]}e"))


def test_dialer_that_sends_it_is_refused():
    acceptor = opening(acceptor=True, policy=DIGEST)
    hello = opening(acceptor=False).greeting(DEFAULT_LIMITS)
    hello.features = [f"policy:{DIGEST}"]
    with pytest.raises(RemoteProtocolError, match="not offered"):
        acceptor.receive(hello)
