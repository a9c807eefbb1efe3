"""Limits that a reload of the policy has narrowed, on a session that lives: at once, and without breaking a promise."""

from dataclasses import replace
from typing import TYPE_CHECKING

from caprpc.limits import Limits, value_limits

if TYPE_CHECKING:
    from caprpc.session.session import Session


def tighten(session: "Session", limits: Limits) -> None:
    """Have a session keep to tighter limits from now on; what is held above a new one is not cut, only not added to.

    Frames and values stay as they were announced, since their breach is a protocol error: a peer that keeps to what it
    was told is honest. The next connection has the new ones. May be called again with the same limits.
    """
    before = session.limits
    session.limits = replace(limits, max_frame_bytes=before.max_frame_bytes, **value_limits(before))
    session.answers.resize(limits.in_flight - before.in_flight)
    session.imports.limit = limits.imports
    session.exports.limit = min(session.exports.limit, limits.exports)
    session.liveness.tighten(session.limits)
