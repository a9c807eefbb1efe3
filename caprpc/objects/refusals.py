"""What a client raises when a connection ends before it is open, and what it does not send."""

from caprpc.errors import CallRefused, ConnectRefused
from caprpc.session import Ended
from caprpc.sturdy import SturdyUri


def refusal(address: str, event: Ended) -> ConnectRefused:
    """Return what ``connect`` raises for the event that ended the attempt."""
    advice = ""
    if event.reference and event.by_peer:
        advice = f" (reference number {event.reference}: the peer's operator finds the reason under it)"
    elif event.reference:
        advice = f" (reference number {event.reference}: `caprpc explain {event.reference}` shows the whole reason)"
    return ConnectRefused(f"{address}: {event.detail}{advice}", code=event.code, reference=event.reference)


def check_pin(address: str, pinned: str | None, announced: str) -> None:
    """Check that a peer holds us to the policy that it promised; to be done before anything is called.

    Raises:
        ConnectRefused: It announces another, or none.
    """
    if pinned is not None and pinned != announced:
        raise ConnectRefused(
            f"{address}: the peer holds us to the policy {announced or '(it announces none)'}, and {pinned} is pinned "
            "(pin_policy). Ask its operator what has changed; nothing was called",
            code="policy",
        )


def presented(uri: str, dialed: str) -> tuple[str, str]:
    """Return name and secret of a sturdy reference that may be presented to the peer which was dialed.

    Raises:
        ConfigurationError: It is no sturdy reference.
        CallRefused: It is for another address: its secret is not for this peer.
    """
    parsed = SturdyUri.parse(uri)
    if str(parsed.address) != dialed:
        raise CallRefused(
            f"{parsed} is for {parsed.address}, and this connection goes to {dialed}; nothing was sent. Connect with "
            "the sturdy reference in place of the URL, or have it granted for the address that you dial "
            "(Grants(address=...))"
        )
    return parsed.name, parsed.secret
