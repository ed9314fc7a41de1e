"""Record a consent event: the event, the current state and the audit entry in one transaction.

Document shapes::

    consent (application):    {user_id, type: str, granted: bool, timestamp: date}       one per person and type;
                               user_id is the id itself, also where subject_id is a pseudonym
    consent_events (ours):    {_id: event_id, subject_id, type: str, granted: bool, occurred_at: date,
                               recorded_at: date, request_id: str, notice: str | null}    insert-only
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from compliance.audit.entry import Entry
from compliance.audit.log import AuditLog
from compliance.consent.fold import Standing, fold, standing
from compliance.datamap.model import DataMap
from compliance.datamap.people import find_by_pseudonym
from compliance.datamap.pseudonym import Pseudonyms
from compliance.datamap.subject import SubjectId, to_entity_id, to_text
from compliance.errors import RequestConflict, UnknownName, UnknownSubject
from compliance.mongo import Databases, Session

CONSENT = "consent"
EVENTS = "consent_events"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentEvent:
    """A person granted or withdrew consent for one purpose.

    Attributes:
        notice: Version of the text that was shown, if known (GDPR Art. 7(1)).
    """

    event_id: str
    subject_id: SubjectId
    type: str
    granted: bool
    occurred_at: datetime
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class ConsentLedger:
    """The consent of one application's people."""

    databases: Databases
    data_map: DataMap
    log: AuditLog
    pseudonyms: Pseudonyms | None = None

    def find_key(self, subject_id: SubjectId, *, check: Callable[[], None]) -> SubjectId:
        """Return the id of a person as the application holds it: what *subject_id* names, where that is a pseudonym.

        MUST be called before the transaction: it may read the keys of all people.

        Raises:
            UnknownSubject: When a pseudonym names nobody.
        """
        if not self.data_map.root_key.personal:
            return subject_id
        found = find_by_pseudonym(
            self.databases.app, self.data_map, subject_id, pseudonyms=self.pseudonyms, check=check
        )
        if found is None:
            raise self._unknown()
        key: str = found.values[self.data_map.subject.key]
        return key

    def record(
        self,
        event: ConsentEvent,
        *,
        user_id: SubjectId,
        request_id: str,
        actor: str,
        now: datetime,
        session: Session,
    ) -> Standing:
        """Record *event* in the transaction of *session* and return the standing after it.

        An event that is older than the standing is recorded and changes nothing. The same event twice is one event.
        *user_id* is what ``find_key`` returned.

        Raises:
            UnknownSubject: When there is no such person.
            UnknownName: When the data map does not know the purpose.
            RequestConflict: When the event id came before with other content.
        """
        if event.type not in self.data_map.consent_types:
            raise UnknownName(f"type: the data map knows {', '.join(self.data_map.consent_types) or 'none'}")
        self._require_subject(user_id, session)
        try:
            self.databases.compliance[EVENTS].insert_one(
                _event_document(event, request_id=request_id, now=now), session=session
            )
        except DuplicateKeyError:
            raise RequestConflict(f"event_id {event.event_id!r} was recorded before by another request") from None
        key = {"user_id": user_id, "type": event.type}
        current = self.databases.app[CONSENT].find_one(key, session=session)
        said = standing(granted=event.granted, occurred_at=event.occurred_at)
        before = standing(granted=current["granted"], occurred_at=current["timestamp"]) if current else None
        after = fold(known for known in (before, said) if known is not None) or said
        if after != before:
            self.databases.app[CONSENT].update_one(
                key,
                {
                    "$set": {"granted": after.granted, "timestamp": after.occurred_at},
                    "$setOnInsert": {"_id": self._state_id(user_id, event.type)},
                },
                upsert=True,
                session=session,
            )
        self.log.append(_entry(event, request_id, actor, now, is_current=after == said), session=session)
        return after

    def _require_subject(self, user_id: SubjectId, session: Session) -> None:
        root, key = self.data_map.subject, self.data_map.root_key
        found = self.databases.app[root.collection].find_one({key.path: user_id}, {"_id": 1}, session=session)
        if found is None:
            raise self._unknown()

    def _unknown(self) -> UnknownSubject:
        root = self.data_map.subject
        return UnknownSubject(f"no document of {root.collection} has this {root.key}; consent was not recorded")

    def _state_id(self, user_id: SubjectId, purpose: str) -> ObjectId:
        """Return the same id for the same person and purpose: two first events at once cannot both insert."""
        named = self.pseudonyms.make(str(user_id)) if self.pseudonyms else to_text(user_id)
        return ObjectId(hashlib.sha256(f"{named}\x00{purpose}".encode()).digest()[:12])


def _event_document(event: ConsentEvent, *, request_id: str, now: datetime) -> dict[str, object]:
    return {
        "_id": event.event_id,
        "subject_id": event.subject_id,
        "type": event.type,
        "granted": event.granted,
        "occurred_at": event.occurred_at,
        "recorded_at": now,
        "request_id": request_id,
        "notice": event.notice,
    }


def _entry(event: ConsentEvent, request_id: str, actor: str, now: datetime, *, is_current: bool) -> Entry:
    return Entry(
        event=event.event_id,
        entity_type="user",
        entity_id=to_entity_id(event.subject_id),
        action="consent.granted" if event.granted else "consent.withdrawn",
        created_at=now,
        performed_by=actor,
        request_id=request_id,
        details={"type": event.type, "is_current": is_current},
    )
