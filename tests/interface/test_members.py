"""A member is found once, in the class, by its declared name; nothing else of an object is reachable."""

import functools
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from caprpc.ids import OP_CALL, OP_CONTAINS, OP_ENTER, OP_EXIT, OP_GET, OP_ITERATE, OP_LENGTH, OP_SET
from caprpc.interface import Interface, Mismatch, attribute, method, shape_of
from caprpc.interface.contexts import PeerBlockFailed


class Vault(Interface):
    owner: str = attribute()
    limit: int = attribute(writable=True)

    @method(effect="read")
    def peek(self, index: int) -> int: ...


class Box(Interface):
    @method(effect="read")
    def __len__(self) -> int: ...

    @method(effect="read")
    def __contains__(self, item: int) -> bool: ...

    @method(effect="read")
    def __iter__(self) -> Iterator[int]: ...

    @method(effect="write")
    def __enter__(self) -> int: ...

    @method(effect="write")
    def __exit__(self, *exception: object) -> None: ...


class MyVault(Vault):
    def __init__(self):
        self.owner = "me"
        self.limit = 3

    def peek(self, index):
        return index

    def admin(self):
        return "secret"


PEEK = shape_of(Vault).members[OP_CALL, "peek"]


def test_call_reaches_the_implementation():
    assert PEEK.resolve(MyVault())(7) == 7
    assert not PEEK.is_async(MyVault())


def test_instance_state_never_shadows_a_method():
    vault = MyVault()
    vault.peek = lambda index: "shadow"
    assert PEEK.resolve(vault)(7) == 7


def test_dynamic_attribute_hooks_are_never_asked():
    class Hooked(MyVault):
        def __getattribute__(self, name):
            raise AssertionError(f"{name} was asked")

        def __getattr__(self, name):
            raise AssertionError(f"{name} was asked")

    vault = Hooked.__new__(Hooked)
    assert PEEK.resolve(vault)(7) == 7
    object.__setattr__(vault, "owner", "me")
    assert shape_of(Vault).members[OP_GET, "owner"].resolve(vault)() == "me"


def test_descriptor_that_changes_between_reads_is_no_implementation():
    class Fickle:
        reads = 0

        def __get__(self, instance, owner=None):
            Fickle.reads += 1
            return (lambda index: index) if Fickle.reads == 1 else print

    class Switching(Vault):
        peek = Fickle()

    with pytest.raises(TypeError, match=r"Switching\.peek is a Fickle; a member is implemented by a function"):
        PEEK.resolve(Switching())
    assert Fickle.reads == 0


@pytest.mark.parametrize(
    "wrong", [property(lambda self: 1), print, 3, classmethod(lambda cls, i: i), functools.partial(int), int]
)
def test_only_a_function_implements_a_member(wrong):
    odd = type("Odd", (Vault,), {"peek": wrong})
    with pytest.raises(TypeError, match="implemented by a function"):
        PEEK.resolve(odd())


def test_static_function_may_implement_a_member():
    class Static(Vault):
        @staticmethod
        def peek(index):
            return index + 1

    assert PEEK.resolve(Static())(1) == 2


def test_missing_implementation_is_named_before_anything_is_exported():
    class Unfinished(Vault):
        pass

    with pytest.raises(TypeError, match="Unfinished does not implement peek of Vault"):
        shape_of(Vault).adapt(Unfinished())


def test_implementation_in_a_later_base_is_not_found_by_surprise():
    class Mixin:
        def peek(self, index):
            return index

    class Late(Vault, Mixin):
        pass

    class Early(Mixin, Vault):
        pass

    with pytest.raises(TypeError, match="must stand before Vault"):
        PEEK.resolve(Late())
    assert PEEK.resolve(Early())(1) == 1


def test_object_of_another_class_is_refused_even_with_the_same_methods():
    class Twin:
        def peek(self, index):
            return index

    class Liar(Twin):
        @property
        def __class__(self):
            return MyVault

    for impostor in (Twin(), Liar()):
        with pytest.raises(TypeError, match="does not inherit from Vault"):
            PEEK.resolve(impostor)
        with pytest.raises(Mismatch, match="must inherit from Vault"):
            shape_of(Vault).adapt(impostor)


@pytest.mark.parametrize("wrong", [MyVault, Vault, threading, None, 1, "peek", MyVault().peek])
def test_class_module_or_value_never_stands_for_an_interface(wrong):
    with pytest.raises(Mismatch, match="expected Vault"):
        shape_of(Vault).adapt(wrong)


def test_runtime_class_adds_nothing_to_the_declared_shape():
    class Wider(Vault, Interface):
        @method(effect="write")
        def drain(self) -> None: ...

    class Both(Wider):
        def peek(self, index):
            return index

        def drain(self):
            pass

    shape = shape_of(Vault)
    assert type(shape.adapt(Both())) is Both
    assert (OP_CALL, "drain") not in shape.members


