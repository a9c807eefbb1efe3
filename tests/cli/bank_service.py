"""A service that grants, for the tests of ``caprpc serve --grants``; they and the servers load it by its name."""

import caprpc
from caprpc import Interface, method
from caprpc.testing import Deployment


class Account(Interface):
    @method(effect="read")
    def number(self) -> str: ...


class Bank(Interface):
    @method(effect="write")
    def keep(self, key: str) -> str: ...


class TheAccount(Account):
    def __init__(self, key):
        self._key = key

    def number(self):
        return self._key


class TheBank(Bank):
    def keep(self, key):
        return caprpc.grant("account", key=key)


def account(key: str) -> Account:
    return TheAccount(key)


def silent(key):
    return TheAccount(key)


def misspelt(key: "Acount") -> "Acount":  # noqa: F821
    return TheAccount(key)


roots = {"bank": TheBank()}
restorers = {"account": account}
says_nothing = {"account": silent}
says_what_is_not = {"account": misspelt}

SERVER_POLICY = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/alice"]
[roots]
bank = "Counter"
[offer.Counter]
interface = "Bank"
call = ["keep"]
[offer.OneAccount]
interface = "Account"
call = ["number"]
[restore.account]
as = "OneAccount"
"""
CLIENT_POLICY = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Bank]
call = ["keep"]
[accept.Account]
call = ["number"]
"""


def deploy(root):
    """Make both sides' directories below ``root``: ``server`` and ``alice``."""
    deployment = Deployment(root)
    deployment.side("server", {"alice": SERVER_POLICY}, [Bank, Account])
    deployment.side("alice", {"server": CLIENT_POLICY}, [Bank, Account])
