"""What all connections of one principal may hold together."""

import threading

import pytest

from caprpc import Interface, RemoteError, method
from caprpc.limits import DEFAULT_LIMITS, Limits
from caprpc.policy import ArgumentBudget, HeldArguments, Holding, Pool, Pools, buffer_share
from caprpc.testing import Network

PEER = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/client"]\n[roots]\nbox = "Box"\n'
BOX = '[offer.Box]\ninterface = "Box"\ncall = ["put", "item", "keep"]\n[offer.Box.returns]\nitem = "Item"\n'
ITEM = '[offer.Item]\ninterface = "Item"\ncall = ["name"]\n'
ACCEPT = '[accept.Item]\ncall = ["name"]\n'


class Item(Interface):
    @method(effect="read")
    def name(self) -> str: ...


class Box(Interface):
    @method(effect="write")
    def put(self) -> None: ...

    @method(effect="read")
    def item(self) -> Item: ...

    @method(effect="write")
    def keep(self, item: Item) -> None: ...


class ItemImpl(Item):
    def name(self):
        return "item"


class BoxImpl(Box):
    def __init__(self):
        self.kept = []

    def put(self):
        return None

    def item(self):
        return ItemImpl()

    def keep(self, item):
        self.kept.append(item)


class Connections:
    """Many connections of one principal to one server."""

    def __init__(self, network, dialing, serving):
        self.network = network
        self.parties = dialing, serving
        self.made = []
        self.boxes = []
        self.add()

    def add(self):
        self.made.append(self.network.connect(*self.parties))
        self.boxes.append(self.made[-1].client.root("box", Box))

    def use(self, number):
        """Use that connection from now on."""
        self.client, self.server = self.made[number].ends
        return self.boxes[number]


@pytest.fixture
def connections(caprpc_sides, caprpc_clock):
    networks = []

    def make(limits, count=2):
        roots = {"box": BoxImpl()}
        lends = '[[lend]]\nto = "Box.keep"\nparam = "item"\nas = "Item"\nlifetime = "connection"\n'
        accept = (
            '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/server"]\n'
            '[accept.Box]\ncall = ["put", "item", "keep"]\n' + ACCEPT + ITEM + lends
        )
        server, client = caprpc_sides(roots, [Item], offer=PEER + BOX + ITEM + ACCEPT + limits, accept=accept)
        network = Network(caprpc_clock)
        networks.append(network)
        many = Connections(network, network.party(client), network.party(server, roots))
        for _ in range(count - 1):
            many.add()
        many.served, many.audit = roots["box"], server.audit
        return many

    yield make
    for network in networks:
        network.close()


def refused(pending):
    with pytest.raises(RemoteError) as caught:
        pending.result()
    return caught.value.code


def test_calls_of_all_connections_together_at_their_edge(connections):
    many = connections("[limits]\nconnections = 2\nin_flight = 3\nprincipal_in_flight = 4\n")
    running = []
    for number, count in ((0, 3), (1, 1)):
        box = many.use(number)
        many.server.holds = True
        end = many.client
        member = box._caprpc_shape.members
        put = next(m for key, m in member.items() if key[1] == "put")
        for _ in range(count):
            running.append((number, end.start(box._caprpc_import, put, (), {})))
            many.network.run()
    assert all(pending.question.outcome is None for _, pending in running)
    # The fifth of the principal, although its connection has one of three.
    assert refused(many.client.start(box._caprpc_import, put, (), {})) == "limit"
    many.use(0)
    many.server.holds = False
    many.network.run()
    many.use(1)
    assert many.client.start(box._caprpc_import, put, (), {}).question.outcome is None
    many.server.holds = False
    many.network.run()


def test_refusal_of_a_call_names_the_knob_in_the_audit_log(connections):
    many = connections("[limits]\nconnections = 2\nin_flight = 3\nprincipal_in_flight = 3\n")
    for number in (0, 1):
        box = many.use(number)
        many.server.holds = True
        put = next(m for key, m in box._caprpc_shape.members.items() if key[1] == "put")
        for _ in range(3):
            many.client.start(box._caprpc_import, put, (), {})
            many.network.run()
    many.network.close()
    text = "".join(path.read_text() for path in many.audit.rglob("*.jsonl"))
    assert '"reason":"principal_in_flight","rule":"limits.principal_in_flight"' in text


def test_exports_of_all_connections_together_at_their_edge(connections):
    many = connections("[limits]\nconnections = 2\nexports = 5\nprincipal_exports = 8\n")
    held = []
    # Of eight, two shares of two; four are for whoever needs more. The box itself is one of each connection's.
    for number, count in ((0, 4), (1, 2)):
        box = many.use(number)
        held += [box.item() for _ in range(count)]
    with pytest.raises(RemoteError) as caught:
        box.item()
    assert caught.value.code == "limit"
    del held[0]
    many.use(0)
    many.network.run()
    box = many.use(1)
    assert box.item().name() == "item"


def test_imports_of_all_connections_together_at_their_edge(connections):
    many = connections("[limits]\nconnections = 2\nimports = 3\nprincipal_imports = 4\n")
    for number, count in ((0, 3), (1, 1)):
        box = many.use(number)
        for _ in range(count):
            box.keep(ItemImpl())
    with pytest.raises(RemoteError) as caught:
        box.keep(ItemImpl())
    assert caught.value.code == "limit"
    del many.served.kept[0]
    many.use(0)
    many.network.run()
    many.use(1).keep(ItemImpl())


