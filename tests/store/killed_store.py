"""A process that grants and revokes until it is killed, and says after each change that it was made."""

import os
import sys
from pathlib import Path

from caprpc.ids import new_grant_id
from caprpc.store import SqliteStore, StoredGrant
from caprpc.sturdy import digest_of


def main(path, name):
    store = SqliteStore(Path(path))
    number = 0
    while True:
        number += 1
        grant = StoredGrant(new_grant_id(), "account", f"{name}{number}", "", None, name, 1.0, None)
        store.add(grant, digest_of(grant.grant_id))
        os.write(1, f"granted {grant.grant_id}\n".encode())
        if number % 2:
            store.revoke(grant.grant_id, 2.0)
            os.write(1, f"revoked {grant.grant_id}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
