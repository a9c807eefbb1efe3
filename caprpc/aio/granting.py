"""Grants of an asyncio server: what its own code gives out, lists and takes back, beside the loop."""

import asyncio
from collections.abc import Iterable

from caprpc.objects.admission import Admission
from caprpc.objects.context import NO_CALL, running_job
from caprpc.objects.granting import Wish, grants_of, revoke_grant
from caprpc.objects.granting import grant as grant_to
from caprpc.store import StoredGrant


class Granting:
    """The part of a server that grants; all of it waits for the disk, on a thread."""

    _admission: Admission

    async def grant(
        self,
        target: object,
        *,
        to: str = "",
        key: str = "",
        bearer: bool = False,
        only: Iterable[str] | None = None,
        for_s: float | None = None,
    ) -> str:
        """Give something for longer than a connection; returns its sturdy reference, which is a secret.

        It is shown this once: the store keeps no more than its digest.

        Args:
            target: The name of a root, a root, or the kind of a restorer.
            to: The SPIFFE ID of the one holder who can restore it.
            key: Which object of the kind; given to the restorer.
            bearer: In place of ``to``: whoever has the secret can restore it, if a policy says ``bearer = true``.
            only: Names of the members that are kept, of those that the policy's facet has.
            for_s: For so many seconds; by default for as long as the holder's policy lets a grant last.

        Raises:
            CallRefused: No policy lets the holder restore this, or not for so long; the message has the line to add.
            ConfigurationError: There is no such root or kind, or the server keeps no grants.
            StoreError: It could not be kept; nothing was granted.
            AuditError: It could not be recorded; nothing was granted.
        """
        return await asyncio.to_thread(grant_to, self._admission, Wish(target, key, to, bearer, only, for_s))

    async def revoke_grant(self, grant_id: str) -> bool:
        """End a grant, and everything that was obtained through it; at once here, within 1 s in other processes.

        Running calls on it are cancelled.

        Returns:
            False if there is no grant of that id (``G-...``), or it has been revoked.

        Raises:
            StoreError: It could not be kept: it may live on.
            AuditError: It is revoked, and could not be recorded.
        """
        return await asyncio.to_thread(revoke_grant, self._admission, grant_id)

    async def list_grants(self) -> list[StoredGrant]:
        """Return every grant, oldest first, those that have ended included; no secret is among it.

        Raises:
            StoreError: The store cannot be read.
        """
        return await asyncio.to_thread(grants_of(self._admission).store.grants)


async def grant(target: object, *, key: str = "", only: Iterable[str] | None = None, for_s: float | None = None) -> str:
    """Give the caller of the running method something for longer than its connection; returns the sturdy reference.

    Arguments and errors are those of ``Server.grant``; it is sealed to the caller.

    Raises:
        LookupError: No method of ours is being called in this task.
    """
    job = running_job()
    if job is None:
        raise LookupError(f"caprpc.aio.grant() {NO_CALL}")
    return await asyncio.to_thread(job.endpoint.restoring.grant, target, key=key, only=only, for_s=for_s)
