"""What outlives a process: the grants behind sturdy references. The seam for other stores is ``Store``."""

from caprpc.store.acknowledged import Acknowledged
from caprpc.store.grants import Store, StoredGrant
from caprpc.store.sqlite import SqliteStore, accept_restore

__all__ = ["Acknowledged", "SqliteStore", "Store", "StoredGrant", "accept_restore"]
