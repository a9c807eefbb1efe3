"""Three parties: an owner of nodes, somebody in the middle who holds them, and a far one who gets them of it."""

import io
from collections.abc import Callable, Iterator

import caprpc
from caprpc import Interface, method
from caprpc.interfaces import ByteSource

OWNER, MIDDLE, FAR = (f"spiffe://test.example/{name}" for name in ("owner", "middle", "far"))


class Leaf(Interface):
    @method(effect="read")
    def name(self, tag: int) -> str: ...

    @method(effect="read")
    def hidden(self, tag: int) -> str: ...


class Sealed(Interface):
    @method(effect="read")
    def name(self, tag: int) -> str: ...


class Node(Interface):
    @method(effect="read")
    def same(self) -> Leaf: ...

    @method(effect="read")
    def offered(self, index: int) -> Leaf: ...

    @method(effect="read")
    def sealed(self) -> Sealed: ...

    @method(effect="read")
    def count(self, n: int) -> Iterator[int]: ...

    @method(effect="read")
    def leaves(self, n: int) -> Iterator[Leaf]: ...

    @method(effect="read")
    def data(self) -> ByteSource: ...

    @method(effect="write")
    def keep(self, leaf: Leaf) -> None: ...

    @method(effect="write")
    def shut(self, leaf: Leaf) -> None: ...

    @method(effect="read")
    def kept(self, index: int) -> Leaf: ...

    @method(effect="read")
    def ask_kept(self, index: int, tag: int) -> str: ...

    @method(effect="read")
    def borrow(self, leaf: Leaf, tag: int) -> str: ...

    @method(effect="write")
    def borrow_and_keep(self, leaf: Leaf) -> None: ...

    @method(effect="read")
    def is_same(self, leaf: Leaf) -> bool: ...

    @method(effect="read")
    def apply(self, function: Callable[[int], int], value: int) -> int: ...

    @method(effect="write")
    def meanwhile(self) -> None: ...

    @method(effect="read")
    def secret(self) -> None: ...


class Gate(Interface):
    @method(effect="read")
    def node(self) -> Node: ...

    @method(effect="read")
    def passed(self, index: int) -> Leaf: ...

    @method(effect="read")
    def bare(self, index: int) -> Leaf: ...

    @method(effect="read")
    def own(self) -> Leaf: ...

    @method(effect="write")
    def take(self, leaf: Leaf) -> None: ...

    @method(effect="read")
    def taken(self, index: int) -> Leaf: ...

    @method(effect="read")
    def is_node(self, node: Node) -> bool: ...


class Log:
    """What ran, for whom: chains of principals and members; and the tags of the calls that ran."""

    def __init__(self):
        self.ran = set()
        self.tags = {}

    def note(self, kind, member, tag=None):
        self.ran.add((kind, member, caprpc.current().chain))
        if tag is not None:
            self.tags[tag] = caprpc.current().chain


class LeafImpl(Leaf):
    def __init__(self, log, kind):
        self.log, self.kind = log, kind

    def name(self, tag):
        self.log.note(self.kind, "name", tag)
        return self.kind

    def hidden(self, tag):
        self.log.note(self.kind, "hidden", tag)
        return self.kind


class SealedImpl(Sealed):
    def __init__(self, log):
        self.log = log

    def name(self, tag):
        self.log.note("sealed", "name", tag)
        return "sealed"


class NodeImpl(Node):
    def __init__(self, log):
        self.log = log
        self.leaf = LeafImpl(log, "owner's")
        self.closed = SealedImpl(log)
        self.handles = []
        self.held = []
        self.action = None

    def _note(self, member):
        self.log.note("node", member)

    def same(self):
        self._note("same")
        return self.leaf

    def offered(self, index):
        self._note("offered")
        return self.handles[index % len(self.handles)]

    def sealed(self):
        self._note("sealed")
        return self.closed

    def count(self, n):
        self._note("count")
        return iter(range(n))

    def leaves(self, n):
        self._note("leaves")
        return (LeafImpl(self.log, "owner's") for _ in range(n))

    def data(self):
        self._note("data")
        return io.BytesIO(bytes(100))

    def keep(self, leaf):
        self._note("keep")
        self.held.append(leaf)

    def shut(self, leaf):
        self._note("shut")
        self.held.append(leaf)

    def kept(self, index):
        self._note("kept")
        return self.held[index % len(self.held)]

    def ask_kept(self, index, tag):
        self._note("ask_kept")
        return self.held[index % len(self.held)].name(tag)

    def borrow(self, leaf, tag):
        self._note("borrow")
        return leaf.name(tag)

    def borrow_and_keep(self, leaf):
        self._note("borrow_and_keep")
        self.held.append(leaf)

    def is_same(self, leaf):
        self._note("is_same")
        return leaf is self.leaf

    def apply(self, function, value):
        self._note("apply")
        return function(value)

    def meanwhile(self):
        self._note("meanwhile")
        action, self.action = self.action, None
        if action is not None:
            action()

    def secret(self):
        self._note("secret")


class GateImpl(Gate):
    def __init__(self, log):
        self.log = log
        self.held = None
        self.leaf = LeafImpl(log, "middle's")
        self.of_owner = []
        self.of_far = []

    def node(self):
        return self.held

    def passed(self, index):
        return self.of_owner[index % len(self.of_owner)]

    def bare(self, index):
        return self.of_owner[index % len(self.of_owner)]

    def own(self):
        return self.leaf

    def take(self, leaf):
        self.of_far.append(leaf)

    def taken(self, index):
        return self.of_far[index % len(self.of_far)]

    def is_node(self, node):
        return node is self.held


