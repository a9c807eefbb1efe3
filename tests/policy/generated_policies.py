"""Policies made at random, as text that the real parser reads, and what the guard lets through of them."""

from collections.abc import Iterator
from decimal import Decimal
from itertools import count
from pathlib import Path
from random import Random
from types import MappingProxyType

from caprpc import ids
from caprpc.analysis.authority import member_name
from caprpc.contract import InterfaceContract, MemberContract, ParameterContract
from caprpc.policy import Facet, Guard, Permit, PolicySet, PrincipalQuotas, Refused, may_pass_on, sources
from caprpc.policy.document import Table
from caprpc.policy.parse import parse_policy
from caprpc.policy.problems import Problems
from caprpc.policy.text import TomlDocument

PEERS = ("spiffe://a.example/x", "spiffe://b.example/y")
SOURCES = ("spiffe://c.example/z", "spiffe://d.example/z")
ANCHOR = "sha256:" + "1" * 64
INTERFACES = ("Ledger", "History", "Account")
TAKES = (ParameterContract("n", "Any", None, True), ParameterContract("s", "Any", None, True))

SAMPLES: tuple[object, ...] = (
    *(-1, 0, 1, 2, 5, 10, 11, 0.0, -0.0, 1.0, 5.0, 10.0, 10.5, float("nan"), float("inf")),
    *(Decimal(0), Decimal("-0"), Decimal("0.5"), Decimal(5), Decimal("10.0"), True, False, None),
    *("", "a", "ab", "abc", "b", "abcabc", "EUR", "z" * 12, b"ab", [1, 2], (1,), {"a": 1}),
)
"""Values at and around every bound that a generated rule can have."""


def _members(interface: str) -> dict[tuple[int, str], MemberContract]:
    found = [MemberContract(ids.OP_CALL, name, TAKES, "Any", None, "read") for name in ("alpha", "beta", "gamma")]
    found += [MemberContract(ids.OP_CALL, f"get_{name}", (), name, name, "read") for name in INTERFACES]
    found += [MemberContract(ids.OP_CALL, "items", (), "Iterator[str]", "Iterator", "read")]
    found += [MemberContract(ids.OP_GET, "size", (), "int", None, "read")]
    found += [MemberContract(ids.OP_LENGTH, "", (), "int", None, "read")]
    return {(member.operation, member.name): member for member in found}


CONTRACTS = {name: InterfaceContract(name, MappingProxyType(_members(name)), "") for name in INTERFACES}
CONTRACTS["Sink"] = InterfaceContract(
    "Sink",
    MappingProxyType(
        {
            (ids.OP_CALL, name): MemberContract(
                ids.OP_CALL, name, (ParameterContract("what", kind, kind, True),), "None", None, "write"
            )
            for name, kind in (("take", "Ledger"), ("keep", "History"))
        }
    ),
    "",
)

RULE_PARTS = (
    *("min = 0", "min = 1", "min = 0.5", "max = 5", "max = 10", "max = 10.5", 'in = ["a", "ab"]', "in = [1, 5]"),
    *("in = [0]", "in = [true]", "const = 5", 'const = "EUR"', 'prefix = "a"', 'prefix = "ab"', "max_len = 2"),
    *("max_len = 3", 'chars = ["a-b"]', 'chars = ["a-z"]', 'chars = ["A-Z"]'),
)
_LIMITS = ("per_second = 2", "per_second = 5", "per_day = 10", "in_flight = 1", "in_flight = 3", "per_hour = 7")


