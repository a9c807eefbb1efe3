"""Forms: an annotation compiled once into a pair of functions, Python value to raw tree and back.

Both directions check exact types: ``bool`` is no ``int`` and subclasses do not pass. Containers are copied
before they are checked, so that nobody can change them in between. Nothing here calls code of a value.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import MappingProxyType, NoneType
from typing import TYPE_CHECKING, Any, Final

from caprpc.interface.mismatch import Mismatch, type_name
from caprpc.interface.references import ReferenceReader, ReferenceWriter
from caprpc.wire.values import RemoteReference

if TYPE_CHECKING:
    from caprpc.interface.shape import Shape

PLAIN_TYPES: Final[frozenset[type]] = frozenset({NoneType, bool, int, float, str, bytes, list, dict})
"""What MessagePack knows."""

_IMPORTED: Final = frozenset({RemoteReference})

ArrayType = type[tuple[Any, ...]] | type[set[Any]] | type[frozenset[Any]]
Encode = Callable[[Any, ReferenceWriter, str], Any]
Decode = Callable[[Any, ReferenceReader], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """How values of one annotation are checked and turned into raw trees and back."""

    text: str
    """The annotation, for messages and contracts."""
    encode: Encode
    """Value, writer and parameter name to raw; raises ``Mismatch``."""
    decode: Decode
    """Raw and reader to value; raises ``Mismatch``."""
    local_types: frozenset[type] | None
    """Exact types that ``encode`` takes; None for references, whose objects are of any type."""
    raw_types: frozenset[type]
    """Exact types that ``decode`` takes."""
    plain: type | None = None
    """The only type of its values, if both directions hand on the very object after checking its type."""
    atoms: frozenset[type] = frozenset()
    """Types whose objects both directions hand on after checking nothing but the type, so that a list of them
    takes one pass in C."""
    trees: frozenset[type] = frozenset()
    """Types whose values both directions hand on without a look at what is in them, if that is plain: nothing but what
    MessagePack knows, with texts as keys."""
    shapes: "tuple[Shape, ...]" = ()
    """The references that may occur in it."""
    reference: "Shape | None" = None
    """Of what its values are references, if it stands for nothing else."""


def plain_form(python_type: type, text: str) -> Form:
    """Return the form of a type that travels as it is."""

    def encode(value: Any, _refs: ReferenceWriter, _parameter: str) -> Any:
        if type(value) is not python_type:
            raise Mismatch(text, type_name(value))
        return value

    def decode(raw: Any, _refs: ReferenceReader) -> Any:
        if type(raw) is not python_type:
            raise Mismatch(text, type_name(raw))
        return raw

    only = frozenset({python_type})
    return Form(text, encode, decode, only, only, plain=python_type, atoms=only, trees=only)


def float_form() -> Form:
    """Return the form of ``float``: the sender turns an ``int`` into one, the receiver takes only ``float``."""

    def encode(value: Any, _refs: ReferenceWriter, _parameter: str) -> Any:
        if type(value) is float:
            return value
        if type(value) is int:
            try:
                return float(value)
            except OverflowError:
                raise Mismatch("float", "int", "the integer is too large for a float") from None
        raise Mismatch("float", type_name(value))

    def decode(raw: Any, _refs: ReferenceReader) -> Any:
        if type(raw) is not float:
            raise Mismatch("float", type_name(raw))
        return raw

    only = frozenset({float})
    return Form("float", encode, decode, frozenset({float, int}), only, plain=float, atoms=only, trees=only)


def literal_form(text: str, values: tuple[object, ...]) -> Form:
    """Return the form of ``Literal[...]`` over plain values."""
    types = frozenset(type(value) for value in values)
    allowed = frozenset((type(value), value) for value in values)

    def check(value: Any) -> Any:
        # The type is checked first, so that only plain values are hashed and compared.
        if type(value) not in types or (type(value), value) not in allowed:
            raise Mismatch(text, type_name(value) if type(value) not in types else "another value")
        return value

    return Form(text, lambda value, _refs, _parameter: check(value), lambda raw, _refs: check(raw), types, types)


def list_form(item: Form) -> Form:
    """Return the form of ``list[T]``."""
    text = f"list[{item.text}]"
    encode_items, decode_items = _items(item)

    def encode(value: Any, refs: ReferenceWriter, parameter: str) -> Any:
        if type(value) is not list:
            raise Mismatch(text, type_name(value))
        return encode_items(value.copy(), refs, parameter)

    def decode(raw: Any, refs: ReferenceReader) -> Any:
        if type(raw) is not list:
            raise Mismatch(text, type_name(raw))
        return decode_items(raw, refs)

    only = frozenset({list})
    trees = only if _is_open(item) else frozenset[type]()
    return Form(text, encode, decode, only, only, trees=trees, shapes=item.shapes)


def sequence_form(item: Form) -> Form:
    """Return the form of ``Sequence[T]``: a list or tuple is sent, a tuple arrives."""
    text = f"Sequence[{item.text}]"
    encode_items, decode_items = _items(item)

    def encode(value: Any, refs: ReferenceWriter, parameter: str) -> Any:
        if type(value) is not list and type(value) is not tuple:
            raise Mismatch(text, type_name(value))
        return encode_items(list(value), refs, parameter)

    def decode(raw: Any, refs: ReferenceReader) -> Any:
        if type(raw) is not list:
            raise Mismatch(text, type_name(raw))
        return tuple(decode_items(raw, refs))

    return Form(text, encode, decode, frozenset({list, tuple}), frozenset({list}), shapes=item.shapes)


def tuple_form(items: tuple[Form, ...]) -> Form:
    """Return the form of ``tuple[A, B]``: exactly these, in this order."""
    text = "tuple[" + (", ".join(item.text for item in items) or "()") + "]"

    def encode(value: Any, refs: ReferenceWriter, parameter: str) -> Any:
        if type(value) is not tuple:
            raise Mismatch(text, type_name(value))
        if len(value) != len(items):
            raise Mismatch(text, f"tuple of {len(value)}")
        return tuple(item.encode(part, refs, parameter) for item, part in zip(items, value, strict=True))

    def decode(raw: Any, refs: ReferenceReader) -> Any:
        if type(raw) is not tuple or len(raw) != len(items):
            raise Mismatch(text, type_name(raw))
        return tuple(item.decode(part, refs) for item, part in zip(items, raw, strict=True))

    only = frozenset({tuple})
    return Form(text, encode, decode, only, only, shapes=_shapes(items))


def array_form(item: Form, python_type: ArrayType, name: str) -> Form:
    """Return the form of ``tuple[T, ...]``, ``set[T]`` or ``frozenset[T]``."""
    text = f"tuple[{item.text}, ...]" if python_type is tuple else f"{name}[{item.text}]"
    encode_items, decode_items = _items(item)

    def encode(value: Any, refs: ReferenceWriter, parameter: str) -> Any:
        if type(value) is not python_type:
            raise Mismatch(text, type_name(value))
        return python_type(encode_items(list(value), refs, parameter))

    def decode(raw: Any, refs: ReferenceReader) -> Any:
        if type(raw) is not python_type:
            raise Mismatch(text, type_name(raw))
        return python_type(decode_items(list(raw), refs))

    only = frozenset({python_type})
    return Form(text, encode, decode, only, only, shapes=item.shapes)


def dict_form(key: Form, value: Form) -> Form:
    """Return the form of ``dict[K, V]``."""
    text = f"dict[{key.text}, {value.text}]"
    return _table_form(text, key, value, frozenset({dict}), None)


def mapping_form(key: Form, value: Form) -> Form:
    """Return the form of ``Mapping[K, V]``: a dict is sent, a read-only view arrives."""
    text = f"Mapping[{key.text}, {value.text}]"
    return _table_form(text, key, value, frozenset({dict, MappingProxyType}), MappingProxyType)


def _table_form(
    text: str, key: Form, value: Form, local_types: frozenset[type], finish: Callable[[dict[Any, Any]], object] | None
) -> Form:
    encode_keys, decode_keys = _items(key)
    encode_values, decode_values = _items(value)
    atom_keys, atom_values = key.atoms.issuperset, value.atoms.issuperset

    def encode(table: Any, refs: ReferenceWriter, parameter: str) -> Any:
        if type(table) not in local_types:
            raise Mismatch(text, type_name(table))
        if type(table) is MappingProxyType:
            table = _behind(table)
        if type(table) is not dict:
            raise Mismatch(text, type_name(table))
        snapshot = table.copy()
        if atom_keys(map(type, snapshot)) and atom_values(map(type, snapshot.values())):
            return snapshot
        keys = encode_keys(list(snapshot), refs, parameter)
        values = encode_values(list(snapshot.values()), refs, parameter)
        return dict(zip(keys, values, strict=True))

    def decode(raw: Any, refs: ReferenceReader) -> Any:
        if type(raw) is not dict:
            raise Mismatch(text, type_name(raw))
        if atom_keys(map(type, raw)) and atom_values(map(type, raw.values())):
            return raw if finish is None else finish(raw)
        values = decode_values(list(raw.values()), refs)
        keys = decode_keys(list(raw), refs)
        table = dict(zip(keys, values, strict=True))
        if len(table) != len(raw):
            raise Mismatch(text, "dict with equal keys")
        return table if finish is None else finish(table)

    only = frozenset({dict})
    trees = only if finish is None and key.plain is str and _is_open(value) else frozenset[type]()
    return Form(text, encode, decode, local_types, only, trees=trees, shapes=_shapes((key, value)))


def _behind(view: MappingProxyType[Any, Any]) -> object:
    """Return a copy of what a read-only view shows: a dict, or something that no dict form takes."""
    try:
        return view | {}
    except TypeError:
        return view


def union_form(alternatives: tuple[Form, ...]) -> Form:
    """Return the form of a union whose alternatives differ in type on both sides.

    Raises:
        TypeError: Two alternatives look alike locally or on the wire.
    """
    text = " | ".join(form.text for form in alternatives)
    by_local: dict[type, Form] = {}
    by_raw: dict[type, Form] = {}
    fallback: Form | None = None
    for form in alternatives:
        if form.local_types is None:
            if fallback is not None:
                raise TypeError(f"{text}: {fallback.text} and {form.text} are both references; declare one of them")
            fallback = form
        # An int in a union stays an int: it is turned into a float only where a float stands alone.
        exact = frozenset({float}) if form.plain is float else form.local_types or frozenset()
        _claim(text, by_local, exact, form)
        _claim(text, by_raw, form.raw_types, form)

    def encode(value: Any, refs: ReferenceWriter, parameter: str) -> Any:
        form = by_local.get(type(value), fallback)
        if form is None:
            raise Mismatch(text, type_name(value))
        return form.encode(value, refs, parameter)

    def decode(raw: Any, refs: ReferenceReader) -> Any:
        form = by_raw.get(type(raw))
        if form is None:
            raise Mismatch(text, type_name(raw))
        return form.decode(raw, refs)

    local_types = None if fallback is not None else frozenset(by_local)
    atoms = frozenset(atom for form in alternatives for atom in form.atoms)
    trees = frozenset(tree for form in alternatives for tree in form.trees)
    return Form(
        text, encode, decode, local_types, frozenset(by_raw), atoms=atoms, trees=trees, shapes=_shapes(alternatives)
    )


def _claim(text: str, owners: dict[type, Form], types: Iterable[type], form: Form) -> None:
    for claimed in types:
        other = owners.setdefault(claimed, form)
        if other is not form:
            raise TypeError(f"{text}: {other.text} and {form.text} look alike on the wire; declare one of them")


def _is_open(item: Form) -> bool:
    """Say whether every plain tree passes an item's form."""
    return item.trees >= PLAIN_TYPES


