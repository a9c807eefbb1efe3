"""What happened: hash-chained records of every decision, written before the decision takes effect."""

from caprpc.audit.durable import Durability, DurableRelation
from caprpc.audit.log import AuditLog
from caprpc.audit.notes import VerifierKey
from caprpc.audit.query import Entry, Follower, Selection, select
from caprpc.audit.record import NO_EXTRA, Extra, Template, duration, extra
from caprpc.audit.redact import Redactor
from caprpc.audit.relation import NewRecord, Relation
from caprpc.audit.verify import RelationReport, Report, verify
from caprpc.audit.witness import Witness

__all__ = [
    "AuditLog",
    "Durability",
    "DurableRelation",
    "Entry",
    "Extra",
    "Follower",
    "NO_EXTRA",
    "NewRecord",
    "Redactor",
    "Relation",
    "RelationReport",
    "Report",
    "Selection",
    "Template",
    "VerifierKey",
    "Witness",
    "duration",
    "extra",
    "select",
    "verify",
]
