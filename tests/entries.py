"""Entries that tests of the audit log write."""

from datetime import UTC, datetime

from bson import ObjectId
from signing import signed

from compliance.audit.entry import Entry

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
PERSON = ObjectId("0123456789abcdef01234567")
ENTRY = Entry(
    event="e-1",
    entity_type="user",
    entity_id=PERSON,
    action="consent.granted",
    created_at=NOON,
    performed_by="test",
    details={"documents": 3, "fields": ["type", "granted"]},
)
(OTHER,) = signed(
    Entry(event="e-2", entity_type="user", entity_id=PERSON, action="hold.placed", created_at=NOON, performed_by="x")
)
ID = ENTRY.id
CHANGE = {"$set": {"outcome": "failure"}}
