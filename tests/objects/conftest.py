"""Two ends in memory with policies on both: nodes that can be handed over, kept, and given back."""

from collections.abc import Callable, Iterator

import pytest

from caprpc import Interface, attribute, method
from caprpc.testing.deployment import Deployment
from caprpc.testing.pair import Pair


class Refusal(Exception):
    """What a node declares that it raises."""


class Leaf(Interface):
    @method(effect="read")
    def name(self) -> str: ...


class Node(Interface):
    label: str = attribute(writable=True)

    @method(effect="read")
    def fresh(self) -> Leaf: ...

    @method(effect="read")
    def same(self) -> Leaf: ...

    @method(effect="read")
    def leaves(self, count: int) -> list[Leaf]: ...

    @method(effect="write")
    def keep(self, leaf: Leaf) -> None: ...

    @method(effect="write")
    def keep_both(self, one: Leaf, other: Leaf) -> bool: ...

    @method(effect="write")
    def keep_all(self, leaves: list[Leaf]) -> int: ...

    @method(effect="write")
    def drop(self) -> None: ...

    @method(effect="read")
    def kept(self) -> Leaf: ...

    @method(effect="read")
    def ask_kept(self) -> str: ...

    @method(effect="read")
    def borrow(self, leaf: Leaf) -> str: ...

    @method(effect="write")
    def borrow_and_keep(self, leaf: Leaf) -> None: ...

    @method(effect="read")
    def is_yours(self, leaf: Leaf) -> bool: ...

    @method(effect="read")
    def apply(self, function: Callable[[int], int], value: int) -> int: ...

    @method(effect="read", errors=(Refusal,))
    def fail(self, kind: str, leaf: Leaf) -> None: ...

    @method(effect="read")
    def count(self, n: int) -> Iterator[int]: ...

    @method(effect="read")
    def unoffered(self) -> None: ...

    @method(effect="read")
    def hold_back(self, leaf: Leaf) -> Leaf: ...

    @method(effect="read")
    def wrong(self) -> int: ...

    @method(effect="read")
    def echo(self, value: list[int]) -> list[int]: ...


class LeafImpl(Leaf):
    def __init__(self, name="leaf"):
        self.text = name

    def name(self):
        return self.text


class NodeImpl(Node):
    def __init__(self):
        self.label = "node"
        self.leaf = LeafImpl("same")
        self.held = []
        self.seen = []
        self.running = None

    def fresh(self):
        return LeafImpl("fresh")

    def same(self):
        return self.leaf

    def leaves(self, count):
        return [LeafImpl(str(i)) for i in range(count)]

    def keep(self, leaf):
        self.held.append(leaf)

    def keep_both(self, one, other):
        self.held += [one, other]
        return one is other

    def keep_all(self, leaves):
        self.held += leaves
        return len(set(map(id, leaves)))

    def drop(self):
        self.held.clear()

    def kept(self):
        return self.held[-1]

    def ask_kept(self):
        return self.held[-1].name()

    def borrow(self, leaf):
        return leaf.name()

    def borrow_and_keep(self, leaf):
        self.held.append(leaf)

    def is_yours(self, leaf):
        return leaf is self.leaf

    def apply(self, function, value):
        return function(value)

    def fail(self, kind, leaf):
        self.seen.append(leaf.name())
        if kind == "declared":
            raise Refusal("not today")
        raise ValueError("a secret of the server")

    def count(self, n):
        return iter(range(n))

    def unoffered(self):
        pass

    def hold_back(self, leaf):
        return leaf

    def wrong(self):
        return "not a number"

    def echo(self, value):
        return value


CALLS = (
    '"fresh", "same", "leaves", "keep", "keep_both", "keep_all", "drop", "kept", "ask_kept", "borrow", '
    '"borrow_and_keep", "is_yours", "apply", "fail", "count", "hold_back", "wrong", "echo"'
)

