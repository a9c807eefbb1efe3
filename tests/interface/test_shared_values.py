"""``Any`` copies what it encodes: a small value that stands in many places must not become a large one."""

from typing import Any

import pytest

from caprpc.interface import Mismatch, NoReferences
from caprpc.interface.dynamic import ANY_FORM, MAX_ANY_ITEMS


def encode(value: Any) -> Any:
    return ANY_FORM.encode(value, NoReferences(), "value")


@pytest.mark.parametrize("nest", [lambda v: [v, v], lambda v: (v, v), lambda v: {"a": v, "b": v}])
def test_shared_value_nested_many_times_is_refused(nest):
    value: Any = [1]
    for _ in range(40):
        value = nest(value)
    with pytest.raises(Mismatch, match=str(MAX_ANY_ITEMS)):
        encode(value)


def test_value_that_stands_in_a_few_places_is_copied_for_each():
    shared = [1, 2]
    copy = encode([shared, shared])
    assert copy == [[1, 2], [1, 2]]
    assert copy[0] is not copy[1]