def test_override_cannot_widen_the_signature():
    class Wide(Vault):
        def peek(self, index, *extra, admin=False, **kwargs):
            return (index, extra, admin, kwargs)

    from caprpc.interface import ArgumentError, NoReferences

    for raw in ([[1, True], {}], [[1], {"admin": True}], [[1], {"x": 1}]):
        with pytest.raises(ArgumentError):
            PEEK.signature.decode_args(raw, NoReferences())
    assert PEEK.resolve(Wide())(*PEEK.signature.decode_args([[1], {}], NoReferences())[0]) == (1, (), False, {})


def test_async_implementation_is_recognised():
    class Slow(Vault):
        async def peek(self, index):
            return index

    assert PEEK.is_async(Slow())
    coroutine = PEEK.resolve(Slow())(1)
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    assert stop.value.value == 1


def test_attribute_is_read_and_set_on_the_object():
    vault = MyVault()
    members = shape_of(Vault).members
    assert members[OP_GET, "owner"].resolve(vault)() == "me"
    members[OP_SET, "limit"].resolve(vault)(9)
    assert vault.limit == 9
    assert (OP_SET, "owner") not in members


def test_property_may_implement_an_attribute():
    class Computed(MyVault):
        @property
        def owner(self):
            return "computed"

        @owner.setter
        def owner(self, value):
            pass

    assert shape_of(Vault).members[OP_GET, "owner"].resolve(Computed())() == "computed"


def test_attribute_that_was_never_set_is_missing():
    class Bare(Vault):
        pass

    with pytest.raises(AttributeError, match="owner is declared by the interface and is not set"):
        shape_of(Vault).members[OP_GET, "owner"].resolve(Bare())()


class MyBox(Box):
    def __init__(self):
        self.left_with = []

    def __len__(self):
        return 2

    def __contains__(self, item):
        return item == 1

    def __iter__(self):
        return iter([1, 2])

    def __enter__(self):
        return 5

    def __exit__(self, kind, error, traceback):
        self.left_with.append((kind, type(error), traceback))
        return True


def test_special_methods_are_operations():
    members = shape_of(Box).members
    box = MyBox()
    assert members[OP_LENGTH, ""].resolve(box)() == 2
    assert members[OP_CONTAINS, ""].resolve(box)(1) is True
    assert list(members[OP_ITERATE, ""].resolve(box)()) == [1, 2]
    assert members[OP_ENTER, ""].resolve(box)() == 5


def test_leaving_a_context_brings_no_exception_that_is_not_declared():
    leave = shape_of(Box).members[OP_EXIT, ""]
    box = MyBox()
    assert leave.resolve(box)(False) is True
    assert leave.resolve(box)(True) is True
    assert leave.resolve(box)(True, "KeyboardInterrupt", "of the peer") is True
    failed = (PeerBlockFailed, PeerBlockFailed, None)
    assert box.left_with == [(None, type(None), None), failed, failed]
    assert [p.form.text for p in leave.signature.parameters] == ["bool", "str", "str"]


def test_async_special_methods_implement_the_same_operations():
    class AsyncBox(MyBox):
        async def __aenter__(self):
            return 6

        async def __aexit__(self, kind, error, traceback):
            self.left_with.append(kind)

    class AsyncOnly(Box):
        async def __aenter__(self):
            return 6

        async def __aexit__(self, kind, error, traceback):
            return None

        async def __aiter__(self) -> AsyncIterator[int]:
            yield 1

    members = shape_of(Box).members
    assert not members[OP_ENTER, ""].is_async(AsyncBox())
    assert members[OP_ENTER, ""].is_async(AsyncOnly())
    leaving = members[OP_EXIT, ""].resolve(AsyncOnly())(False)
    with pytest.raises(StopIteration):
        leaving.send(None)


def test_remembered_classes_are_bounded():
    for i in range(300):
        PEEK.resolve(type(f"Vault{i}", (MyVault,), {})())
    assert len(PEEK._cache) <= 64


@pytest.mark.parametrize(
    "name", ["__init__", "__class__", "__dict__", "__reduce_ex__", "admin", "_hidden", "peek ", "PEEK", "owner"]
)
def test_undeclared_name_is_no_member(name):
    assert (OP_CALL, name) not in shape_of(Vault).members


def test_bind_is_resolve_and_is_async_at_once():
    class Slow(Vault):
        async def peek(self, index):
            return index

    function, is_async = PEEK.bind(MyVault())
    assert (function(7), is_async) == (7, False)
    assert PEEK.bind(Slow())[1]
    with pytest.raises(TypeError, match="does not inherit from Vault"):
        PEEK.bind(object())