SERVER = f"""
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/client"]
[roots]
node = "Node"
[offer.Node]
interface = "Node"
call = [{CALLS}]
get = ["label"]
set = ["label"]
iterate = true
[offer.Node.returns]
fresh = "Leaf"
same = "Leaf"
leaves = "Leaf"
kept = "Leaf"
hold_back = "Leaf"
[offer.Node.args.echo]
value = {{ max_len = 3 }}
[offer.Leaf]
interface = "Leaf"
call = ["name"]
[accept.Leaf]
call = ["name"]
[accept.Callable]
invoke = true
"""

LENDS = {
    "keep.leaf": "connection",
    "keep_both.one": "connection",
    "keep_both.other": "connection",
    "keep_all.leaves": "connection",
    "borrow.leaf": "call",
    "borrow_and_keep.leaf": "call",
    "hold_back.leaf": "call",
    "fail.leaf": "connection",
}

CLIENT = f"""
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Node]
call = [{CALLS}]
get = ["label"]
set = ["label"]
iterate = true
[accept.Leaf]
call = ["name"]
[offer.Lent]
interface = "Leaf"
call = ["name"]
[offer.Invoke]
interface = "Callable"
invoke = true
[[lend]]
to = "Node.apply"
param = "function"
as = "Invoke"
lifetime = "call"
""" + "".join(
    f'[[lend]]\nto = "Node.{to.split(".")[0]}"\nparam = "{to.split(".")[1]}"\nas = "Lent"\nlifetime = "{life}"\n'
    for to, life in LENDS.items()
)


class World:
    """A pair and the classes its tests need."""

    Node, Leaf, Leaves, Refusal = Node, Leaf, LeafImpl, Refusal

    def __init__(self, pair, impl):
        self.pair = pair
        self.impl = impl
        self.node = None

    def open(self):
        self.node = self.pair.client.root("node", Node)
        return self

    @property
    def sessions(self):
        return self.pair.client.session, self.pair.server.session

    def baseline(self):
        """Nothing is held but the root's stub: one export of the server, one import of the client."""
        self.pair.run()
        client, server = self.sessions
        return (len(client.exports), len(client.imports), len(server.exports), len(server.imports)) == (0, 1, 1, 0)

    def records(self, name):
        """Return the records of one side's log."""
        import json

        lines = []
        for path in sorted((self.pair_audit / name).rglob("*.jsonl")):
            lines += [json.loads(line) for line in path.read_text().splitlines()]
        return lines


@pytest.fixture(scope="session")
def sides(tmp_path_factory):
    """Directories of both sides; ``make(limits)`` makes another client with [limits] on both ends."""
    deployment = Deployment(tmp_path_factory.mktemp("objects"))
    made = {}

    def make(server_more="", client_more=""):
        key = (server_more, client_more)
        if key not in made:
            n = len(made)
            made[key] = (
                deployment.side(
                    f"server{n}", {"client": SERVER + server_more}, [Node], spiffe="spiffe://test.example/server"
                ),
                deployment.side(
                    f"client{n}", {"server": CLIENT + client_more}, [Node], spiffe="spiffe://test.example/client"
                ),
            )
        return made[key]

    return make


@pytest.fixture
def world(sides, tmp_path):
    """Return a maker of open worlds."""
    made = []

    def make(server_more="", client_more="", impl=None):
        impl = impl or NodeImpl()
        server, client = sides(server_more, client_more)
        pair = Pair(server, client, {"node": impl}, audit=tmp_path / str(len(made)))
        made.append(pair)
        world = World(pair, impl)
        world.pair_audit = tmp_path / str(len(made) - 1)
        return world.open()

    yield make
    for pair in made:
        pair.close()


@pytest.fixture(scope="session")
def node_classes():
    """Return the interfaces and implementations of nodes and leaves, and the error they declare."""
    return Node, Leaf, LeafImpl, NodeImpl, Refusal
