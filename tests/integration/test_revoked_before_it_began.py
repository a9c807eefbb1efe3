"""Calls that were permitted as they arrived, and had not begun when their reference was revoked."""

import pytest

import caprpc
from caprpc import Interface, method
from caprpc.audit import Selection, select
from caprpc.testing import aio_connected, connected


class Item(Interface):
    @method(effect="write")
    def count(self) -> int: ...


class Desk(Interface):
    @method(effect="read")
    def item(self) -> Item: ...

    @method(effect="write")
    def revoke(self) -> None: ...


class ItemOfDesk(Item):
    def __init__(self):
        self.counted = 0

    def count(self):
        self.counted += 1
        return self.counted


class DeskOfItem(Desk):
    """Lets running calls end when it revokes: those that have begun, and no others."""

    def __init__(self, kind):
        self.kind = kind
        self.kept = ItemOfDesk()
        self.handle = caprpc.attenuate(self.kept, only=["count"]) if kind == "handle" else self.kept

    def item(self):
        return self.handle

    def revoke(self):
        caprpc.revoke(self.handle, in_flight="finish")


class AsyncDesk(DeskOfItem):
    async def revoke(self):
        await caprpc.aio.revoke(self.handle, in_flight="finish")


def codes(outcomes):
    return [getattr(outcome, "code", outcome) for outcome in outcomes]


def check_on_record(side, outcomes):
    """Every number that a caller was told stands in the log, with a reason."""
    denied = [entry.record.fields for entry in select(side.audit, Selection(decision="deny"))]
    told = [outcome.reference for outcome in outcomes if getattr(outcome, "code", "") == "revoked"]
    assert told
    assert [(fields["reference"], fields["reason"]) for fields in denied] == [(number, "revoked") for number in told]


@pytest.mark.parametrize("kind", ["handle", "object"])
def test_calls_behind_the_revocation_in_one_batch_do_not_run(caprpc_peer, kind):
    root = DeskOfItem(kind)
    desk = caprpc_peer({"desk": root}, [Item]).root("desk", Desk)
    item = desk.item()
    outcomes = caprpc.batch([(item.count, ()), (desk.revoke, ()), (item.count, ()), (item.count, ())])
    assert codes(outcomes) == [1, None, "revoked", "revoked"]
    assert root.kept.counted == 1
    with pytest.raises(caprpc.ReferenceDead):
        item.count()


@pytest.mark.parametrize("made", [DeskOfItem, AsyncDesk])
async def test_calls_behind_the_revocation_in_one_batch_do_not_run_on_a_loop(caprpc_sides, made):
    roots = {"desk": made("handle")}
    sides = caprpc_sides(roots)
    async with aio_connected(roots, *sides) as peer:
        desk = await peer.root("desk", Desk)
        item = await desk.item()
        outcomes = await caprpc.aio.batch([(item.count, ()), (desk.revoke, ()), (item.count, ())])
    assert codes(outcomes) == [1, None, "revoked"]
    assert roots["desk"].kept.counted == 1
    check_on_record(sides[0], outcomes)


def test_calls_behind_the_revocation_in_one_batch_are_on_record(caprpc_sides):
    roots = {"desk": DeskOfItem("handle")}
    sides = caprpc_sides(roots)
    with connected(roots, *sides) as peer:
        desk = peer.root("desk", Desk)
        item = desk.item()
        outcomes = caprpc.batch([(item.count, ()), (desk.revoke, ()), (item.count, ()), (item.count, ())])
    assert codes(outcomes) == [1, None, "revoked", "revoked"]
    check_on_record(sides[0], outcomes)


def test_a_call_that_has_begun_may_end(caprpc_peer):
    root = DeskOfItem("handle")

    class Ending(ItemOfDesk):
        def count(self):
            root.revoke()
            return super().count()

    root.kept = Ending()
    root.handle = caprpc.attenuate(root.kept, only=["count"])
    item = caprpc_peer({"desk": root}).root("desk", Desk).item()
    assert item.count() == 1
    with pytest.raises(caprpc.ReferenceDead):
        item.count()
