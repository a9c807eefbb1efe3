"""Attenuation: making a lesser reference of one, here for our own objects, or at the exporter of an imported one.

Wire protocol, section 6 (operations ``attenuate`` and ``revoke``).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final

from caprpc.errors import Denied, LimitExceeded, ReferenceDead, printable
from caprpc.ids import OP_ATTENUATE, OP_INVOKE, OP_REVOKE, OPERATION_NAMES
from caprpc.interface import (
    FUNCTIONS,
    ArgumentError,
    ServedContext,
    ServedIterator,
    ServedSource,
    Shape,
    interface_info,
    shape_of,
)
from caprpc.objects.dispatch import Plan
from caprpc.objects.handles import Narrowed
from caprpc.objects.revocation import end
from caprpc.objects.stubs import Stub
from caprpc.policy import (
    MOST_DERIVATIONS,
    Narrowing,
    Only,
    Right,
    keys,
    keys_of,
    may_pass_on,
    rules_of,
    spiffe_fault,
    word_of,
)
from caprpc.session import Answer, Export, Session, refusal_of
from caprpc.wire.values import OwnReference, RemoteReference

if TYPE_CHECKING:
    from caprpc.objects.transfer import Reader, ResultWriter

Key = tuple[int, str]

MOST_BYTES: Final = 4_096
"""Payload of an ``attenuate``: what it says is kept for as long as the reference. Fixed (wire protocol, section 10)."""

_DAYS_S: Final = 366 * 86_400.0
"""Longest time that may be named."""

_MOST_USES: Final = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Terms:
    """What a derived reference keeps: every part that is set takes something away."""

    only: tuple[frozenset[Key], ...] | None = None
    """For each word the operations it may stand for."""
    args: Mapping[str, Any] | None = None
    """Rules as they were written, for the wire."""
    uses: int | None = None
    for_s: float | None = None
    rate: float | None = None

    @classmethod
    def of(
        cls,
        *,
        only: Only | None = None,
        args: Mapping[str, Any] | None = None,
        uses: int | None = None,
        for_s: float | None = None,
        rate: float | None = None,
    ) -> "Terms":
        """Take what a program says.

        Raises:
            TypeError, ValueError: It is out of bounds, or not in the words of the policy language.
        """
        if args is not None:
            rules_of(args)
        if uses is not None and (type(uses) is not int or not 1 <= uses <= _MOST_USES):
            raise ValueError(f"uses={uses!r}: a number of at least 1 expected")
        for name, value in (("for_s", for_s), ("rate", rate)):
            if value is not None and not _positive(value):
                raise ValueError(f"{name}={value!r}: a finite number above 0 expected")
        return cls(None if only is None else tuple(keys_of(only)), args, uses, for_s, rate)

    def right(
        self, above: Iterable[Right], narrowing: Narrowing | None, now: float, chain: tuple[str, ...] = ()
    ) -> Right:
        """Derive a right on these terms, passed on to the principals of a chain."""
        expires_at = inf if self.for_s is None else now + self.for_s
        return Right(above, expires_at=expires_at, uses=self.uses, rate=self.rate, narrowing=narrowing, chain=chain)

    def narrowing(self, known: Iterable[Key] | None, what: str) -> Narrowing | None:
        """Return what is kept of the operations that there are.

        Raises:
            ValueError: A word stands for none of them; says which there are.
        """
        if self.only is None and self.args is None:
            return None
        known = None if known is None else frozenset(known)
        only: frozenset[Key] | None = None
        if self.only is not None:
            only = frozenset[Key]().union(*self.only)
            only = only if known is None else only & known
        narrowing = Narrowing(only, {} if self.args is None else rules_of(self.args))
        if known is not None:
            missing = [min(map(word_of, meant)) for meant in self.only or () if not meant & known]
            missing += narrowing.unknown(known)
            if missing:
                there = ", ".join(sorted(set(map(word_of, known))))
                raise ValueError(f"{what} has no {missing[0]!r}; there is: {there}")
        return narrowing


_VALUES: Final = frozenset({bool, int, float, complex, str, bytes, tuple, frozenset, type(None)})


def narrow(obj: object, terms: Terms, now: float, interface: Callable[..., Any] | None = None) -> Narrowed:
    """Return a handle for an object of ours, or for a handle of one; to go out as ``interface`` only, if one is given.

    Raises:
        TypeError: It is a value, which is copied and not referred to; or it does not implement the interface.
        ValueError: A member is named that the object does not have.
        ReferenceDead: The handle has been revoked.
        LimitExceeded: It is derived too many times.
    """
    above: tuple[Right, ...] = ()
    name = ""
    if type(obj) is Narrowed:
        above, name, obj = (obj._caprpc_right,), obj._caprpc_interface, obj._caprpc_source
        if not above[0].alive:
            raise ReferenceDead("this handle was revoked: nothing can be derived from it")
    if type(obj) in _VALUES:
        raise TypeError(f"a {type(obj).__name__} is copied, not referred to: nothing of it can be narrowed or revoked")
    shapes = [shape_of(base) for base in type(obj).__mro__ if interface_info(base) is not None]
    if interface is not None:
        shape = shape_of(interface)
        shape.adapt(obj)
        name, shapes = shape.name, [shape]
    known = {key for shape in shapes for key in shape.members} if shapes else None
    if known is None and type(obj) in FUNCTIONS:
        known = {(OP_INVOKE, "")}
    return Narrowed(obj, terms.right(above, terms.narrowing(known, type(obj).__name__), now), name)


def check_interface(stub: Stub, interface: Callable[..., Any] | None) -> None:
    """Make sure that a reference is of an interface, if one is given.

    Raises:
        TypeError: It is of another.
    """
    if interface is not None and shape_of(interface).name != stub._caprpc_shape.name:
        raise TypeError(f"{stub!r} is no reference to {shape_of(interface).name}")


def cuts(in_flight: str) -> bool:
    """Return whether running calls are answered at once.

    Raises:
        ValueError: It is neither ``cancel`` nor ``finish``.
    """
    if in_flight not in ("cancel", "finish"):
        raise ValueError(f"in_flight={in_flight!r}: 'cancel' or 'finish' expected")
    return in_flight == "cancel"


class AttenuateMember:
    """The member behind ``attenuate``, as the side that asks sees it: for one shape, and one set of terms."""

    __slots__ = ("_shape", "_terms")

    name = ""
    member = "attenuate"
    operation = OP_ATTENUATE
    errors: tuple[type[Exception], ...] = ()
    scalars = None
    arg_trees = None
    returns_references = True

    def __init__(self, stub: Stub, terms: Terms) -> None:
        """Take the reference and what is to be kept of it.

        Raises:
            ValueError: The interface has no such member.
            Denied: The peer does not offer it on this reference; nothing was sent.
        """
        shape: Shape = stub._caprpc_shape
        imported = stub._caprpc_import
        terms.narrowing(shape.members, shape.name)
        self._shape = shape
        self._terms = terms
        for alternatives in terms.only or ():
            if not alternatives & imported.announced.operations:
                operation, name = min(alternatives & shape.members.keys())
                raise Denied(
                    f"{shape.name}.{name or OPERATION_NAMES[operation]}: the peer {printable(imported.holder)} does "
                    "not offer this on the reference; nothing was sent",
                    code="denied",
                    peer=imported.holder,
                )

    @property
    def signature(self) -> "AttenuateMember":
        """Return itself: terms go out, and a reference comes back."""
        return self

    def encode_args(self, args: tuple[Stub], _kwargs: dict[str, object], _writer: object) -> Any:
        """Write the terms; what the peer does not offer is not asked for."""
        terms, (stub,) = self._terms, args
        only = None
        if terms.only is not None:
            kept = frozenset[Key]().union(*terms.only) & stub._caprpc_import.announced.operations
            only = [list(key) for key in sorted(kept)]
        return [[only, _plain(terms.args), terms.uses, _float(terms.for_s), _float(terms.rate), None], {}]

    def decode_result(self, raw: object, reader: "Reader", *, plain: bool = False) -> object:
        """Read the derived reference."""
        if not isinstance(raw, RemoteReference | OwnReference):
            raise ArgumentError("", "a reference")
        stub = reader.read(raw, self._shape)
        for imported in reader.received:
            imported.derived = True
        return stub


class EndMember:
    """The member behind ``revoke``, as the side that asks sees it."""

    __slots__ = ()

    name = ""
    member = "revoke"
    operation = OP_REVOKE
    errors: tuple[type[Exception], ...] = ()
    scalars = (bool,)
    returns_references = False

    @property
    def signature(self) -> "EndMember":
        """Return itself: a boolean goes out, and nothing comes back."""
        return self

    def decode_result(self, raw: object, _reader: object, *, plain: bool = False) -> None:
        """Read nothing."""
        if raw is not None:
            raise ArgumentError("", "nothing")


class ServedImplicit:
    """The member behind ``attenuate`` and ``revoke`` of one call, on the side of the object."""

    __slots__ = ("_answer", "_now", "operation")

    name = ""
    blocking = False
    takes_references = False
    scalar_result = None
    result_trees: frozenset[type] = frozenset()
    errors: tuple[type[Exception], ...] = ()
    parameters = (None,)

    def __init__(self, answer: Answer, now: float) -> None:
        self._answer = answer
        self._now = now
        self.operation = answer.permit.operation

    def __eq__(self, other: object) -> bool:
        # What drivers learn of a member holds for all calls of the operation.
        return type(other) is ServedImplicit and other.operation == self.operation

    def __hash__(self) -> int:
        return self.operation

    @property
    def signature(self) -> "ServedImplicit":
        """Return itself."""
        return self

    def decode_args(self, raw: object, _refs: object, *, plain: bool = False) -> tuple[list[Any], dict[str, Any]]:
        """Read the terms of a peer, and derive the right.

        Raises:
            ArgumentError: They are not of the form.
            Refused: They name a member that is not permitted on this reference.
            LimitExceeded: They are too long, or there are too many derivations.
        """
        if type(raw) is not list or len(raw) != 2 or type(raw[0]) is not list or raw[1] != {}:
            raise ArgumentError("", "terms")
        answer = self._answer
        if self.operation == OP_REVOKE:
            if len(raw[0]) != 1 or type(raw[0][0]) is not bool:
                raise ArgumentError("", "a boolean")
            return raw[0], {}
        if len(answer.payload) > MOST_BYTES:
            raise LimitExceeded(f"terms of {len(answer.payload)} bytes, at most {MOST_BYTES} allowed")
        terms, narrowing, chain = _terms_of_peer(raw[0])
        self._check(answer, narrowing)
        if chain and not may_pass_on(answer.export.facet):
            raise refusal_of(answer.permit, "not-granted", answer.permit.rule)
        right = answer.export.right
        return [terms.right(() if right is None else (right,), narrowing, self._now, chain)], {}

    def encode_result(self, value: object, writer: "ResultWriter") -> RemoteReference | None:
        """Export the target under the derived right; the end of one gives nothing."""
        return writer.hand_over_derived(value) if isinstance(value, Right) else None

    def _check(self, answer: Answer, narrowing: Narrowing | None) -> None:
        export: Export = answer.export
        if isinstance(export.obj, ServedIterator | ServedContext | ServedSource):
            raise refusal_of(answer.permit, "not-granted", answer.permit.rule)
        if narrowing is None:
            return
        permitted = keys(export.facet)
        if narrowing.unknown(permitted):
            # The same answer for what is forbidden and for what does not exist.
            raise refusal_of(answer.permit, "not-granted", answer.permit.rule)
        for key in permitted:
            member = export.shape.members.get(key)
            declared = {parameter.name for parameter in member.signature.parameters} if member is not None else set()
            if not declared.issuperset(narrowing.rules_for(key)):
                raise ArgumentError("", "rules for parameters that there are")


def implicit_plan(answer: Answer, session: Session) -> Plan:
    """Return how ``attenuate`` or ``revoke`` runs: it ends in the writing of the result, or in the end of a right."""
    permit, right = answer.permit, answer.export.right
    function: Any = _itself
    if permit.operation == OP_REVOKE and right is not None:
        function = partial(_end, right)
    return Plan(permit, ServedImplicit(answer, session.now), function, is_async=False)  # type: ignore[arg-type]


def _itself(right: Right) -> Right:
    return right


def _end(right: Right, cut: bool) -> None:
    end(right, cut=cut)


def _terms_of_peer(raw: list[Any]) -> tuple[Terms, Narrowing | None, tuple[str, ...]]:
    if len(raw) != 6:
        raise ArgumentError("", "six terms")
    only, args, uses, for_s, rate, chain = raw
    try:
        kept = None if only is None else frozenset(_key(pair) for pair in only)
        narrowing = None if only is None and args is None else Narrowing(kept, {} if args is None else rules_of(args))
        terms = Terms.of(uses=uses, for_s=for_s, rate=rate)
        principals = () if chain is None else _principals(chain)
    except (TypeError, ValueError) as exc:
        raise ArgumentError("", "terms within their bounds") from exc
    return terms, narrowing, principals


def _principals(chain: Any) -> tuple[str, ...]:
    if type(chain) is not list or not 0 < len(chain) <= MOST_DERIVATIONS:
        raise ValueError("a chain of principals expected")
    if any(type(principal) is not str or spiffe_fault(principal) for principal in chain):
        raise ValueError("principals expected")
    return tuple(chain)


def _key(pair: Any) -> Key:
    if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not int or type(pair[1]) is not str:
        raise ValueError("a pair of operation and member expected")
    return pair[0], pair[1]


def _positive(value: object) -> bool:
    # NaN and infinity fail the comparisons. An integer of a peer may be larger than any float.
    return type(value) in (int, float) and 0 < value <= _DAYS_S  # type: ignore[operator]


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _plain(value: Any) -> Any:
    """Return rules as the wire has them: maps and lists."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value
