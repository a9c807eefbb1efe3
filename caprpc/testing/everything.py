"""Policies that grant all that interfaces declare, written out: for tests of what services do, not of who may.

The policy language has no word for "everything", and must not have one: what is generated here is an ordinary policy
that lists each member, to be kept in a temporary directory.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from caprpc.contract import InterfaceContract, MemberContract
from caprpc.ids import (
    OP_CALL,
    OP_CLOSE,
    OP_COMPARE,
    OP_CONTAINS,
    OP_ENTER,
    OP_EXIT,
    OP_GET,
    OP_INDEX_GET,
    OP_INDEX_SET,
    OP_INVOKE,
    OP_ITERATE,
    OP_LENGTH,
    OP_NEXT,
    OP_SET,
)
from caprpc.interface import interface_closure, interface_info
from caprpc.objects.roots import class_of_root
from caprpc.policy import grant_word

_LISTS: Final = {OP_CALL: "call", OP_GET: "get", OP_SET: "set", OP_COMPARE: "compare"}
_FLAGS: Final = {
    OP_INVOKE: "invoke",
    OP_ITERATE: "iterate",
    OP_NEXT: "iterate",
    OP_CLOSE: "iterate",
    OP_LENGTH: "length",
    OP_CONTAINS: "contains",
    OP_INDEX_GET: "index_get",
    OP_INDEX_SET: "index_set",
    OP_ENTER: "context",
    OP_EXIT: "context",
}
_KINDS: Final = frozenset({"Callable", "Iterator", "ContextManager"})

_ITERATOR: Final = "Iterator"
"""The kind of reference that needs no facet of its own: a flag of the facet which gives it lets it out."""

_PEER: Final = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{}"]\n'


def interfaces_of(roots: Mapping[str, object], more: Iterable[type] = ()) -> dict[str, type]:
    """Return the interface of each root: the first one that its class implements.

    Raises:
        TypeError: The class of a root implements none, or a factory neither says what it makes nor is there ``more``.
    """
    found: dict[str, type] = {}
    for name, root in roots.items():
        cls = class_of_root(root)
        declared = [base for base in cls.__mro__ if interface_info(base) is not None]
        if not declared and callable(root):
            declared = list(more)[:1]
        if not declared and callable(root):
            raise TypeError(
                f"root {name!r}: the factory does not say what it makes; annotate its result (def {name}(peer) -> "
                "Implementation), or name the interface in `interfaces`"
            )
        if not declared:
            raise TypeError(f"root {name!r}: the class {cls.__name__} implements no interface")
        found[name] = declared[0]
    return found


def everything(
    roots: Mapping[str, object], interfaces: Iterable[type] = (), *, server: str = "server", client: str = "client"
) -> tuple[str, str]:
    """Return the policies of a server for its client and of the client for its server that grant all there is.

    Each root is offered as the first interface that its class implements; whatever references its members take or give
    is offered and accepted, too, and may be lent for the length of a call.

    Args:
        roots: What the server serves.
        interfaces: What the classes do not show: of factories that are functions.
        server: Name of the server's side, as given to ``Deployment.side``.
        client: Name of the client's side.
    """
    of_roots = interfaces_of(roots, interfaces)
    contracts = interface_closure([*of_roots.values(), *interfaces])
    offers = "".join(line for name, contract in contracts.items() for line in _offer(name, contract, contracts))
    accepts = "".join(line for name, contract in contracts.items() for line in _granted("accept", name, contract))
    names = "".join(f'{name} = "{cls.__name__}"\n' for name, cls in of_roots.items())
    lends = "".join(_lends(contracts))
    return (
        f"{_PEER.format(client)}[roots]\n{names}{offers}{accepts}",
        f"{_PEER.format(server)}{offers}{accepts}{lends}",
    )


def declared_by(roots: Mapping[str, object], interfaces: Iterable[type] = ()) -> list[Callable[..., Any]]:
    """Return the interfaces whose contracts a deployment for these roots records."""
    return [*interfaces_of(roots, interfaces).values(), *interfaces]


def _offer(name: str, contract: InterfaceContract, contracts: Mapping[str, InterfaceContract]) -> Iterator[str]:
    """Yield the lines that offer an interface, and those of the facets that its members' contexts and such need."""
    returned: dict[str, str] = {}
    kinds: list[str] = []
    for member in contract.members.values():
        if name in _KINDS or member.returns_reference is None:
            continue
        word = grant_word(member.operation, member.name)
        inner = _carried(member, contracts)
        if inner is not None:
            # What an iterator, a context or a function gives is a reference as well: it has a facet of its own.
            facet = returned[word] = f"{name}_{word}"
            kind = contracts[member.returns_reference]
            flag = _FLAGS[next(iter(kind.members))[0]]
            kinds += _granted("offer", facet, kind)
            kinds.append(f'[offer.{facet}.returns]\n{flag} = "{inner}"\n')
        elif member.returns_reference != _ITERATOR:
            returned[word] = member.returns_reference
    yield from _granted("offer", name, contract)
    if returned:
        yield f"[offer.{name}.returns]\n"
        yield from (f'{word} = "{facet}"\n' for word, facet in sorted(returned.items()))
    yield from kinds


def _granted(table: str, name: str, contract: InterfaceContract) -> Iterator[str]:
    members = contract.members.values()
    yield f"[{table}.{name}]\n"
    if table == "offer":
        yield f'interface = "{contract.name}"\n'
    for operation, key in _LISTS.items():
        listed = ", ".join(f'"{member.name}"' for member in members if member.operation == operation)
        if listed:
            yield f"{key} = [{listed}]\n"
    flags = {_FLAGS[member.operation] for member in members if member.operation in _FLAGS}
    if any(member.returns_reference == _ITERATOR for member in members):
        flags.add("iterate")
    for flag in sorted(flags):
        yield f"{flag} = true\n"


def _carried(member: MemberContract, contracts: Mapping[str, InterfaceContract]) -> str | None:
    """Return the interface of what a context, an iterator or a function that a member returns gives in its turn."""
    if member.returns_reference not in _KINDS:
        return None
    # Of a function its result counts, which stands behind its arguments.
    result = member.returns.rpartition("], ")[2]
    return next((word for word in re.findall(r"\w+", result) if word in contracts and word not in _KINDS), None)


def _lends(contracts: Mapping[str, InterfaceContract]) -> Iterator[str]:
    for name, contract in contracts.items():
        for member in contract.members.values():
            for parameter in member.parameters:
                if member.name and parameter.reference is not None:
                    yield (
                        f'[[lend]]\nto = "{name}.{member.name}"\nparam = "{parameter.name}"\n'
                        f'as = "{parameter.reference}"\nlifetime = "call"\n'
                    )
