"""Grants: what a service gives out for longer than a connection, and the sturdy references that stand for it.

A grant names a root, or an object of a kind that a restorer makes from a key: what can be had again after a restart.
No code is found by a name that was stored; ``restorers`` lists what there is.
"""

import ipaddress
import threading
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from weakref import WeakValueDictionary

from caprpc.address import Address
from caprpc.contract import InterfaceContract
from caprpc.errors import ConfigurationError
from caprpc.interface import interface_closure, interface_info
from caprpc.objects.factories import class_made
from caprpc.objects.revocation import end
from caprpc.objects.watching import Watch
from caprpc.policy import Narrowing, Right, keys_of
from caprpc.policy.quotas import Bucket
from caprpc.store import SqliteStore, Store, StoredGrant
from caprpc.sturdy import SturdyUri

Restorer = Callable[[str], Any]
"""Takes the key that was granted, returns the object; its return annotation names the interface."""

NO_RESTORERS: Final[Mapping[str, Restorer]] = MappingProxyType({})

GUESSES: Final = 100
"""Sturdy references that one principal may present in vain at once, over all its connections."""

GUESSES_PER_S: Final = 1.0
"""Refill: a million guesses take 11 days, and hit one of n grants with a chance of n in 10^42."""

HOW_TO_KEEP: Final = (
    'write Server(..., grants=caprpc.Grants("state/grants.db")), or caprpc serve --grants state/grants.db'
)
"""What to do for a server that keeps no grants."""


class Grants:
    """What a server needs to grant and to restore: a store that outlives it, and who makes the objects.

    Args:
        store: Path of the file that keeps the grants, or another ``Store``. The directory must be there.
        restorers: Kind to a callable that takes a key and returns the object: ``{"account": ledger.account}``. Its
            return annotation, or the class that it is, says which interface the object implements.
        address: What stands in sturdy references as the address, if clients dial another one than we listen on.

    Raises:
        ConfigurationError: The store cannot be used, or a restorer does not say what it makes.
    """

    def __init__(
        self, store: str | Path | Store, *, restorers: Mapping[str, Restorer] = NO_RESTORERS, address: str = ""
    ) -> None:
        self.restorers = dict(restorers)
        self.contracts = _contracts(self.restorers)
        self._address = str(Address.parse(address)) if address else ""
        self._guesses: dict[str, Bucket] = {}
        self._lock = threading.Lock()
        self._rights: WeakValueDictionary[str, Right] = WeakValueDictionary()
        """What was restored stands under these, by grant; they go with the last reference."""
        self.store: Store = SqliteStore(Path(store)) if isinstance(store, str | Path) else store
        self._watch = Watch(self.store, self.end)

    def listening(self, address: str) -> None:
        """Take note of where the server listens; the first one counts, unless an address was given."""
        if not self._address and not _is_wildcard(Address.parse(address).host):
            self._address = address

    def uri(self, name: str, secret: str) -> str:
        """Return the sturdy reference of a new grant.

        Raises:
            ConfigurationError: Nobody knows where clients dial.
        """
        if not self._address:
            raise ConfigurationError(
                "a sturdy reference holds the address that clients dial, and this server has none",
                hint='call listen() first, or write Grants(..., address="caprpc://ledger.example:4853")',
            )
        return SturdyUri(Address.parse(self._address), name, secret).reveal()

    def may_guess(self, principal: str, now: float) -> bool:
        """Whether a principal may present one more sturdy reference; ``now`` is monotonic, in seconds."""
        with self._lock:
            bucket = self._guesses.get(principal)
            if bucket is None:
                return True
            bucket.earn(now)
            return bucket.spent + 1 <= bucket.capacity

    def guessed(self, principal: str, now: float) -> None:
        """Count one that was presented in vain."""
        with self._lock:
            bucket = self._guesses.setdefault(principal, Bucket("guesses", GUESSES, GUESSES_PER_S))
            bucket.earn(now)
            bucket.spent += 1

    def find(self, digest: bytes) -> StoredGrant | None:
        """Return the grant of a secret; from now on what another process revokes ends here, too.

        Raises:
            StoreError: The store cannot be read.
        """
        self._watch.start()
        return self.store.find(digest)

    def right_of(self, grant: StoredGrant, wall: float, now: float) -> Right | None:
        """Return what everything restored from a grant stands under; None if it has been revoked meanwhile.

        ``wall`` and ``now`` are the time, since the epoch and monotonic, in seconds.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._lock:
            right = self._rights.get(grant.grant_id)
            if right is None or right.refusal(now):
                narrowing = None if grant.only is None else Narrowing(frozenset().union(*keys_of(grant.only)), {})
                ends = inf if grant.expires_at is None else now + grant.expires_at - wall
                right = self._rights[grant.grant_id] = Right(expires_at=ends, narrowing=narrowing)
        # A revocation before this look is seen by it, and one behind it ends the right, which is known by now.
        known = self.store.get(grant.grant_id)
        return right if known is not None and known.revoked_at is None else None

    def end(self, revoked: list[str] | None) -> None:
        """End everything that was restored from these grants, None: from all; running calls on it are cancelled."""
        with self._lock:
            ended = [right for grant_id, right in self._rights.items() if revoked is None or grant_id in revoked]
        for right in ended:
            end(right, cut=True)

    def close(self) -> None:
        """Let go of the store."""
        self._watch.stop()
        self.store.close()


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _contracts(restorers: Mapping[str, Restorer]) -> dict[str, InterfaceContract]:
    """Return the contracts of everything that restorers make."""
    interfaces: list[type] = []
    for kind, restorer in restorers.items():
        if not kind.isidentifier() or not kind.isascii() or kind.startswith("_"):
            raise ConfigurationError(f"restorer {kind!r}: an ASCII identifier without a leading underscore expected")
        try:
            cls = class_made(restorer)
        except NameError as exc:
            raise ConfigurationError(
                f"restorer {kind!r}: its annotations name {exc.name!r}, which is not there where it is defined",
                hint="import it there, outside of `if TYPE_CHECKING:`",
            ) from exc
        made = [base for base in (cls or object).__mro__ if interface_info(base) is not None]
        if not made:
            raise ConfigurationError(
                f"restorer {kind!r} does not say which interface it restores",
                hint="annotate what it returns: def account(self, key: str) -> Account",
            )
        interfaces += made
    return interface_closure(interfaces)
