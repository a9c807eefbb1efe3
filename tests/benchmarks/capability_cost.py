"""What capabilities cost: ``python tests/benchmarks/capability_cost.py [--rounds 7] [--calls 200]``, both drivers.

Four processes of one driver: an owner, two gateways one behind the other, and the client, which measures. Each round
runs every case, in an order that rotates, after as many operations that are not counted. Printed is for each case and
driver the median over the rounds: microseconds of wall time of one operation, microseconds of CPU of all processes
together, and the wall time beside that of the plain call of the same round.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import caprpc
import caprpc.aio
from caprpc import Interface, method
from caprpc.testing import Deployment

DRIVERS = ("blocking", "aio")
DERIVED = (1, 100, 10_000)
DEEP = 3
IN_VAIN = 5
"""Restores in vain in each round: a hundred of one principal, and one more a second, are what a server lets pass."""
CHUNK = 250
"""References in one answer: fewer than ``limits.message_references``."""
_CPUCLOCK_SCHED = 2


class Item(Interface):
    @method(effect="read")
    def count(self) -> int: ...


class Desk(Interface):
    @method(effect="read")
    def item(self, depth: int) -> Item: ...

    @method(effect="read")
    def take(self, function: Callable[[int], int]) -> int: ...

    @method(effect="write")
    def grant(self) -> str: ...

    @method(effect="write")
    def grant_ended(self, way: str) -> str: ...

    @method(effect="read")
    def derive(self, count: int) -> list[Item]: ...

    @method(effect="read")
    def derive_others(self, count: int) -> list[Item]: ...

    @method(effect="admin")
    def revoke_derived(self) -> tuple[float, float]: ...

    @method(effect="admin")
    def revoke_others(self) -> tuple[float, float]: ...


class Gate(Interface):
    @method(effect="read")
    def item(self) -> Item: ...


class ItemOfDesk(Item):
    def count(self):
        return 1


class DeskOfOwner(Desk):
    def __init__(self):
        self.server = None
        self.given = ItemOfDesk()
        self.above = None
        self.others = None

    def item(self, depth):
        handle = self.given
        for _ in range(depth):
            handle = caprpc.attenuate(handle, only=["count"])
        return handle

    def take(self, function):
        return 1

    async def grant(self):
        return await self.granted(3600)

    async def granted(self, for_s):
        return await _value(self.server.grant("item", key="1", to=PRINCIPAL.format("client"), for_s=for_s))

    async def grant_ended(self, way):
        uri = await self.granted(3600 if way == "revoked" else 1e-6)
        if way == "revoked":
            latest = max(await _value(self.server.list_grants()), key=lambda grant: grant.granted_at)
            await _value(self.server.revoke_grant(latest.grant_id))
        return uri

    def derive(self, count):
        if self.above is None:
            self.above = caprpc.attenuate(self.given, only=["count"])
        return [caprpc.attenuate(self.above, only=["count"]) for _ in range(count)]

    def derive_others(self, count):
        if self.others is None:
            self.others = caprpc.attenuate(self.given, only=["count"])
        return [caprpc.attenuate(self.others, only=["count"]) for _ in range(count)]

    def revoke_derived(self):
        above, self.above = self.above, None
        return self.revoked(above)

    def revoke_others(self):
        others, self.others = self.others, None
        return self.revoked(others)

    def revoked(self, above):
        wall, cpu = time.perf_counter(), time.process_time()
        caprpc.revoke(above)
        return time.perf_counter() - wall, time.process_time() - cpu

    def restored(self, key: str) -> Item:
        return self.given


class GateOfOther(Gate):
    def __init__(self, held):
        self.held = held

    def item(self):
        return self.held


PRINCIPAL = "spiffe://test.example/{}"
PEER = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{}"]\n'
ITEM = '[offer.Item]\ninterface = "Item"\ncall = ["count"]\n'
ACCEPT = '[accept.Item]\ncall = ["count"]\n'
CALLS = 'call = ["item", "take", "grant", "grant_ended", "derive", "derive_others", '
CALLS += '"revoke_derived", "revoke_others"]\n'
ROOM = "[limits]\nexports = 16_384\nimports = 16_384\nprincipal_exports = 32_768\nprincipal_imports = 32_768\n"
OF_DESK = f'[roots]\ndesk = "Desk"\n[offer.Desk]\ninterface = "Desk"\n{CALLS}'
OF_DESK += '[offer.Desk.returns]\nitem = "Item"\nderive = "Item"\nderive_others = "Item"\n'
OF_DESK += f'[restore.item]\nas = "Item"\n{ROOM}'
OF_GATE = (
    '[roots]\ngate = "Gate"\n[offer.Gate]\ninterface = "Gate"\ncall = ["item"]\n[offer.Gate.returns]\nitem = "Item"\n'
)
LEND = '[[lend]]\nto = "Desk.take"\nparam = "function"\nas = "Fn"\nlifetime = "{}"\n'
LEND += '[offer.Fn]\ninterface = "Callable"\ninvoke = true\n'


def forwards(source):
    return f'forward_from = ["{PRINCIPAL.format(source)}"]\n'


def deploy(directory):
    """Make the directories of all four."""
    made = Deployment(directory)
    callable_ = "[accept.Callable]\ninvoke = true\n"
    desk, gate = f"[accept.Desk]\n{CALLS}{ACCEPT}", f'[accept.Gate]\ncall = ["item"]\n{ACCEPT}'
    at_owner = {
        "client": PEER.format("client") + OF_DESK + ITEM + callable_,
        "gate1": PEER.format("gate1") + OF_DESK + ITEM + "forward = true\n" + callable_,
    }
    at_gate1 = {
        "owner": PEER.format("owner") + desk,
        "client": PEER.format("client") + OF_GATE + ITEM + forwards("owner"),
        "gate2": PEER.format("gate2") + OF_GATE + ITEM + "forward = true\n" + forwards("owner"),
    }
    at_gate2 = {
        "gate1": PEER.format("gate1") + gate,
        "client": PEER.format("client") + OF_GATE + ITEM + forwards("gate1"),
    }
    at_client = {"owner": PEER.format("owner") + desk + LEND.format("call") + ROOM}
    at_client |= {name: PEER.format(name) + gate for name in ("gate1", "gate2")}
    policies = {"owner": at_owner, "gate1": at_gate1, "gate2": at_gate2, "client": at_client}
    return {name: made.side(name, given, [Desk, Gate]) for name, given in policies.items()}


async def serve(role, driver, identity, policies, audit, store, upstream):
    """Serve one role until standard input ends; the line printed is the address."""
    options = {"identity": identity, "policies": policies, "audit": audit}
    module = caprpc if driver == "blocking" else caprpc.aio
    async with contextlib.AsyncExitStack() as stack:
        if role == "owner":
            root = DeskOfOwner()
            kept = caprpc.Grants(store, restorers={"item": root.restored})
            root.server = server = module.Server({"desk": root}, grants=kept, **options)
        else:
            peer = module.connect(upstream, **(options | {"audit": f"{audit}-of-client"}))
            peer = await _entered(stack, peer)
            if role == "gate1":
                held = (await _value(peer.root("desk", Desk))).item(0)
            else:
                held = (await _value(peer.root("gate", Gate))).item()
            server = module.Server({"gate": GateOfOther(await _value(held))}, **options)
        print(server.listen("127.0.0.1:0"), flush=True)
        await _entered(stack, server)
        if driver == "blocking":
            sys.stdin.read()
        else:
            await asyncio.to_thread(sys.stdin.read)


async def _entered(stack, context):
    """Enter what either driver gives."""
    if hasattr(context, "__aenter__"):
        return await stack.enter_async_context(context)
    return stack.enter_context(context)


async def _value(result):
    """Return what either driver gives."""
    return await result if hasattr(result, "__await__") else result


def double(number):
    return 2 * number


class Cases:
    """Every case of one driver as a function that does it once; what it gives may be awaitable."""

    def __init__(self, driver, calls):
        self.lib = caprpc if driver == "blocking" else caprpc.aio
        self.calls = calls
        self.run = {}
        self.times = {}
        """How often a case runs in a round, for those that are not cheap."""

    async def prepare(self, peer, desk, items):
        """Take a connection to the owner, its desk, and the items that are called by name."""
        lib = self.lib
        self.run = {name: item.count for name, item in items.items()}
        plain = items["plain call"]
        self.run |= {"with a deadline": lambda: self.in_time(plain), "describe": lambda: caprpc.describe(plain)}
        self.run["attenuate, at its exporter"] = lambda: lib.attenuate(plain, only=["count"])
        self.run["lend their object, for a block"] = lambda: self.lent(plain)
        self.run["lend our object, for a block"] = lambda: self.lent(double)
        self.run["call with a function"] = lambda: desk.take(double)
        self.run["the same, lent for a block"] = lambda: self.lent_to(desk)
        self.run["grant"] = desk.grant
        uri, *ended = [await _value(made) for made in (desk.grant(), *map(desk.grant_ended, ("expired", "revoked")))]
        self.run["restore"] = lambda: peer.restore(uri, Item)
        for way, text in zip(("expired", "revoked"), ended, strict=True):
            name = f"restore, {way}"
            self.run[name] = lambda text=text: self.in_vain(peer, text)
            self.times[name] = min(self.calls, IN_VAIN)

    def in_time(self, item):
        with self.lib.deadline(5.0):
            return item.count()

    def lent(self, obj):
        if self.lib is caprpc:
            with caprpc.lend(obj):
                return None
        return self.lent_on_loop(obj)

    async def lent_on_loop(self, obj):
        async with caprpc.aio.lend(obj):
            pass

    def lent_to(self, desk):
        if self.lib is caprpc:
            with caprpc.lend(double) as handle:
                return desk.take(handle)
        return self.lent_to_on_loop(desk)

    async def lent_to_on_loop(self, desk):
        async with caprpc.aio.lend(double) as handle:
            return await desk.take(handle)

    def in_vain(self, peer, uri):
        if self.lib is not caprpc:
            return self.in_vain_on_loop(peer, uri)
        with contextlib.suppress(caprpc.Denied):
            peer.restore(uri, Item)
            raise AssertionError("restored")
        return None

    async def in_vain_on_loop(self, peer, uri):
        with contextlib.suppress(caprpc.Denied):
            await peer.restore(uri, Item)
            raise AssertionError("restored")


class Meter:
    """Wall and CPU time of every process of a run, in seconds."""

    def __init__(self, pids):
        self._clocks = [(~pid << 3) | _CPUCLOCK_SCHED for pid in pids]

    def now(self):
        return time.perf_counter(), time.process_time() + sum(map(time.clock_gettime, self._clocks))

    async def each(self, operation, times, first):
        """Return microseconds of wall and of CPU of one operation, of ``times`` in a row after ``first`` others."""
        for count in (first, times):
            wall, cpu = self.now()
            for _ in range(count):
                result = operation()
                if hasattr(result, "__await__"):
                    await result
        then_wall, then_cpu = self.now()
        return 1e6 * (then_wall - wall) / times, 1e6 * (then_cpu - cpu) / times


async def revocations(desk, found, derived):
    """Have references derived and handed out, then revoked at once; the owner takes the time.

    Once also one of them while as many others as there are at most are out on the same connection.
    """

    async def once(name, revoke):
        wall, cpu = await _value(revoke())
        found.setdefault(name, []).append((1e6 * wall, 1e6 * cpu))

    for count in derived:
        held = await derive(desk.derive, count)
        await once(f"revoke {count:,} derived", desk.revoke_derived)
    most = max(derived)
    held = await derive(desk.derive_others, most)
    held += await derive(desk.derive, 1)
    await once(f"revoke 1 derived, {most:,} others out", desk.revoke_derived)
    await _value(desk.revoke_others())


async def derive(member, count):
    """Return so many references, each derived by itself."""
    held = []
    for start in range(0, count, CHUNK):
        held += await _value(member(min(CHUNK, count - start)))
    return held


async def measure(driver, sides, urls, pids, options):
    """Return wall and CPU of every case by round."""
    lib = caprpc if driver == "blocking" else caprpc.aio
    meter = Meter(pids)
    async with contextlib.AsyncExitStack() as stack:
        client = await _entered(stack, lib.Client(**sides["client"].directories))
        peers = [await _entered(stack, client.connect(url)) for url in urls]
        desk = await _value(peers[0].root("desk", Desk))
        items = {"plain call": await _value(desk.item(0))}
        for depth in (1, DEEP):
            items[f"attenuated by its owner, depth {depth}"] = await _value(desk.item(depth))
        held = items["plain call"]
        for depth in range(1, DEEP + 1):
            held = items[f"attenuated by its holder, depth {depth}"] = await _value(lib.attenuate(held, only=["count"]))
        del items["attenuated by its holder, depth 2"]
        for hops, peer in enumerate(peers[1:], 1):
            items[f"forwarded, hops: {hops}"] = await _value((await _value(peer.root("gate", Gate))).item())
        uri = await _value(desk.grant())
        items["restored"] = await _value(peers[0].restore(uri, Item))
        cases = Cases(driver, options.calls)
        await cases.prepare(peers[0], desk, items)
        names = [name for name in cases.run if not options.only or name in options.only or name == "plain call"]
        found = {name: [] for name in names}
        for number in range(options.rounds):
            start = number * len(names) // options.rounds
            for name in names[start:] + names[:start]:
                times = cases.times.get(name, options.calls)
                found[name].append(await meter.each(cases.run[name], times, times if times > IN_VAIN else 0))
            if not options.only or "revoke" in options.only:
                await revocations(desk, found, options.derived)
    return found


def run(driver, options, directory):
    """Start the three servers, measure, and end them."""
    sides = deploy(directory / driver)
    (directory / driver / "store").mkdir(mode=0o700)
    urls, processes = [], []
    with contextlib.ExitStack() as stack:
        for role in ("owner", "gate1", "gate2"):
            side, place = sides[role], directory / driver
            command = [sys.executable, str(Path(__file__).resolve()), "--serve", role, driver]
            command += map(str, (side.identity, side.policies, side.audit, place / "store" / "grants.db"))
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            process = stack.enter_context(subprocess.Popen([*command, urls[-1] if urls else ""], **pipes))
            stack.callback(process.stdin.close)
            processes.append(process)
            urls.append(process.stdout.readline().strip())
        return asyncio.run(measure(driver, sides, urls, [process.pid for process in processes], options))


def table(found):
    """Return the lines of a Markdown table; every case of every driver, medians over the rounds."""
    yield "| | " + " | ".join(f"{driver}, wall µs | CPU µs | beside a plain call" for driver in found) + " |"
    yield "|---|" + "---|" * (3 * len(found))
    for name in next(iter(found.values())):
        cells = []
        for rounds in found.values():
            plain = [wall for wall, _ in rounds["plain call"]]
            ratios = [wall / beside for (wall, _), beside in zip(rounds[name], plain, strict=True)]
            wall, cpu = (statistics.median(column) for column in zip(*rounds[name], strict=True))
            cells += [
                f"{wall:,.1f}",
                f"{cpu:,.1f}",
                "" if name.startswith("revoke") else f"{statistics.median(ratios):.2f}",
            ]
        yield f"| {name} | " + " | ".join(cells) + " |"


def main():
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(*sys.argv[2:]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--only", default="", help="names of cases, semicolons between them; revoke: those that revoke")
    parser.add_argument("--drivers", default=",".join(DRIVERS))
    parser.add_argument(
        "--derived", default=",".join(map(str, DERIVED)), help="how many references are revoked at once"
    )
    options = parser.parse_args()
    options.derived = [int(count) for count in options.derived.split(",")]
    options.only = [name.strip() for name in options.only.split(";") if name.strip()]
    with tempfile.TemporaryDirectory() as directory:
        found = {driver: run(driver, options, Path(directory)) for driver in options.drivers.split(",")}
    print(f"median of {options.rounds} rounds of {options.calls} operations; {os.cpu_count()} cores\n")
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