class Draft:
    """A policy that can be written as text and changed a little."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.facets = {name: random.choice(INTERFACES) for name in ("A", "B", "C", "D")[: random.randint(2, 4)]}
        self.calls = {name: self._some(("alpha", "beta", "gamma"), 2) for name in self.facets}
        self.gets = {name: self._links() for name in self.facets}
        self.flags = {
            name: self._some(("length = true", "iterate = true", 'get = ["size"]'), 1) for name in self.facets
        }
        self.args = {name: self._args(name) for name in self.facets}
        self.limits = {name: self._limits(name) for name in self.facets}
        self.roots = {f"r{index}": random.choice(list(self.facets)) for index in range(random.randint(1, 2))}
        self.accepts = self._some(("take", "keep"), 1)
        self.lends = self._lends()
        self.passing = {name: self._passing() for name in self.facets}
        self.restore = self._restore()
        self.frames = {"in_flight": random.choice((4, 8)), "exports": random.choice((16, 32))}
        self.peers = list(PEERS[: random.randint(1, 2)])

    def changed(self) -> "Draft":
        """Return a copy with one to three parts made anew."""
        other = Draft(self.random)
        other.__dict__.update(self.__dict__)
        fresh = Draft(self.random)
        for _ in range(self.random.randint(1, 3)):
            part = self.random.choice(
                (
                    *("calls", "gets", "flags", "args", "limits", "passing", "roots", "restore", "accepts", "lends"),
                    *("frames", "peers", "all"),
                )
            )
            if part == "all":
                return fresh
            if part in ("calls", "gets", "flags", "args", "limits", "passing"):
                name = self.random.choice(list(self.facets))
                remade = dict(getattr(other, part))
                remade[name] = {
                    "calls": lambda: self._some(("alpha", "beta", "gamma"), 2),
                    "gets": self._links,
                    "flags": lambda: self._some(("length = true", "iterate = true", 'get = ["size"]'), 1),
                    "args": lambda name=name: self._args(name),
                    "limits": lambda name=name: self._limits(name),
                    "passing": self._passing,
                }[part]()
                setattr(other, part, remade)
            elif part == "roots":
                other.roots = {f"r{i}": self.random.choice(list(self.facets)) for i in range(self.random.randint(1, 2))}
            elif part in ("lends", "restore"):
                setattr(other, part, {"lends": self._lends, "restore": self._restore}[part]())
            else:
                setattr(other, part, getattr(fresh, part))
        return other

    def text(self) -> str:
        lines = ["caprpc = 1", 'kind = "policy"', 'name = "old"', "[peer]", f'ca = ["{ANCHOR}"]']
        lines += [f"spiffe = {self.peers!r}".replace("'", '"'), "[roots]"]
        lines += [f'{root} = "{facet}"' for root, facet in self.roots.items()]
        for facet, interface in self.facets.items():
            links = {f"get_{self.facets[target]}": target for target in self.gets[facet]}
            calls = [*self.calls[facet], *links] or ["alpha"]
            if "iterate = true" in self.flags[facet]:
                calls.append("items")
            lines += [f"[offer.{facet}]", f'interface = "{interface}"', f"call = {calls!r}".replace("'", '"')]
            lines += self.flags[facet] + self.passing[facet]
            for member, rules in self.args[facet].items():
                if member in calls:
                    lines.append(f"[offer.{facet}.args.{member}]")
                    lines += [f"{parameter} = {{ {rule} }}" for parameter, rule in rules.items()]
            if together := self.limits[facet].get(""):
                lines += [f"[offer.{facet}.limit]", together]
            for member, limit in self.limits[facet].items():
                if member in calls:
                    lines += [f"[offer.{facet}.limit.{member}]", limit]
            if links:
                lines.append(f"[offer.{facet}.returns]")
                opaque = self.random.random() < 0.1
                lines += [f'{call} = "{"opaque" if opaque else target}"' for call, target in links.items()]
        if self.restore:
            lines += ["[restore.kind]", *self.restore]
        if self.accepts:
            lines += ["[accept.Sink]", f"call = {list(self.accepts)!r}".replace("'", '"')]
        for member, facet, lifetime in self.lends:
            lines += [
                "[[lend]]",
                f'to = "Sink.{member}"',
                'param = "what"',
                f'as = "{facet}"',
                f"lifetime = {lifetime}",
            ]
        lines += ["[limits]", *(f"{key} = {value}" for key, value in self.frames.items())]
        return "\n".join(lines) + "\n"

    def _some(self, words: tuple[str, ...], least: int) -> list[str]:
        return self.random.sample(words, self.random.randint(0 if least == 1 else 1, len(words)))

    def _links(self) -> list[str]:
        chosen = self.random.sample(list(self.facets), self.random.randint(0, 2))
        return list({self.facets[name]: name for name in chosen}.values())

    def _rule(self) -> str:
        parts = self.random.sample(RULE_PARTS, 1 if self.random.random() < 0.7 else 2)
        keys = {part.split(" = ")[0]: part for part in parts}
        if {"in", "const"} <= keys.keys():
            del keys["const"]
        return ", ".join(keys.values())

    def _args(self, facet: str) -> dict[str, dict[str, str]]:
        return {
            member: {parameter: self._rule() for parameter in self.random.sample(("n", "s"), self.random.randint(1, 2))}
            for member in self.random.sample(("alpha", "beta", "gamma"), self.random.randint(0, 2))
        }

    def _limits(self, facet: str) -> dict[str, str]:
        # The empty name stands for the facet as a whole.
        chosen = self.random.sample(("alpha", "beta", "gamma", ""), self.random.randint(0, 1))
        return {member: self.random.choice(_LIMITS) for member in chosen}

    def _passing(self) -> list[str]:
        sources = self.random.sample(SOURCES, self.random.randint(0, 2))
        lines = [f"forward_from = {sources!r}".replace("'", '"')] if sources else []
        return lines + ["forward = true"] * self.random.randint(0, 1)

    def _restore(self) -> list[str]:
        if self.random.random() < 0.5:
            return []
        lines = [f'as = "{self.random.choice(list(self.facets))}"', *["bearer = true"] * self.random.randint(0, 1)]
        most = self.random.choice((None, 30, 1_234_567, 1_234_568))
        return lines if most is None else [*lines, f"max_for_s = {most}"]

    def _lends(self) -> list[tuple[str, str, str]]:
        kinds = {"take": "Ledger", "keep": "History"}
        lends = []
        for member, kind in kinds.items():
            fitting = [name for name, interface in self.facets.items() if interface == kind]
            if fitting and self.random.random() < 0.5:
                lends.append((member, self.random.choice(fitting), self.random.choice(('"call"', '"connection"', "5"))))
        return lends


def load(text: str, file: str = "p.toml") -> PolicySet:
    """Return a set with the policy of one text, or raise its problems."""
    problems = Problems()
    table = Table.top(TomlDocument(text), file, problems)
    table.integer("caprpc", 0, 1)
    table.choice("kind", ("policy",))
    policy = parse_policy(table, file, "sha256:" + "0" * 64, CONTRACTS)
    problems.raise_if_any()
    assert policy is not None
    return PolicySet(
        directory=Path("."),
        version=1,
        policies=(policy,),
        contracts=CONTRACTS,
        audit_directory=Path("."),
        revoked_file=None,
        anchors={},
        nevers=(),
        expectations=(),
        files={},
        digest="sha256:" + "0" * 64,
        note=None,
        warnings=(),
        _by_peer={(ANCHOR, peer): policy for peer in policy.principals},
    )


MISSING = len(SAMPLES)
"""Stands for an argument that is left out."""
EVERYTHING = frozenset(range(len(SAMPLES) + 1))

Passing = tuple[frozenset[int], frozenset[int]]
"""For both parameters the samples that pass; the guard takes every combination of them."""


def allowed(policies: PolicySet, longest: int = 3) -> dict[tuple[str, str, str], Passing]:
    """Return what the guard lets each peer do: by peer, way to the reference and member, which arguments pass.

    Only the guard is asked. Lends count where it accepts the call in which something is lent.
    """
    table: dict[tuple[str, str, str], Passing] = {}
    for policy in policies.policies:
        guard = Guard(policy, PrincipalQuotas())
        pending = list(_first(guard))
        days = count(1)
        for _ in range(longest):
            following: list[tuple[str, Facet]] = []
            for way, facet in pending:
                for operation, name in OPERATIONS:
                    try:
                        # A day later each time: rates are not what is asked about.
                        permit = guard.check(facet, operation, name, next(days) * 86_400.0)
                    except Refused:
                        continue
                    permit.give_back()
                    passing = _passing(permit, "n"), _passing(permit, "s")
                    for peer in policy.principals:
                        table[peer, way, member_name(facet.interface, operation, name)] = passing
                    result = guard.facet_for_result(permit)
                    if result is not None and result.name != "opaque":
                        word = f"{ids.OPERATION_NAMES[operation]} {name}".strip()
                        following.append((f"{way} > {word}", result))
            pending = following
    return table


def handed_over(policies: PolicySet) -> tuple[dict[str, set[tuple[str, str]]], set[str]]:
    """Return by whom each facet is handed to the peer of the one policy, and all members that it may use.

    Only the guard is asked, once for each facet. A hand-over is the facet that it comes from, empty for the first ones,
    and the word for it: ``root r0``, ``call get_Ledger``.
    """
    (policy,) = policies.policies
    guard = Guard(policy, PrincipalQuotas())
    found: dict[str, set[tuple[str, str]]] = {}
    members: set[str] = set()
    pending = [("", way, facet) for way, facet in _first(guard)]
    days = count(1)
    while pending:
        holder, word, facet = pending.pop()
        is_new = facet.name not in found
        found.setdefault(facet.name, set()).add((holder, word))
        for operation, name in OPERATIONS if is_new else ():
            try:
                permit = guard.check(facet, operation, name, next(days) * 86_400.0)
            except Refused:
                continue
            permit.give_back()
            members.add(member_name(facet.interface, operation, name))
            result = guard.facet_for_result(permit)
            if result is not None and result.name != "opaque":
                pending.append((facet.name, f"{ids.OPERATION_NAMES[operation]} {name}".strip(), result))
    return found, members


def passed_on(policies: PolicySet) -> dict[tuple[str, str], frozenset[str]]:
    """Return what the guard lets cross more than one connection: by peer and way, whose objects, and whether onward."""
    table: dict[tuple[str, str], frozenset[str]] = {}
    for policy in policies.policies:
        for way, facet in _first(Guard(policy, PrincipalQuotas())):
            for peer in policy.principals:
                table[peer, way] = sources(facet) | {"onward"} if may_pass_on(facet) else sources(facet)
    return table


def lets_more_through(before: Passing | None, after: Passing) -> bool:
    """Say whether some arguments pass after that did not pass before."""
    if not all(after):
        return False
    return before is None or any(not new <= old for old, new in zip(before, after, strict=True))


OPERATIONS = [*_members("Ledger"), (ids.OP_NEXT, ""), (ids.OP_CLOSE, "")]


def _first(guard: Guard) -> Iterator[tuple[str, Facet]]:
    for root in ("r0", "r1"):
        try:
            permit = guard.check(guard.roots, ids.OP_ROOT, root, 0.0)
        except Refused:
            continue
        facet = guard.facet_for_result(permit)
        assert facet is not None
        yield f"root {root}", facet
    for entry in guard.restores.values():
        yield f"restore {entry.name}", guard.facet(entry.facet)
    for member in ("take", "keep"):
        lend = guard.lend("Sink", member, "what")
        if lend is not None and guard.accept("Sink", ids.OP_CALL, member) is not None:
            yield f"lent to Sink.{member} (what)", guard.facet(lend.facet)


def _passing(permit: Permit, parameter: str) -> frozenset[int]:
    """Return the samples with which the guard takes a call, the other argument being out of question."""
    if parameter not in permit.arguments:
        return EVERYTHING
    rule = permit.arguments[parameter]
    return frozenset(position for position, value in enumerate(SAMPLES) if not rule.fault(value))
