"""What counts as a member, and what a mistake in a declaration says."""

import abc
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from caprpc.ids import OP_CALL, OP_CONTAINS, OP_ENTER, OP_EXIT, OP_GET, OP_INVOKE, OP_ITERATE, OP_LENGTH, OP_SET
from caprpc.interface import Interface, attribute, interface_info, method, shape_of


class Ledger(Interface):
    """Balances."""

    currency: str = attribute()
    limit: int = attribute(writable=True)

    @method(effect="read", errors=(LookupError,))
    def balance(self, account: str) -> int:
        """Return a balance."""

    @method(effect="write", blocking=True)
    def post(self, account: str, amount: int = 1) -> None: ...


class AuditedLedger(Ledger, Interface):
    @method(effect="read")
    def history(self) -> list[str]: ...


def members(interface):
    return set(shape_of(interface).members)


LEDGER = {(OP_GET, "currency"), (OP_GET, "limit"), (OP_SET, "limit"), (OP_CALL, "balance"), (OP_CALL, "post")}


def test_members_are_exactly_the_declarations():
    assert members(Ledger) == LEDGER


def test_declared_options_reach_the_member():
    shape = shape_of(Ledger).members
    post, balance = shape[OP_CALL, "post"], shape[OP_CALL, "balance"]
    assert (post.effect, post.blocking, post.errors) == ("write", True, ())
    assert (balance.effect, balance.blocking, balance.errors, balance.doc) == (
        "read",
        False,
        (LookupError,),
        "Return a balance.",
    )
    assert shape_of(Ledger).doc == "Balances."


def test_interface_inherits_members_of_its_base_interfaces_only_when_it_lists_interface():
    assert members(AuditedLedger) == LEDGER | {(OP_CALL, "history")}


def test_implementing_adds_no_member_whatever_the_class_inherits():
    class Memory(threading.Thread, Ledger):
        def balance(self, account):
            return 1

        def post(self, account, amount=1):
            pass

        def admin(self):
            pass

    assert interface_info(Memory) is None
    assert members(Ledger) == LEDGER
    with pytest.raises(TypeError, match="implementation; declare the interface"):
        shape_of(Memory)


def test_redeclaring_in_a_derived_interface_replaces_the_member():
    class Narrow(Ledger, Interface):
        @method(effect="read")
        def balance(self, account: int) -> int: ...

    member = shape_of(Narrow).members[OP_CALL, "balance"]
    assert member.signature.parameters[0].form.text == "int"
    assert shape_of(Ledger).members[OP_CALL, "balance"].signature.parameters[0].form.text == "str"


def test_special_methods_become_operations():
    class Everything(Interface):
        @method(effect="read")
        def __len__(self) -> int: ...

        @method(effect="read")
        def __contains__(self, item: str) -> bool: ...

        @method(effect="read")
        def __iter__(self) -> Iterator[str]: ...

        @method(effect="write")
        def __enter__(self) -> int: ...

        @method(effect="write")
        def __exit__(self, *exception: object) -> None: ...

        @method(effect="write")
        def __call__(self, item: str) -> None: ...

    expected = (OP_LENGTH, OP_CONTAINS, OP_ITERATE, OP_ENTER, OP_EXIT, OP_INVOKE)
    assert members(Everything) == {(operation, "") for operation in expected}


def test_annotations_as_text_may_name_what_comes_later():
    assert shape_of(Node).members[OP_CALL, "child"].signature.result.text == "Node"
    assert shape_of(Node).members[OP_GET, "label"].signature.result.text == "str"


class Node(Interface):
    label: "Label" = attribute()

    @method(effect="read")
    def child(self) -> "Node": ...


Label = str


def test_unknown_name_in_a_text_annotation_says_what_to_do():
    class Late(Interface):
        @method(effect="read")
        def get(self) -> "DoesNotExist": ...  # noqa: F821

    with pytest.raises(TypeError, match=r"Late\.get.*DoesNotExist.*TYPE_CHECKING"):
        shape_of(Late).members


def declare(**body):
    body.setdefault("__annotations__", {})
    return type("Broken", (Interface,), body)


def declared(function):
    return method(effect="read")(function)


@dataclass
class Holder:
    function: Callable[[], None]


