"""Which exports stand under which right: what a revocation reaches, without a look at everything else."""

from collections.abc import Iterable, KeysView
from typing import TYPE_CHECKING

from caprpc.policy import Right

if TYPE_CHECKING:
    from caprpc.session.references import Export


class Standing:
    """The derived exports of one connection, by the right that they were handed over under.

    Invariant: an export is in it from ``add`` on until it is revoked or dropped; ordinary exports never are.
    """

    __slots__ = ("_exports", "_rights")

    def __init__(self) -> None:
        self._exports: dict[Right, set[Export]] = {}
        self._rights: dict[Export, Right] = {}
        """An export that has ended does not say any more under which right it stood."""

    def __bool__(self) -> bool:
        return bool(self._rights)

    def __len__(self) -> int:
        return len(self._rights)

    def add(self, export: "Export", right: Right) -> None:
        """Note under which right an export stands."""
        self._rights[export] = right
        known = self._exports.get(right)
        if known is None:
            self._exports[right] = {export}
        else:
            known.add(export)

    def discard(self, export: "Export") -> None:
        """Forget an export; it may have been forgotten before, or be an ordinary one."""
        right = self._rights.pop(export, None)
        if right is not None:
            exports = self._exports[right]
            exports.remove(export)
            if not exports:
                del self._exports[right]

    def all(self) -> "KeysView[Export]":
        """Return every derived export."""
        return self._rights.keys()

    def under(self, rights: Iterable[Right]) -> "list[Export]":
        """Return what stands under any of these rights themselves."""
        found = self._exports
        return [export for right in rights if right in found for export in found[right]]

    def clear(self) -> None:
        """Forget all of them."""
        self._exports.clear()
        self._rights.clear()
