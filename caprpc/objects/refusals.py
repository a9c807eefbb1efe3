"""What a client raises when a connection ends before it is open."""

from caprpc.address import Address
from caprpc.errors import ConnectRefused
from caprpc.session import Ended


def refusal(address: Address, event: Ended) -> ConnectRefused:
    """Return what ``connect`` raises for the event that ended the attempt."""
    advice = ""
    if event.reference and event.by_peer:
        advice = f" (reference number {event.reference}: the peer's operator finds the reason under it)"
    elif event.reference:
        advice = f" (reference number {event.reference}: `caprpc explain {event.reference}` shows the whole reason)"
    return ConnectRefused(f"{address}: {event.detail}{advice}", code=event.code, reference=event.reference)