def _shapes(parts: tuple[Form, ...]) -> "tuple[Shape, ...]":
    return tuple(shape for part in parts for shape in part.shapes)


Items = Callable[[list[Any], Any, str], list[Any]]


def _items(item: Form) -> tuple[Items, Callable[[list[Any], Any], list[Any]]]:
    """Return encode and decode for a list of items that we own; one pass in C where the items are plain."""
    encode_item, decode_item = item.encode, item.decode

    def encode_each(values: list[Any], refs: ReferenceWriter, parameter: str) -> list[Any]:
        return [encode_item(value, refs, parameter) for value in values]

    def decode_each(raws: list[Any], refs: ReferenceReader) -> list[Any]:
        return [decode_item(raw, refs) for raw in raws]

    if item.reference is not None:
        return encode_each, _decode_references(item.reference, decode_each)
    if not item.atoms:
        return encode_each, decode_each
    only_atoms = item.atoms.issuperset

    def encode_atoms(values: list[Any], refs: ReferenceWriter, parameter: str) -> list[Any]:
        return values if only_atoms(map(type, values)) else encode_each(values, refs, parameter)

    def decode_atoms(raws: list[Any], refs: ReferenceReader) -> list[Any]:
        return raws if only_atoms(map(type, raws)) else decode_each(raws, refs)

    return encode_atoms, decode_atoms


def _decode_references(
    shape: "Shape", decode_each: Callable[[list[Any], Any], list[Any]]
) -> Callable[[list[Any], Any], list[Any]]:
    def decode(raws: list[Any], refs: ReferenceReader) -> list[Any]:
        if _IMPORTED.issuperset(map(type, raws)):
            return refs.read_all(raws, shape)
        return decode_each(raws, refs)

    return decode


NONE_FORM: Final = plain_form(NoneType, "None")
BOOL_FORM: Final = plain_form(bool, "bool")
INT_FORM: Final = plain_form(int, "int")
FLOAT_FORM: Final = float_form()
STR_FORM: Final = plain_form(str, "str")
BYTES_FORM: Final = plain_form(bytes, "bytes")
