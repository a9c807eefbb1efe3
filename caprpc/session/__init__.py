"""The capability core: a state machine for each connection, without I/O.

Wire protocol, sections 3 to 8.
"""

from caprpc.session.asking import check_time
from caprpc.session.calls import (
    Answer,
    BatchAnswer,
    Budget,
    CancelRequest,
    Ended,
    Event,
    Opened,
    Origin,
    Overdue,
    Question,
    Refusal,
)
from caprpc.session.costs import UNBOUNDED
from caprpc.session.imports import Import, Imports
from caprpc.session.opening import FEATURE_PIPELINE, FEATURE_WITNESS, Opening
from caprpc.session.references import FOREVER, Announced, Closer, Export, Exports, Home, Scope
from caprpc.session.refusing import refusal_of
from caprpc.session.session import Session
from caprpc.session.states import TRANSITIONS, State
from caprpc.session.tightening import tighten

__all__ = [
    "UNBOUNDED",
    "FEATURE_WITNESS",
    "FEATURE_PIPELINE",
    "FOREVER",
    "TRANSITIONS",
    "Announced",
    "Answer",
    "Budget",
    "BatchAnswer",
    "CancelRequest",
    "Closer",
    "Ended",
    "Event",
    "Export",
    "Exports",
    "Home",
    "Import",
    "Imports",
    "Opened",
    "Opening",
    "Origin",
    "Overdue",
    "Question",
    "Refusal",
    "Scope",
    "Session",
    "State",
    "check_time",
    "refusal_of",
    "tighten",
]
