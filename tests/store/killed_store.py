"""A process that grants and revokes until it is killed, or so often, and says after each change that it was made."""

import os
import sys
from itertools import count, islice
from pathlib import Path

from caprpc.ids import new_grant_id
from caprpc.store import SqliteStore, StoredGrant
from caprpc.sturdy import digest_of


def main(path, name, most=None):
    store = SqliteStore(Path(path))
    for number in islice(count(1), most and int(most)):
        grant = StoredGrant(new_grant_id(), "account", f"{name}{number}", "", None, name, 1.0, None)
        store.add(grant, digest_of(grant.grant_id))
        os.write(1, f"granted {grant.grant_id}\n".encode())
        if number % 2:
            store.revoke(grant.grant_id, 2.0)
            os.write(1, f"revoked {grant.grant_id}\n".encode())
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
