"""The service under attack, its policies, and real servers of both drivers that serve it."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import caprpc
import caprpc.aio
from caprpc import Interface, attribute, method
from caprpc.audit import Selection, select, verify
from caprpc.limits import ServerLimits

CANARY = "canary-7f31c0de-secret"
"""Stands in globals, private attributes, exceptions and locals of the service; no byte of it may reach a peer."""

SCALE = float(os.environ.get("CAPRPC_ATTACK_SCALE", "1"))
GATE_S = 20.0 * max(1.0, SCALE)
"""How long methods wait that a test lets go on."""
"""How much more to do in attacks whose measure takes minutes or hours; 1 is what every run can bear."""

QUICK = ServerLimits(accept_per_s=100_000.0, accept_burst=10_000, connections_per_principal=1_000)


class Shortage(Exception):
    """The one error that the vault declares."""


class Slip(Interface):
    @method(effect="read")
    def text(self) -> str: ...


class Parcel(Interface):
    @method(effect="read")
    def weight(self) -> int: ...


class Vault(Interface):
    label: str = attribute(writable=True)
    balance: int = attribute()

    @method(effect="read")
    def noop(self) -> None: ...

    @method(effect="read")
    def echo(self, value: Any) -> Any: ...

    @method(effect="read")
    def add(self, a: int, b: int = 0) -> int: ...

    @method(effect="write")
    def pay(self, amount: float, note: str = "") -> str: ...

    @method(effect="write")
    def tick(self, on: bool, names: list[str], table: dict[str, int]) -> None: ...

    @method(effect="read")
    def slip(self) -> Slip: ...

    @method(effect="read")
    def slips(self, count: int) -> list[Slip]: ...

    @method(effect="read")
    def parcel(self) -> Parcel: ...

    @method(effect="write")
    def take(self, slip: Slip) -> str: ...

    @method(effect="write")
    def keep(self, function: Callable[[int], int]) -> None: ...

    @method(effect="write")
    def call_kept(self) -> int: ...

    @method(effect="read")
    def call_back(self, function: Callable[[int], int]) -> int: ...

    @method(effect="read", errors=(Shortage,))
    def fail(self, kind: str) -> None: ...

    @method(effect="read")
    def leak(self, kind: str) -> Any: ...

    @method(effect="read")
    def numbers(self, count: int) -> Iterator[int]: ...

    @method(effect="read")
    def door(self) -> AbstractContextManager[int]: ...

    @method(effect="read")
    def blob(self, size: int) -> bytes: ...

    @method(effect="read", blocking=True)
    def wait(self) -> None: ...

    @method(effect="write", blocking=True)
    def hold(self, value: Any) -> None: ...

    @method(effect="read")
    def nap(self, ms: int) -> None: ...

    @method(effect="read")
    def caller(self) -> str: ...

    @method(effect="write")
    def hidden(self) -> None: ...


class PaperSlip(Slip):
    def text(self):
        return "slip"


class HeavyParcel(Parcel):
    def weight(self):
        return 7


class Plain:
    """An object of no interface."""

    def __init__(self):
        self.secret = CANARY


class Safe(Vault):
    """The vault. ``ran`` holds the name of every body that was executed."""

    def __init__(self):
        self._private = CANARY
        self.__mangled = CANARY
        self.ran = []
        self.gate = threading.Event()
        self.kept = None
        self.running = 0
        self.most_running = 0
        self.holds = 0
        self._lock = threading.Lock()
        self._label = "vault"

    @property
    def label(self):
        return self._label

    @label.setter
    def label(self, value):
        self.ran.append("label=")
        self._label = value

    @property
    def balance(self):
        self.ran.append("balance")
        return 42

    @property
    def trap(self):
        self.ran.append("trap")
        return CANARY

    def public_but_undeclared(self):
        self.ran.append("public_but_undeclared")
        return CANARY

    @classmethod
    def made(cls):
        return cls()

    @staticmethod
    def helper():
        return CANARY

    def noop(self):
        self.ran.append("noop")

    def echo(self, value):
        self.ran.append("echo")
        return value

    def add(self, a, b=0, **internal):
        self.ran.append("add")
        return a + b

    def pay(self, amount, note=""):
        self.ran.append("pay")
        return "paid"

    def tick(self, on, names, table):
        self.ran.append("tick")

    def slip(self):
        return PaperSlip()

    def slips(self, count):
        return [PaperSlip() for _ in range(count)]

    def parcel(self):
        return HeavyParcel()

    def take(self, slip):
        self.ran.append("take")
        return "taken"

    def keep(self, function):
        self.kept = function

    def call_kept(self):
        return self.kept(1)

    def call_back(self, function):
        self.ran.append("call_back")
        result = function(1)
        self.ran.append(("got", result))
        return result

    def fail(self, kind):
        secret = CANARY
        if kind == "declared":
            raise Shortage("out of stock", Plain())
        if kind == "chained":
            try:
                raise KeyError(secret)
            except KeyError as exc:
                error = RuntimeError(secret, Plain(), self)
                error.add_note(secret)
                raise error from exc
        if kind == "group":
            raise ExceptionGroup(secret, [ValueError(secret), OSError(2, secret, "/etc/shadow")])
        if kind == "exit":
            raise SystemExit(secret)
        if kind == "generator":
            raise StopIteration(secret)
        raise {"value": ValueError, "os": OSError, "recursion": RecursionError}[kind](secret)

    def leak(self, kind):
        made = {
            "object": Plain,
            "class": lambda: Plain,
            "self": lambda: self,
            "module": lambda: threading,
            "list": lambda: [1, Plain()],
            "dict": lambda: {"deep": {"deeper": [Plain()]}},
            "function": lambda: self.public_but_undeclared,
            "lambda": lambda: lambda: CANARY,
            "generator": lambda: (secret for secret in [CANARY]),
            "exception": lambda: ValueError(CANARY),
            "slip": PaperSlip,
            "cycle": _cycle,
            "deep": _deep,
            "surrogate": lambda: "\ud800",
            "huge": lambda: 1 << 5000,
        }
        return made[kind]()

    def numbers(self, count):
        return iter(range(count))

    @contextmanager
    def door(self):
        self.ran.append("enter")
        try:
            yield 1
        finally:
            self.ran.append("exit")

    def blob(self, size):
        return bytes(size)

    def wait(self):
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        self.ran.append("wait")
        self.gate.wait(GATE_S)
        with self._lock:
            self.running -= 1

    def hold(self, value):
        with self._lock:
            self.holds += 1
        self.gate.wait(GATE_S)

    def nap(self, ms):
        time.sleep(ms / 1000)

    def caller(self):
        return caprpc.current().principal

    def hidden(self):
        self.ran.append("hidden")


def _cycle():
    loop = []
    loop.append(loop)
    return loop


def _deep():
    value = []
    for _ in range(200):
        value = [value]
    return value


GRANTED = [
    *("noop", "echo", "add", "pay", "tick", "slip", "slips", "take", "keep", "call_kept", "call_back", "fail", "leak"),
    *("numbers", "door", "blob", "wait", "hold", "nap", "caller"),
]
_CALLS = ", ".join(f'"{name}"' for name in GRANTED)

SERVER = f"""
[peer]
ca = ["@CA@"]
spiffe = [@WHO@]
[roots]
vault = "Limited"
@ROOTS@
[offer.Limited]
interface = "Vault"
call = [{_CALLS}]
get = ["label"]
[offer.Limited.args.pay]
amount = {{ min = 0.01, max = 100 }}
[offer.Limited.returns]
slip = "SlipOnly"
slips = "SlipOnly"
numbers = "Numbers"
door = "Door"
[offer.SlipOnly]
interface = "Slip"
call = ["text"]
[offer.Numbers]
interface = "Iterator"
iterate = true
[offer.Door]
interface = "ContextManager"
context = true
[accept.Slip]
call = ["text"]
[accept.Callable]
invoke = true
"""

CLIENT = f"""
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Vault]
call = [{_CALLS}, "hidden", "parcel"]
get = ["label", "balance"]
set = ["label"]
[accept.Slip]
call = ["text"]
[accept.Iterator]
iterate = true
[accept.ContextManager]
context = true
[offer.InvokeOnly]
interface = "Callable"
invoke = true
[[lend]]
to = "Vault.call_back"
param = "function"
as = "InvokeOnly"
lifetime = "call"
[[lend]]
to = "Vault.keep"
param = "function"
as = "InvokeOnly"
lifetime = "call"
"""

INTERFACES = [Vault, Slip, Parcel]


class Running:
    """A server of one driver, in this process; the asyncio one on a loop of its own thread."""

    def __init__(self, driver, roots, side, limits=QUICK, *, listen="127.0.0.1:0", **options):
        self.driver = driver
        self.side = side
        self._loop = None
        self._stopped = False
        if driver == "blocking":
            self.server = caprpc.Server(roots, **side.directories, limits=limits, **options)
            try:
                self.address = self.server.listen(listen)
            except BaseException:
                self.server.stop(0)
                raise
            self.server.start()
            return
        ready = threading.Event()
        self._failure = None
        self._thread = threading.Thread(
            target=self._run_loop, args=(roots, limits, listen, ready, options), name="aio-server"
        )
        self._thread.start()
        ready.wait(10)
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def _run_loop(self, roots, limits, listen, ready, options):
        async def main():
            self._loop = asyncio.get_running_loop()
            self._end = asyncio.Event()
            self._grace_s = 5.0
            try:
                self.server = caprpc.aio.Server(roots, **self.side.directories, limits=limits, **options)
                try:
                    self.address = self.server.listen(listen)
                    await self.server.start()
                    ready.set()
                    await self._end.wait()
                finally:
                    await self.server.stop(self._grace_s)
            except BaseException as exc:
                self._failure = exc
                raise
            finally:
                ready.set()

        try:
            asyncio.run(main())
        except BaseException as exc:
            self._failure = exc

    def stop(self, grace_s=0.2):
        if self._stopped:
            return
        self._stopped = True
        if self._loop is None:
            self.server.stop(grace_s)
            return

        def end():
            self._grace_s = grace_s
            self._end.set()

        self._loop.call_soon_threadsafe(end)
        self._thread.join(20)
        if self._failure is not None:
            raise self._failure

    def reload(self):
        if self._loop is None:
            return self.server.reload()

        async def reload():
            return self.server.reload()

        return asyncio.run_coroutine_threadsafe(reload(), self._loop).result(10)

    def denials(self):
        """Stop, and return how many refusals of calls are on record, aggregates counted; the log is intact."""
        self.stop()
        assert verify(self.side.audit).intact
        total = 0
        for entry in select(self.side.audit, Selection(decision="deny")):
            fields = entry.record.fields
            total += fields["count"] if "count" in fields else 1
        return total

    def records(self, **selection):
        """Stop, and return the fields of the records of a kind."""
        self.stop()
        assert verify(self.side.audit).intact
        return [entry.record.fields for entry in select(self.side.audit, Selection(**selection))]
