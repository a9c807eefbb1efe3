"""A gateway, and those to whom it passes on what is not its own."""

import pytest
from vault_service import PaperSlip

from caprpc.ids import OP_ATTENUATE
from caprpc.wire import messages as m

ONWARD = 'slip = "Onward"\n[offer.Onward]\ninterface = "Slip"\ncall = ["text"]\nforward = true\n'
CAROL, DAVE = ([f"spiffe://test.example/{name}"] for name in ("carol", "dave"))


@pytest.fixture
def gateway(world, driver):
    running = world.serve(driver, roots={"vault": world.service, "slip": PaperSlip()}, extra=ONWARD)
    return world.open(running)


def passed_on(peer, slip, chain):
    return peer.value(slip, "", [None] * 5 + [chain], operation=OP_ATTENUATE).export


def outcome(answer):
    return answer.code if isinstance(answer, m.Raise) else "ok"


def test_what_a_third_party_asks_in_vain_is_counted_for_it_alone(gateway):
    slip = gateway.root("slip")
    carol, dave = (passed_on(gateway, slip, chain) for chain in (CAROL, DAVE))
    codes = [outcome(gateway.ask(carol, "hidden")) for _ in range(300)]
    assert codes.count("denied") in range(200, 240)
    assert codes[-1] == "limit"
    assert outcome(gateway.ask(carol, "text")) == "limit"
    assert outcome(gateway.ask(dave, "text")) == "ok"
    assert outcome(gateway.ask(slip, "text")) == "ok"
    # What it asks in vain for itself is still its own.
    answers = [gateway.ask(slip, "hidden")]
    while answers[-1] is not None and len(answers) < 300:
        answers.append(gateway.ask(slip, "hidden"))
    assert len(answers) in range(200, 240)


def test_cancels_of_a_third_party_are_counted_for_it_alone(gateway):
    slip = gateway.root("slip")
    carol = passed_on(gateway, slip, CAROL)
    for _ in range(300):
        call = gateway.call(carol, "text")
        gateway.send(call, m.Cancel(call.question))
        gateway.answer(call.question)
    assert outcome(gateway.ask(slip, "text")) == "ok"


def test_made_up_third_parties_share_what_is_left(gateway):
    slip = gateway.root("slip")
    for number in range(80):
        export = passed_on(gateway, slip, [f"spiffe://test.example/made-up-{number}"])
        for _ in range(5):
            gateway.ask(export, "hidden")
    # The first 64 have spent 5 of 200 each, all others together 80.
    export = passed_on(gateway, slip, ["spiffe://test.example/one-more"])
    codes = [outcome(gateway.ask(export, "hidden")) for _ in range(200)]
    assert codes.count("denied") in range(120, 190)
    assert codes[-1] == "limit"
