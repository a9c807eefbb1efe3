"""What a server's roots must be is checked before anything listens."""

import re
from functools import partial

import pytest

from caprpc.errors import ConfigurationError
from caprpc.interface import Interface, method
from caprpc.objects.roots import check_roots, class_of_root, contracts_of_roots


class Clock(Interface):
    @method(effect="read")
    def now(self) -> int: ...

    @method(effect="read")
    def zone(self) -> str: ...


class HalfAClock(Clock):
    def now(self) -> int:
        return 0


class WholeClock(HalfAClock):
    def zone(self) -> str:
        return "UTC"


@pytest.mark.parametrize("root", [HalfAClock(), HalfAClock])
def test_a_root_that_lacks_a_member_is_refused_by_name(root):
    with pytest.raises(ConfigurationError, match=r"root 'clock': HalfAClock does not implement zone of Clock"):
        check_roots({"clock": root})


class ClockOf(WholeClock):
    def __init__(self, peer) -> None:
        self.peer = peer


async def awaited(peer):
    return WholeClock()


def needs_two(peer, zone):
    return WholeClock()


@pytest.mark.parametrize("root", [WholeClock(), ClockOf, lambda peer: WholeClock(), partial(needs_two, zone="UTC")])
def test_objects_classes_and_factories_are_roots(root):
    assert check_roots({"clock": root}) == {"clock": root}


@pytest.mark.parametrize(
    ("root", "says"),
    [
        (WholeClock, r"root 'clock': WholeClock\(\) is called with the peer.*give an object, WholeClock\(\),"),
        (needs_two, r"needs_two\(peer, zone\) .*missing a required argument: 'zone'.*give the object that it makes"),
        (lambda: WholeClock(), r"<lambda>\(\) is called with the peer.*or have it take the peer"),
        (awaited, r"its factory is async def"),
    ],
    ids=["class", "two parameters", "no parameter", "async"],
)
def test_a_factory_that_cannot_be_called_with_the_peer_is_refused(root, says):
    with pytest.raises(ConfigurationError) as caught:
        check_roots({"clock": root})
    assert re.search(says, str(caught.value), re.DOTALL)


@pytest.mark.parametrize("root", [3, "clock", None, object()])
def test_a_root_that_is_neither_object_nor_factory_is_refused(root):
    with pytest.raises(ConfigurationError, match="an object whose class implements an Interface"):
        check_roots({"clock": root})


@pytest.mark.parametrize("name", ["_clock", "clock face", "", "cl\u00f6ck", "1clock"])
def test_a_root_name_is_an_identifier(name):
    with pytest.raises(ConfigurationError, match="root name"):
        check_roots({name: WholeClock()})


def test_a_server_without_roots_is_refused():
    with pytest.raises(ConfigurationError, match="without roots"):
        check_roots({})


@pytest.mark.parametrize("roots", [WholeClock(), WholeClock, [WholeClock()]])
def test_roots_that_have_no_names_are_refused(roots):
    with pytest.raises(ConfigurationError, match=r"a mapping of names to objects, not (WholeClock|type|list)"):
        check_roots(roots)


def annotated(peer, zone="UTC") -> WholeClock:
    return WholeClock()


def annotated_with_a_text(peer) -> "WholeClock":
    return WholeClock()


class Maker:
    def __call__(self, peer) -> WholeClock:
        return WholeClock()


class Called(Interface):
    @method(effect="read")
    def __call__(self) -> Clock: ...


class CalledOfOurs(Called):
    def __call__(self) -> WholeClock:
        return WholeClock()


def annotated_with_what_is_not_there(peer) -> "BrokenClock":  # noqa: F821
    return WholeClock()


@pytest.mark.parametrize(
    "factory",
    [WholeClock, annotated, partial(annotated, zone="CET"), partial(WholeClock), annotated_with_a_text, Maker()],
)
def test_a_factory_that_says_what_it_makes_shows_its_contract(factory):
    assert "Clock" in contracts_of_roots({"clock": factory})


@pytest.mark.parametrize("factory", [lambda peer: WholeClock(), annotated_with_what_is_not_there, len])
def test_a_factory_that_says_nothing_shows_no_contract(factory):
    assert "Clock" not in contracts_of_roots({"clock": factory})


def test_an_object_that_can_be_called_is_no_factory_of_what_it_returns():
    assert class_of_root(CalledOfOurs()) is CalledOfOurs
