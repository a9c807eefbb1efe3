"""What is kept of a grant, and what a store of grants promises."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredGrant:
    """A grant as it is kept, under the digest of its secret. Times are seconds since the epoch."""

    grant_id: str
    """Names it in logs and commands, such as ``G-7KQ2M9XW4HTA``; it is no secret and gives nothing."""
    name: str
    """A root, or a kind of object that a restorer makes."""
    key: str
    """Which object of the kind; empty for a root."""
    holder: str
    """The principal that it is sealed to; empty: whoever presents it, if policy lets that peer."""
    only: frozenset[str] | None
    """Members that it is narrowed to; None: all that policy gives."""
    granted_by: str
    granted_at: float
    expires_at: float | None
    revoked_at: float | None = None

    def state(self, now: float) -> str:
        """Return ``live``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and now >= self.expires_at else "live"


class Store(Protocol):
    """Keeps grants. What a method has returned from is kept, whatever happens to the process after it.

    Any thread may use it; several processes may use one store. Each change has a revision, one more than the one
    before. Every method may raise ``StoreError``: nothing is known then, and nothing may be handed out.
    """

    def add(self, grant: StoredGrant, digest: bytes) -> int:
        """Keep a new grant under the digest of its secret; return the revision."""

    def find(self, digest: bytes) -> StoredGrant | None:
        """Return the grant of a secret, by its digest; the same work whether there is one or not."""

    def get(self, grant_id: str) -> StoredGrant | None:
        """Return a grant by its id."""

    def grants(self) -> list[StoredGrant]:
        """Return every grant, oldest first, those that have ended included."""

    def revoke(self, grant_id: str, at: float) -> int | None:
        """End a grant; return the revision, None if there is none of that id or it was revoked before."""

    def revoked_since(self, revision: int) -> tuple[int, list[str]]:
        """Return the newest revision, and the ids of what was revoked after the given one."""

    def close(self) -> None:
        """Let go of it; may be called twice."""