FOR_MIDDLE = [name for name in vars(Node) if not name.startswith("_")]
FOR_FAR = [name for name in FOR_MIDDLE if name != "secret"]

ALLOWED = (
    {("node", name, (MIDDLE,)) for name in FOR_MIDDLE}
    | {("node", name, (MIDDLE, FAR)) for name in FOR_FAR}
    | {("owner's", "name", (MIDDLE,)), ("owner's", "name", (MIDDLE, FAR)), ("sealed", "name", (MIDDLE,))}
    | {("middle's", "name", (FAR,)), ("middle's", "name", (OWNER,))}
    | {("far's", "name", (MIDDLE,)), ("far's", "name", (MIDDLE, OWNER)), ("shut", "name", (MIDDLE,))}
    | {("function", "", (MIDDLE, OWNER))}
)
"""All that the policies below let happen; whatever else runs has got past one of them."""


def _peer(name):
    return f'[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{name}"]\n'


def _offer(facet, interface, calls, more=""):
    listed = ", ".join(f'"{name}"' for name in calls)
    return f'[offer.{facet}]\ninterface = "{interface}"\ncall = [{listed}]\n{more}'


def _accept(interface, calls):
    listed = ", ".join(f'"{name}"' for name in calls)
    return f"[accept.{interface}]\ncall = [{listed}]\n"


def _returns(facet, **members):
    return f"[offer.{facet}.returns]\n" + "".join(f'{name} = "{to}"\n' for name, to in members.items())


def _lend(to, param, facet, lifetime="connection"):
    return f'[[lend]]\nto = "{to}"\nparam = "{param}"\nas = "{facet}"\nlifetime = "{lifetime}"\n'


def _lends(open_, shut, function):
    text = _lend("Node.keep", "leaf", open_) + _lend("Node.shut", "leaf", shut)
    text += _lend("Node.borrow", "leaf", open_, "call") + _lend("Node.borrow_and_keep", "leaf", open_, "call")
    return text + _lend("Node.apply", "function", function, "call")


def _nodes(facet, calls, leaf, sealed, more):
    text = _offer(facet, "Node", calls, "iterate = true\n" + more)
    text += _returns(facet, same=leaf, offered=leaf, kept=leaf, sealed=sealed, data="Data", leaves="Leaves")
    return text + f'[offer.Leaves]\ninterface = "Iterator"\niterate = true\n{more}' + _returns("Leaves", iterate=leaf)


ON, OF_OWNER, OF_FAR = "forward = true\n", f'forward_from = ["{OWNER}"]\n', f'forward_from = ["{FAR}"]\n'
INVOKE = '[offer.{}]\ninterface = "Callable"\ninvoke = true\n{}'
DATA = '[offer.Data]\ninterface = "ByteSource"\ncall = ["read", "close"]\n'
HEARS = "[accept.Callable]\ninvoke = true\n" + _accept("Leaf", ["name", "hidden"])
USES = _accept("Node", FOR_MIDDLE) + "iterate = true\n" + _accept("Sealed", ["name"]) + HEARS
USES += _accept("ByteSource", ["read", "close"]) + "[accept.Iterator]\niterate = true\n"

OF_THE_OWNER = {
    "middle": _peer("middle")
    + '[roots]\nnode = "N"\n'
    + _nodes("N", FOR_MIDDLE, "L", "S", ON)
    + _offer("L", "Leaf", ["name"], ON)
    + _offer("S", "Sealed", ["name"])
    + DATA
    + ON
    + HEARS
}
OF_THE_MIDDLE = {
    "owner": _peer("owner")
    + USES
    + _lends("FarLeaf", "FarLeaf", "FarFunction")
    + _offer("FarLeaf", "Leaf", ["name"], OF_FAR)
    + INVOKE.format("FarFunction", OF_FAR),
    "far": _peer("far")
    + '[roots]\ngate = "G"\n'
    + _offer("G", "Gate", ["node", "passed", "bare", "own", "take", "taken", "is_node"])
    + _returns("G", node="N", passed="L", bare="Bare", own="Own", taken="L")
    + _nodes("N", FOR_FAR, "L", "S", OF_OWNER)
    + _offer("L", "Leaf", ["name"], OF_OWNER)
    + _offer("S", "Sealed", ["name"], OF_OWNER)
    + _offer("Bare", "Leaf", ["name"])
    + _offer("Own", "Leaf", ["name"])
    + DATA
    + OF_OWNER
    + HEARS
    + _accept("Node", ["same"]),
}
OF_THE_FAR_ONE = {
    "middle": _peer("middle")
    + _accept("Gate", ["node", "passed", "bare", "own", "take", "taken", "is_node"])
    + USES
    + _lends("Open", "Shut", "Function")
    + _lend("Gate.take", "leaf", "Open")
    + _offer("Open", "Leaf", ["name"], ON)
    + _offer("Shut", "Leaf", ["name"])
    + INVOKE.format("Function", ON)
}


def sides(deployment):
    """Return the directories of the owner, of the middle and of the far one."""
    return (
        deployment.side("owner", OF_THE_OWNER, [Node]),
        deployment.side("middle", OF_THE_MIDDLE, [Node, Gate]),
        deployment.side("far", OF_THE_FAR_ONE, [Node, Gate]),
    )
