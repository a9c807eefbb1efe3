"""Connections that come and go: what is kept of them, and what coming back gives. CAP-RE."""

from caprpc.ids import OP_ROOT
from caprpc.wire import messages as m


def test_coming_back_does_not_refill_the_budget_for_useless_things(world, driver):
    """Each connection has a budget of its own; all of a principal together have no more than as many as it may have."""
    limits = "connections = 2\nglitch_burst = 20\nglitch_per_s = 0.1"
    running = world.serve(driver, connection=limits)
    refused = []
    for _ in range(8):
        peer = world.open(running)
        peer.try_to_send(*[peer.call(0, "absent", operation=OP_ROOT) for _ in range(30)])
        refused.append(sum(isinstance(message, m.Raise) for message in peer.rest()))
        peer.close()
    assert refused[:2] == [20, 20]
    assert sum(refused[2:]) <= 3, refused
    served = world.open(running, "alice")
    assert isinstance(served.ask(0, "absent", operation=OP_ROOT), m.Raise)
    assert running.denials() <= 45


def resident_kib():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError


def tables(running):
    """Return how many connections, threads, descriptors and tasks of this process there are."""
    gc.collect()
    return running.server.health().connections, threading.active_count(), len(os.listdir("/proc/self/fd"))


def test_connections_that_come_call_and_go_leave_nothing(world, driver):
    """Half of them are cut off in the middle of a call."""
    running = world.serve(driver)
    world.service.gate.set()

    def cycle(count):
        for number in range(count):
            peer = world.open(running)
            vault = peer.root()
            if number % 2:
                assert isinstance(peer.ask(vault, "slips", [3]), m.Return)
                peer.send(m.GoAway("closed", "", ""))
            else:
                peer.send(peer.call(vault, "wait"), peer.call(vault, "slip"))
                peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            world.forget(peer)

    def settled():
        end = time.monotonic() + 5
        while running.server.health().connections and time.monotonic() < end:
            time.sleep(0.02)
        return tables(running)

    cycle(30)
    before, size = settled(), resident_kib()
    cycle(CYCLES)
    assert settled() == before
    # The catalogue asks for 1 % over 100,000 cycles; a few pages come and go with anything.
    assert resident_kib() <= size * 1.01 + 2_048


ClientHello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(507)


def test_a_flood_of_handshakes_that_are_cut_off_keeps_nobody_else_waiting(world, driver):
    """An established peer is served, and a new one is let in, while another opens and resets as fast as it can."""
    running = world.serve(driver, limits=ServerLimits())
    good = world.open(running, "alice")
    vault = good.root()
    over, opened, waits = threading.Event(), [0], []

    def flood():
        while not over.is_set():
            with suppress(OSError):
                sock = connect_socket(running.address)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.send(ClientHello)
                sock.close()
                opened[0] += 1

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        end = time.monotonic() + FLOOD_S
        while time.monotonic() < end:
            begun = time.monotonic()
            assert good.value(vault, "add", [1, 2]) == 3
            waits.append(time.monotonic() - begun)
        begun = time.monotonic()
        late = world.open(running, "mallory")
        assert late.value(late.root(), "add", [1, 2]) == 3
        assert time.monotonic() - begun < 5.0
    finally:
        over.set()
        thread.join()
    assert opened[0] > 100
    # Time is measured by tests/benchmarks/flood_beside.py; here nobody starves, whatever else the machine does.
    assert max(waits) < 1.0
    assert running.server.health().connections <= 2


REFUSED = {
    "an absent member": lambda peer, vault: peer.call(vault, "absent"),
    "a forbidden member": lambda peer, vault: peer.call(vault, "hidden"),
    "an absent reference": lambda peer, vault: peer.call(999, "noop"),
    "an absent root": lambda peer, vault: peer.call(0, "absent", operation=OP_ROOT),
    "a wrong argument": lambda peer, vault: peer.call(vault, "add", ["x"]),
    "an argument over its bound": lambda peer, vault: peer.call(vault, "pay", [1e9]),
    "a sturdy reference": lambda peer, vault: peer.call(0, "vault", ["x" * 40], operation=OP_RESTORE),
    "a batch": lambda peer, vault: m.Batch(peer.next_question(), None, [m.Run(vault, 1, "absent", 8, NOTHINGS)]),
    "a failing method": lambda peer, vault: peer.call(vault, "fail", ["value"]),
    "a late cancel": lambda peer, vault: m.Cancel(1),
    "a ping": lambda peer, vault: m.Ping(1),
    "a revocation of nothing": lambda peer, vault: m.Revoked([77]),
}
NOTHINGS = pack([[[], {}]] * 8)


def test_no_refusal_is_more_than_three_times_as_long_as_what_it_refuses(world, driver):
    """On the wire, TLS included; RE-22 in bytes. A batch is the worst: one run names many calls."""
    running = world.serve(driver, connection="glitch_burst = 10000")
    ratios = {}
    for name, make in REFUSED.items():
        peer = world.open(running)
        vault = peer.root()
        sent = received = 0
        for _ in range(20):
            message = make(peer, vault)
            heard = len(peer.heard)
            peer.send(message)
            sent += len(encode_message(message)) + TLS_BYTES
            if isinstance(message, m.Call | m.Batch):
                assert peer.answer(message.question) is not None
            received += len(peer.heard) - heard + (TLS_BYTES if len(peer.heard) > heard else 0)
        ratios[name] = received / sent
    assert {name: round(ratio, 2) for name, ratio in ratios.items() if ratio > 3.0} == {}


def test_clients_that_wait_for_a_server_are_all_served_after_its_restart(world, driver):
    """They come back at times of their own, within the budget of accepts."""
    count = int(12 * SCALE)
    running = world.serve(driver, limits=ServerLimits(accept_per_s=40.0, accept_burst=4, connections_per_principal=1000))
    names = [f"waiting-{number}" for number in range(count)]
    address = running.address
    running.stop()
    world.allow(names)
    plan = caprpc.Reconnect(first_s=0.05, most_s=1.0)
    with ExitStack() as opened:
        running = world.serve_again(driver, address, names)
        peers = [
            opened.enter_context(caprpc.connect(address, **world.side(name).directories, reconnect=plan))
            for name in names
        ]
        vaults = [peer.root("vault", Vault) for peer in peers]
        running.stop()
        running = world.serve_again(driver, address, names)
        begun = time.monotonic()
        waiting = list(vaults)
        while waiting and time.monotonic() - begun < 60:
            waiting = [vault for vault in waiting if not _served(vault)]
        assert waiting == []
        vaults.clear()
