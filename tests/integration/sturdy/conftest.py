"""A bank that grants accounts for longer than a connection, and its partners."""

import asyncio

import pytest

import caprpc
from caprpc import Grants, Interface, method
from caprpc.testing.deployment import Deployment
from tests.integration.conftest import PAIRINGS, WAIT_S, Pairing, nothing_left


class Entry(Interface):
    @method(effect="read")
    def text(self) -> str: ...


class Account(Interface):
    @method(effect="read")
    def number(self) -> str: ...

    @method(effect="write")
    def deposit(self, amount: int) -> int: ...

    @method(effect="read")
    def last(self) -> Entry: ...

    @method(effect="read")
    def close(self) -> None: ...


class Bank(Interface):
    @method(effect="read")
    def name(self) -> str: ...

    @method(effect="write")
    def keep(self, number: str) -> str: ...


class EntryImpl(Entry):
    def text(self):
        return "opened"


class AccountImpl(Account):
    def __init__(self, number):
        self._number = number
        self.balance = 0
        self.entry = EntryImpl()

    def number(self):
        return self._number

    def deposit(self, amount):
        self.balance += amount
        return self.balance

    def last(self):
        return self.entry

    def close(self):
        raise AssertionError("was granted to nobody")


class BankImpl(Bank):
    def __init__(self):
        self.accounts = {number: AccountImpl(number) for number in ("41", "42")}
        self.restored = []

    def name(self):
        return "bank"

    def keep(self, number):
        return caprpc.grant("account", key=number, for_s=60.0)

    def account(self, key: str) -> Account:
        self.restored.append(key)
        return self.accounts[key]


PEER = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{}"]\n'
OFFERS = """
[roots]
bank = "Bank"
[offer.Bank]
interface = "Bank"
call = ["name", "keep"]
[offer.Account]
interface = "Account"
call = ["number", "deposit", "last"]
[offer.Account.returns]
last = "Entry"
[offer.Entry]
interface = "Entry"
call = ["text"]
"""
RESTORE = '[restore.account]\nas = "Account"\n[restore.bank]\nas = "Bank"\n'
CLIENT = """
[accept.Bank]
call = ["name", "keep"]
[accept.Account]
call = ["number", "deposit", "last", "close"]
[accept.Entry]
call = ["text"]
"""
PARTNERS = ("alice", "bob", "mallory")


class Town:
    """The directories of the bank and of its partners; mallory may restore nothing."""

    def __init__(self, root):
        self.deployment = Deployment(root)
        self.interfaces = [Bank, Account, Entry]
        policies = {name: self.policy(name) for name in PARTNERS}
        self.server = self.deployment.side("server", policies, self.interfaces)
        self.clients = {
            name: self.deployment.side(name, {"server": PEER.format("server") + CLIENT}, self.interfaces)
            for name in PARTNERS
        }
        self.version = 1

    def policy(self, name, restore=RESTORE, offers=OFFERS):
        return PEER.format(name) + offers + ("" if name == "mallory" else restore)

    def rewrite(self, **restore):
        """Give partners other tables of what they may restore."""
        self.version += 1
        policies = {name: self.policy(name, restore.get(name, RESTORE)) for name in PARTNERS}
        self.deployment.rewrite(self.server, policies, self.version)


class Branch(Pairing):
    """One server with grants and one client."""

    def __init__(self, server_kind, client_kind, town, directory):
        super().__init__(server_kind, client_kind, town, directory, BankImpl)
        self.town = town
        self.state = directory / "state"
        self.state.mkdir(mode=0o700)
        self.path = self.state / "grants.db"

    def open(self):
        """Start the server; a second time is a restart, at the same address."""
        where = {}
        if self.host is not None:
            self.host.stop(0.0)
            where = {"address": self.host.address.removeprefix("caprpc://")}
        grants = Grants(self.path, restorers={"account": self.service.account})
        return self.serve({"bank": self.service}, grants=grants, **where)

    def ask(self, method, *args, **kwargs):
        """Call one of the server's own methods that grant, on its loop if it has one."""
        result = getattr(self.host.server, method)(*args, **kwargs)
        if self.server_kind == "blocking":
            return result
        return asyncio.run_coroutine_threadsafe(result, self.host._loop).result(WAIT_S)

    def grant(self, to="alice", target="account", **options):
        options = {"key": "42", **options} if target == "account" else options
        holder = {"to": f"spiffe://test.example/{to}"} if to else {}
        return self.ask("grant", target, **holder, **options)

    def grants(self):
        return self.ask("list_grants")

    def restored(self, uri, side="alice", interface=Account):
        """Restore over a connection of its own and use the account; return what it says."""

        async def scenario(face):
            return await face((await face(face.peer.restore(uri, interface))).number())

        return self.run(scenario, side=side)

    def record_of(self, **fields):
        """Return the only audit record that has these fields."""
        found = [r for r in self.host.records() if all(r.get(name) == value for name, value in fields.items())]
        assert len(found) == 1, found
        return found[0]


@pytest.fixture(scope="session")
def the_town(tmp_path_factory):
    return Town(tmp_path_factory.mktemp("town"))


@pytest.fixture
def town(the_town):
    """The town, with the policies that it began with."""
    the_town.rewrite()
    return the_town


@pytest.fixture(params=PAIRINGS, ids=lambda kinds: f"{kinds[0]}-server-{kinds[1]}-client")
def branch(request, town, tmp_path):
    with nothing_left():
        made = Branch(*request.param, town, tmp_path)
        try:
            made.open()
            yield made
        finally:
            made._stack.close()


@pytest.fixture
def interfaces():
    class Interfaces:
        account, bank, entry = Account, Bank, Entry

    return Interfaces
