"""Connections that come and go: what is kept of them, and what coming back gives. CAP-RE."""

from caprpc.ids import OP_ROOT
from caprpc.wire import messages as m


def test_coming_back_does_not_refill_the_budget_for_useless_things(world, driver):
    """Each connection has a budget of its own; all of a principal together have no more than as many as it may have."""
    limits = "connections = 2\nglitch_burst = 20\nglitch_per_s = 0.1"
    running = world.serve(driver, connection=limits)
    refused = []
    for _ in range(8):
        peer = world.open(running)
        peer.try_to_send(*[peer.call(0, "absent", operation=OP_ROOT) for _ in range(30)])
        refused.append(sum(isinstance(message, m.Raise) for message in peer.rest()))
        peer.close()
    assert refused[:2] == [20, 20]
    assert sum(refused[2:]) <= 3, refused
    served = world.open(running, "alice")
    assert isinstance(served.ask(0, "absent", operation=OP_ROOT), m.Raise)
    assert running.denials() <= 45
