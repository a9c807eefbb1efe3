"""Contracts: the reviewable text of what code declares, and everything reachable from it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal

import pytest

from caprpc.contract import MemberContract, ParameterContract
from caprpc.ids import OP_CALL, OP_CLOSE, OP_ENTER, OP_EXIT, OP_GET, OP_INVOKE, OP_NEXT, OP_SET
from caprpc.interface import Interface, attribute, contract_of, interface_closure, method
from caprpc.interfaces import TextLines


class Session(Interface):
    limit: int = attribute(writable=True)

    @method(effect="write")
    def close(self, *, hard: bool = False) -> None: ...


class Desk(Interface):
    """Where sessions are opened.

    Ask politely.
    """

    @method(effect="read")
    def open(self, name: str, mode: Literal["r", "w"] = "r") -> Session: ...

    @method(effect="read")
    def count(self, lines: TextLines, function: Callable[[str], None], extra: dict[str, Any] | None = None) -> int: ...

    @method(effect="read")
    def sessions(self) -> Iterator[Session]: ...

    @method(effect="write")
    def locked(self) -> AbstractContextManager[Session | None]: ...


def test_contract_shows_parameters_types_and_references():
    contract = contract_of(Desk)
    assert contract.name == "Desk"
    assert contract.doc == "Where sessions are opened.\n\nAsk politely."
    assert contract.members[OP_CALL, "count"] == MemberContract(
        operation=OP_CALL,
        name="count",
        parameters=(
            ParameterContract("lines", "TextLines", "TextLines", required=True),
            ParameterContract("function", "Callable[[str], None]", "Callable", required=True),
            ParameterContract("extra", "dict[str, Any] | None", None, required=False),
        ),
        returns="int",
        returns_reference=None,
        effect="read",
    )
    opened = contract.members[OP_CALL, "open"]
    assert (opened.returns, opened.returns_reference) == ("Session", "Session")
    assert opened.parameters[1].type == "Literal['r', 'w']"
    assert contract.members[OP_CALL, "sessions"].returns_reference == "Iterator"
    locked = contract.members[OP_CALL, "locked"]
    assert (locked.returns, locked.returns_reference) == ("ContextManager[Session | None]", "ContextManager")


def test_attributes_are_read_and_written_by_separate_members():
    members = contract_of(Session).members
    assert (members[OP_GET, "limit"].effect, members[OP_GET, "limit"].returns) == ("read", "int")
    assert members[OP_SET, "limit"].effect == "write"
    assert members[OP_SET, "limit"].parameters == (ParameterContract("value", "int", None, required=True),)


def test_closure_reaches_everything_and_the_built_in_kinds():
    closure = interface_closure([Desk])
    assert list(closure) == ["Callable", "ContextManager", "Desk", "Iterator", "Session", "TextLines"]
    assert set(closure["Callable"].members) == {(OP_INVOKE, "")}
    assert set(closure["Iterator"].members) == {(OP_NEXT, ""), (OP_CLOSE, "")}
    assert set(closure["ContextManager"].members) == {(OP_ENTER, ""), (OP_EXIT, "")}


def test_closure_of_nothing_has_the_built_in_kinds():
    assert list(interface_closure([])) == ["Callable", "ContextManager", "Iterator"]


def test_closure_of_interfaces_that_name_each_other_ends():
    assert "Ping" in interface_closure([Pong])


class Ping(Interface):
    @method(effect="read")
    def other(self) -> "Pong": ...


class Pong(Interface):
    @method(effect="read")
    def other(self) -> "Ping | None": ...


def test_two_interfaces_of_one_name_are_refused():
    twin = type("Session", (Interface,), {"__annotations__": {}})
    with pytest.raises(TypeError, match="two interfaces are named Session"):
        interface_closure([Session, twin])


def test_contract_is_the_same_each_time():
    assert contract_of(Desk) == contract_of(Desk)
    with pytest.raises(TypeError):
        contract_of(Desk).members[OP_CALL, "more"] = None


@pytest.mark.parametrize("wrong", [int, Desk.__mro__[1], None, "Desk", type("Impl", (Session,), {})])
def test_only_interfaces_have_contracts(wrong):
    with pytest.raises(TypeError, match="is not an interface"):
        contract_of(wrong)


def test_effect_admin_and_sensitive_parameters_stand_in_the_contract():
    class Vault(Interface):
        @method(effect="admin", sensitive=("password",))
        def open(self, name: str, password: str) -> bool: ...

    member = contract_of(Vault).members[OP_CALL, "open"]
    assert member.effect == "admin"
    assert [(parameter.name, parameter.sensitive) for parameter in member.parameters] == [
        ("name", False),
        ("password", True),
    ]


@pytest.mark.parametrize("sensitive", ["password", ["password"], (1,)])
def test_sensitive_is_a_tuple_of_names(sensitive):
    with pytest.raises(TypeError, match="sensitive"):
        method(effect="read", sensitive=sensitive)


def test_sensitive_names_a_parameter():
    with pytest.raises(TypeError, match="sensitive names passwrd, which is no parameter of it"):

        class Vault(Interface):
            @method(effect="read", sensitive=("passwrd",))
            def open(self, password: str) -> bool: ...