def test_connection_that_ends_gives_its_places_back(connections):
    many = connections("[limits]\nconnections = 3\nexports = 5\nprincipal_exports = 6\n")
    box = many.use(0)
    held = [box.item() for _ in range(3)]
    box = many.use(1)
    with pytest.raises(RemoteError):
        held.append(box.item())
    first = many.made[0].server
    first.take(first.link.abort("closed", "over"))
    assert box.item().name() == "item"


def test_share_of_a_connection_is_its_own_whatever_the_others_do(connections):
    many = connections("[limits]\nconnections = 2\nexports = 8\nprincipal_exports = 8\n")
    greedy = many.use(0)
    held = []
    with pytest.raises(RemoteError):
        while True:
            held.append(greedy.item())
    box = many.use(1)
    assert box.item().name() == "item"


def test_one_connection_may_have_what_its_own_limit_says():
    pools, tables = Pools(ArgumentBudget(1)), Holding(*(Table() for _ in range(5)), HeldArguments())
    limits = Limits(in_flight=1_000, principal_in_flight=1, principal_callbacks=1, principal_pipelined=1)
    pools.join(limits, 1, tables)
    assert pools.callbacks.most == pools.pipelined.most == 2_000
    assert pools.in_flight.most == 1_000
    tables[0].held = 999
    assert pools.in_flight.has_room(tables[0])
    tables[0].held = 1_000
    assert not pools.in_flight.has_room(tables[0])


def test_one_of_many_connections_has_its_share_and_what_is_left_and_is_told_so():
    # As docs/reference/limits.md says: of 512 one of eight gets 288; 512 and more of 1,024.
    for most, alone in ((512, 288), (1_024, 576)):
        pools, tables = Pools(ArgumentBudget(1)), Holding(*(Table() for _ in range(5)), HeldArguments())
        pools.join(Limits(in_flight=512, principal_in_flight=most), 8, tables)
        while pools.in_flight.has_room(tables[0]):
            tables[0].held += 1
        assert tables[0].held == alone
        said = pools.in_flight.text()
        assert f"of the {most} " in said
        assert f"each has {pools.in_flight.share} " in said
        assert f"the {alone - pools.in_flight.share} for those that need more are taken" in said


def test_default_is_less_than_all_connections_at_their_limits():
    for name in ("in_flight", "exports", "imports"):
        own, together = getattr(DEFAULT_LIMITS, name), getattr(DEFAULT_LIMITS, f"principal_{name}")
        assert own <= together < 8 * own
    for name in ("callbacks", "pipelined"):
        own, together = 2 * DEFAULT_LIMITS.in_flight, getattr(DEFAULT_LIMITS, f"principal_{name}")
        assert own <= together < 8 * own


@pytest.mark.parametrize(
    ("limits", "connections", "share"),
    [
        (DEFAULT_LIMITS, 8, 512 * 1024),
        (DEFAULT_LIMITS, 1, 1024 * 1024),
        (DEFAULT_LIMITS, 64, 64 * 1024),
        (DEFAULT_LIMITS, 10_000, 16 * 1024),
        (Limits(write_high_water_bytes=64 * 1024), 8, 64 * 1024),
        (Limits(write_high_water_bytes=16 * 1024 * 1024), 2, 8 * 1024 * 1024),
    ],
)
def test_buffers_are_divided_among_the_connections(limits, connections, share):
    assert buffer_share(limits, connections) == share


class Table:
    def __init__(self):
        self.held = 0

    def __len__(self):
        return self.held

    def belong(self, pool):
        self.pool = pool


def test_pool_is_never_overdrawn_by_threads_that_go_one_after_the_other():
    pool = Pool("principal_in_flight")
    tables = [Table() for _ in range(8)]
    for table in tables:
        pool.join(table, 64, 8)
    turn = threading.Lock()

    def take(table):
        for _ in range(64):
            with turn:
                if pool.has_room(table):
                    table.held += 1

    threads = [threading.Thread(target=take, args=(table,)) for table in tables]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(table.held for table in tables) == 64
    assert all(table.held >= pool.share for table in tables)
    pool.leave(tables[0])
    assert tables[0].pool is None
    assert "principal_in_flight" in pool.text()


def test_message_of_a_full_pool_names_a_knob_that_there_is():
    pools = Pools(ArgumentBudget(1))
    for pool in (
        pools.in_flight,
        pools.callbacks,
        pools.pipelined,
        pools.exports,
        pools.imports,
        pools.arguments,
    ):
        assert pool.knob in Limits.__dataclass_fields__
        assert pool.text().endswith(f": raise limits.{pool.knob}")


def test_many_allowed_connections_take_nothing_from_the_one_that_is_there():
    class Calls(list):
        def belong(self, pool):
            self.pool = pool

    pool, calls, others = Pool("principal_in_flight"), Calls(), Calls()
    pool.join(calls, 256, 5_000)
    calls.extend(range(128))
    assert pool.has_room(calls)
    calls.append(128)
    assert not pool.has_room(calls)
    pool.join(others, 256, 5_000)
    assert pool.has_room(others)
