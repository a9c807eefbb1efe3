"""A reference that a method keeps belongs to the kind of method it was given to; another kind is told what to write."""

from collections.abc import Callable

import pytest

import caprpc
from caprpc import Interface, method
from caprpc.testing import aio_connected, connected


class Bell(Interface):
    @method(effect="write")
    def keep(self, callback: Callable[[str], None]) -> None: ...

    @method(effect="write", blocking=True)
    def ring(self, text: str) -> str: ...

    @method(effect="write", blocking=True)
    def ring_by_submit(self, text: str) -> str: ...


class BellOfOurs(Bell):
    callback = None

    async def keep(self, callback):
        self.callback = callback

    def ring(self, text):
        try:
            self.callback(text)
        except RuntimeError as exc:
            return str(exc)
        return "rang"

    def ring_by_submit(self, text):
        caprpc.submit(self.callback, text).result()
        return "rang"


POLICY = """
[roots]
bell = "Bell"
[offer.Bell]
interface = "Bell"
call = ["keep", "ring", "ring_by_submit"]
[accept.Callable]
invoke = true
"""
LENT = """
[accept.Bell]
call = ["keep", "ring", "ring_by_submit"]
[offer.Ears]
interface = "Callable"
invoke = true
[[lend]]
to = "Bell.keep"
param = "callback"
as = "Ears"
lifetime = "connection"
"""
NO_LOOP = "this thread has no event loop on which the call could be awaited: write caprpc.submit("


@pytest.fixture
def sides(caprpc_deployment):
    head = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{}"]\n'
    return (
        caprpc_deployment.side("server", {"client": head.format("client") + POLICY}, [Bell]),
        caprpc_deployment.side("client", {"server": head.format("server") + LENT}, [Bell]),
    )


def test_a_thread_uses_what_a_coroutine_was_given(sides):
    heard = []
    with connected({"bell": BellOfOurs()}, *sides) as peer:
        bell = peer.root("bell", Bell)
        bell.keep(heard.append)
        # Nothing was sent: the text says that the call could not be awaited, not that it may have run.
        assert bell.ring("one").startswith(NO_LOOP)
        assert heard == []
        assert bell.ring_by_submit("two") == "rang"
    assert heard == ["two"]


async def test_a_thread_uses_what_a_coroutine_was_given_on_a_loop(sides):
    heard = []
    async with aio_connected({"bell": BellOfOurs()}, *sides) as peer:
        bell = await peer.root("bell", Bell)
        await bell.keep(heard.append)
        assert (await bell.ring("one")).startswith(NO_LOOP)
        assert heard == []
        assert await bell.ring_by_submit("two") == "rang"
    assert heard == ["two"]


@pytest.mark.parametrize("wrong", [None, 3, "bell"])
def test_an_argument_that_stands_for_nothing_is_no_matter_of_policy(sides, wrong):
    """Where the policy lends nothing: to widen it would not help."""
    head, (server, client) = '[[lend]]\nto = "Bell.keep"', sides
    file = client.policies / "server.toml"
    file.write_text(file.read_text(encoding="utf-8").partition(head)[0], encoding="utf-8")
    with connected({"bell": BellOfOurs()}, server, client) as peer:
        bell = peer.root("bell", Bell)
        with pytest.raises(TypeError, match="callback"):
            bell.keep(wrong)
        for right in (print, caprpc.attenuate(print, uses=1)):
            with pytest.raises(caprpc.CallRefused, match=r"lends nothing to Bell\.keep \(callback\)"):
                bell.keep(right)
