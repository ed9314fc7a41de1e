"""Legal holds: while one is active the data of a person may not be erased (GDPR Art. 17(3)(e)).

Document shape (``holds``)::

    {_id: "<subject>:<case>", subject_id: ObjectId | str | UUID, case_id: str, until: date | null, placed_at: date,
     released_at: date | null}
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from compliance.audit.entry import Entry
from compliance.audit.log import AuditLog
from compliance.datamap.subject import SubjectId, to_entity_id, to_text
from compliance.errors import InvalidPayload, LegalHoldActive, UnknownName
from compliance.mongo import Databases, Session, driver_errors

HOLDS = "holds"
_CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")


@dataclass(frozen=True, slots=True)
class Holds:
    """The holds of one application."""

    databases: Databases

    def check(self, *names: SubjectId, now: datetime, session: Session | None = None) -> None:
        """Return if no hold on the person with these *names* is active.

        Raises:
            LegalHoldActive: Naming the case and until when.
        """
        query = {
            "subject_id": {"$in": list(names)},
            "released_at": None,
            "$or": [{"until": None}, {"until": {"$gt": now}}],
        }
        with driver_errors(session):
            hold = self.databases.compliance[HOLDS].find_one(query, session=session)
        if hold is not None:
            until = f"until {hold['until']:%Y-%m-%d}" if hold["until"] else "without an end date"
            raise LegalHoldActive(
                f"case {hold['case_id']} holds the data of this person {until}; "
                "release it with `compliance erasure release` or wait, then send a new request"
            )

    def held(self, *, now: datetime) -> list[SubjectId]:
        """Return everybody with an active hold, by the ids under which the holds were placed."""
        with driver_errors():
            return list(
                self.databases.compliance[HOLDS].distinct(
                    "subject_id", {"released_at": None, "$or": [{"until": None}, {"until": {"$gt": now}}]}
                )
            )

    def place(
        self, subject_id: SubjectId, case_id: str, *, until: datetime | None, now: datetime, actor: str, log: AuditLog
    ) -> None:
        """Place a hold, with its entry; placing it again changes its end.

        Raises:
            InvalidPayload: When *case_id* is no plain id: it is kept in the audit log for ever.
        """
        if not _CASE_ID.fullmatch(case_id):
            raise InvalidPayload("case: expected an id of letters, digits and _ . : -, at most 64; no names, no text")

        def transaction(session: Session) -> None:
            self.databases.compliance[HOLDS].update_one(
                {"_id": _id(subject_id, case_id)},
                {
                    "$set": {
                        "subject_id": subject_id,
                        "case_id": case_id,
                        "until": until,
                        "placed_at": now,
                        "released_at": None,
                    }
                },
                upsert=True,
                session=session,
            )
            log.append(_entry(subject_id, case_id, "hold.placed", now=now, actor=actor), session=session)

        self.databases.transact(transaction)

    def release(
        self,
        subject_id: SubjectId,
        case_id: str,
        *,
        now: datetime,
        actor: str,
        log: AuditLog,
        also: Sequence[SubjectId] = (),
    ) -> None:
        """Release a hold, with its entry; it may be one under another name of the person, of those in *also*.

        Raises:
            UnknownName: When there is no such active hold.
        """

        def transaction(session: Session) -> None:
            changed = self.databases.compliance[HOLDS].update_one(
                {"_id": {"$in": [_id(name, case_id) for name in (subject_id, *also)]}, "released_at": None},
                {"$set": {"released_at": now}},
                session=session,
            )
            if changed.matched_count != 1:
                raise UnknownName(f"no active hold of case {case_id} on this person")
            log.append(_entry(subject_id, case_id, "hold.released", now=now, actor=actor), session=session)

        self.databases.transact(transaction)


def _id(subject_id: SubjectId, case_id: str) -> str:
    return f"{to_text(subject_id)}:{case_id}"


def _entry(subject_id: SubjectId, case_id: str, action: str, *, now: datetime, actor: str) -> Entry:
    return Entry(
        event=f"{_id(subject_id, case_id)}@{now.isoformat()}",
        entity_type="user",
        entity_id=to_entity_id(subject_id),
        action=action,
        created_at=now,
        performed_by=actor,
        details={"case_id": case_id},
    )