def no_annotation(self, a) -> int: ...
def no_return(self, a: int): ...
def star(self, *a: int) -> int: ...
def stars(self, **a: int) -> int: ...
def private_parameter(self, _a: int) -> int: ...
def non_ascii_parameter(self, größe: int) -> int: ...
def no_self() -> int: ...
def mutable_default(self, a: list[int] = []) -> int: ...  # noqa: B006
def wrong_default(self, a: int = "x") -> int: ...
def wrong_default_bool(self, a: int = True) -> int: ...
def any_object(self, a: object) -> int: ...
def bare_list(self, a: list) -> int: ...
def bare_callable(self, a: Callable) -> int: ...
def open_callable(self, a: Callable[..., None]) -> int: ...
def thread(self, a: threading.Thread) -> int: ...
def ambiguous(self, a: list[int] | list[str]) -> int: ...
def any_union(self, a: Any | None) -> int: ...
def set_of_lists(self, a: set[tuple[int, ...]]) -> int: ...
def two_kinds(self, a: tuple[Callable[[], None], Iterator[int]]) -> int: ...
def in_a_record(self, a: Holder) -> int: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (no_annotation, "no annotation for a"),
        (no_return, "no return annotation"),
        (star, r"takes \*a; declare each parameter"),
        (stars, r"takes \*a; declare each parameter"),
        (private_parameter, "begins with an underscore"),
        (non_ascii_parameter, "not an ASCII identifier"),
        (no_self, "no `self`"),
        (mutable_default, "default of a can be changed"),
        (wrong_default, "expected int, got str"),
        (wrong_default_bool, "expected int, got bool"),
        (any_object, "object cannot cross; write Any"),
        (bare_list, r"list cannot cross; write list\[Any\]"),
        (bare_callable, r"Callable cannot cross; write Callable\["),
        (open_callable, "must list its parameter types"),
        (thread, "Thread cannot cross; declare a value type"),
        (ambiguous, r"list\[int\] and list\[str\] look alike"),
        (any_union, "write Any"),
        (set_of_lists, "cannot be a key or set member"),
        (two_kinds, "mixes kinds of references"),
        (in_a_record, "Holder.function is a reference; records hold values only"),
    ],
)
def test_mistake_in_a_method_is_named(function, message):
    with pytest.raises(TypeError, match=message) as caught:
        declare(**{function.__name__: declared(function)})
    assert "Broken" in str(caught.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"helper": lambda self: None}, "decorate it with @method"),
        ({"__len__": lambda self: 0}, "decorate it with @method"),
        ({"limit": 3}, "neither a @method nor an attribute"),
        ({"inner": type("Inner", (), {})}, "neither a @method nor an attribute"),
        ({"__init__": lambda self: None}, "neither a @method nor an attribute"),
        ({"limit": attribute()}, "has no annotation"),
        ({"__annotations__": {"limit": int}}, "has only an annotation"),
        ({"_limit": attribute(), "__annotations__": {"_limit": int}}, "begins with an underscore"),
        ({"other": declared(no_self)}, "second name of no_self"),
    ],
)
def test_mistake_in_an_interface_body_is_named(body, message):
    with pytest.raises(TypeError, match=message):
        declare(**body)


def test_private_and_special_methods_cannot_be_members():
    def _hidden(self) -> int: ...
    def __reduce__(self) -> int: ...
    def __getattr__(self, name: str) -> int: ...

    for function in (_hidden, __reduce__, __getattr__):
        with pytest.raises(TypeError, match="begins with an underscore"):
            declare(**{function.__name__: declared(function)})


def test_implementation_cannot_declare_members():
    with pytest.raises(TypeError, match="declared in an implementation"):

        class Extended(Ledger):
            @method(effect="read")
            def more(self) -> int: ...


def test_interface_cannot_derive_from_other_classes():
    for base in (threading.Thread, abc.ABC, dict):
        with pytest.raises(TypeError, match="its bases are interfaces"):
            type("Mixed", (base, Interface) if base is not abc.ABC else (Interface, base), {})


def test_interface_cannot_derive_from_an_implementation():
    class Memory(Ledger):
        pass

    with pytest.raises(TypeError, match="its bases are interfaces; Memory is not"):
        type("Derived", (Memory, Interface), {})


def test_two_different_inherited_declarations_must_be_decided():
    class Other(Interface):
        @method(effect="read")
        def balance(self, account: int) -> int: ...

    with pytest.raises(TypeError, match="two different declarations of balance"):
        type("Both", (Ledger, Other, Interface), {})


def test_names_of_built_in_kinds_are_taken():
    with pytest.raises(TypeError, match="built-in kind"):
        type("Callable", (Interface,), {})


def test_virtual_subclass_is_no_interface():
    class Virtual(abc.ABC):  # noqa: B024
        pass

    with pytest.raises(AttributeError):
        Interface.register(Virtual)
    assert interface_info(Virtual) is None


@pytest.mark.parametrize(
    "options",
    [
        {"effect": "delete"},
        {"effect": "read", "errors": [LookupError]},
        {"effect": "read", "errors": (KeyboardInterrupt,)},
    ],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(TypeError, match="@method"):
        method(**options)


def test_errors_with_equal_names_are_refused():
    twin = type("LookupError", (Exception,), {})
    with pytest.raises(TypeError, match="names two exceptions alike"):
        method(effect="read", errors=(LookupError, twin))


def test_only_functions_can_be_declared():
    for wrong in (property(lambda self: 1), staticmethod(lambda: 1), classmethod(lambda cls: 1), print, int):
        with pytest.raises(TypeError, match="plain function"):
            method(effect="read")(wrong)


def test_declared_body_never_runs():
    class Loud(Interface):
        @method(effect="read")
        def shout(self) -> int:
            raise AssertionError("ran")

    class Quiet(Loud):
        pass

    with pytest.raises(NotImplementedError, match="shout is declared"):
        Quiet().shout()
