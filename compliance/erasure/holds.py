"""Legal holds: while one is active the data of a person may not be erased (GDPR Art. 17(3)(e)).

Document shape (``holds``)::

    {_id: "<subject>:<case>[ <collection>[ <field>]]", subject_id: ObjectId | str | UUID, case_id: str,
     collection: str | null, field: str | null, reviewer: str | null, until: date | null, placed_at: date,
     released_at: date | null,
     settled_at: date | null (when every request that it kept back had been asked for again),
     answers: int (how many requests were answered while it was active)}

``answers`` is written by the transaction that answers a request, so that of this and the end of the hold one waits for
the other: nobody is answered because of a hold whose requests were asked for again already.
"""

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import datetime

from compliance.audit.entry import Entry
from compliance.audit.log import AuditLog
from compliance.datamap.subject import SubjectId, to_entity_id, to_text
from compliance.erasure.left_out import Hold
from compliance.errors import HoldsChanged, InvalidPayload, LegalHoldActive, UnknownName
from compliance.mongo import Databases, Document, Session, driver_errors

HOLDS = "holds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What of a person a hold covers: a collection, or a field of it; everything where neither is given."""

    collection: str | None = None
    field: str | None = None

    def __str__(self) -> str:
        return ".".join(name for name in (self.collection, self.field) if name) or "everything"


EVERYTHING = Part()
_CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")


@dataclass(frozen=True, slots=True)
class Holds:
    """The holds of one application."""

    databases: Databases

    def active(self, *names: SubjectId, now: datetime, session: Session | None = None) -> tuple[Hold, ...]:
        """Return the active holds on the person with these *names*, in an order that stays."""
        with driver_errors(session):
            found = self.databases.compliance[HOLDS].find(
                {"subject_id": {"$in": list(names)}, **_is_active(now)}, session=session, sort={"_id": 1}
            )
            return tuple(map(_read, found))

    def check(
        self, *names: SubjectId, now: datetime, known: Container[str] | None = None, session: Session | None = None
    ) -> None:
        """Return if no hold on everything about the person with these *names* is active.

        Args:
            names: Of the person.
            now: The time.
            known: The holds on a part that a plan reckons with; None where there is no plan yet.
            session: The transaction, if any.

        Raises:
            LegalHoldActive: Naming the case and until when.
            HoldsChanged: When there is a hold on a part that is not *known*.
        """
        found = self.active(*names, now=now, session=session)
        for hold in found:
            if hold.collection is None:
                until = f"until {hold.until:%Y-%m-%d}" if hold.until else "without an end date"
                raise LegalHoldActive(
                    f"case {hold.case_id} holds the data of this person {until}; the request goes on by itself when it "
                    "ends, or is released with `compliance erasure release`"
                )
        new = [hold.case_id for hold in found if known is not None and hold.id not in known]
        if new:
            raise HoldsChanged(f"case {new[0]} was placed meanwhile; the erasure is planned anew")

    def lean_on(self, holds: Sequence[Hold], *, session: Session) -> None:
        """Note that a request is answered because of *holds*, in the transaction that answers it.

        Raises:
            HoldsChanged: When one of them has ended.
        """
        noted = self.databases.compliance[HOLDS].update_many(
            {"_id": {"$in": [hold.id for hold in holds]}, "released_at": None, "settled_at": None},
            {"$inc": {"answers": 1}},
            session=session,
        )
        if noted.matched_count != len(holds):
            raise HoldsChanged("a legal hold ended meanwhile; the erasure is planned anew")

    def ended(self, *, now: datetime, limit: int) -> list[Hold]:
        """Return holds that have ended, and of which nobody noted that nothing waits for them any more."""
        with driver_errors():
            found = self.databases.compliance[HOLDS].find({"settled_at": None, **_has_ended(now)}, limit=limit)
            return [*map(_read, found)]

    def settle(self, hold_id: str, *, now: datetime, session: Session) -> None:
        """Note that nothing waits for an ended hold; one that was placed again meanwhile stays."""
        self.databases.compliance[HOLDS].update_one(
            {"_id": hold_id, "settled_at": None, **_has_ended(now)}, {"$set": {"settled_at": now}}, session=session
        )

    def held(self, *, now: datetime) -> list[SubjectId]:
        """Return everybody with an active hold, by the ids under which the holds were placed."""
        with driver_errors():
            return list(self.databases.compliance[HOLDS].distinct("subject_id", _is_active(now)))

    def place(
        self,
        subject_id: SubjectId,
        case_id: str,
        *,
        until: datetime | None,
        now: datetime,
        actor: str,
        log: AuditLog,
        part: Part = EVERYTHING,
        reviewer: str | None = None,
    ) -> None:
        """Place a hold, with its entry; placing it again changes its end and who reviews it.

        Raises:
            InvalidPayload: When *case_id* or *reviewer* is no plain id: both are kept in the audit log for ever.
        """
        for name, value in (("case", case_id), ("reviewer", reviewer)):
            if value is not None and not _CASE_ID.fullmatch(value):
                raise InvalidPayload(
                    f"{name}: expected an id of letters, digits and _ . : -, at most 64; no names, no text"
                )
        known = {"subject_id": subject_id, "case_id": case_id, "collection": part.collection, "field": part.field}
        active = {"reviewer": reviewer, "until": until, "placed_at": now, "released_at": None, "settled_at": None}

        def transaction(session: Session) -> None:
            self.databases.compliance[HOLDS].update_one(
                {"_id": _id(subject_id, case_id, part)}, {"$set": known | active}, upsert=True, session=session
            )
            entry = _entry(subject_id, case_id, "hold.placed", part, now=now, actor=actor, reviewer=reviewer)
            log.append(entry, session=session)

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
        part: Part = EVERYTHING,
    ) -> None:
        """Release a hold, with its entry; it may be one under another name of the person, of those in *also*.

        What waits for that, the sweeper asks for again.

        Raises:
            UnknownName: When there is no such active hold.
        """

        def transaction(session: Session) -> None:
            changed = self.databases.compliance[HOLDS].update_one(
                {"_id": {"$in": [_id(name, case_id, part) for name in (subject_id, *also)]}, "released_at": None},
                {"$set": {"released_at": now}},
                session=session,
            )
            if changed.matched_count != 1:
                where = f" on {part}" if part.collection else ""
                raise UnknownName(f"no active hold of case {case_id} on this person{where}")
            log.append(_entry(subject_id, case_id, "hold.released", part, now=now, actor=actor), session=session)

        self.databases.transact(transaction)


def _is_active(now: datetime) -> Document:
    return {"released_at": None, "settled_at": None, "$or": [{"until": None}, {"until": {"$gt": now}}]}


def _has_ended(now: datetime) -> Document:
    return {"$or": [{"released_at": {"$ne": None}}, {"until": {"$ne": None, "$lte": now}}]}


def _read(stored: Document) -> Hold:
    parts = {name: stored.get(name) for name in ("collection", "field")}
    return Hold(id=stored["_id"], case_id=stored["case_id"], until=stored["until"], **parts)


def _id(subject_id: SubjectId, case_id: str, part: Part) -> str:
    return " ".join((f"{to_text(subject_id)}:{case_id}", *(name for name in (part.collection, part.field) if name)))


def _entry(
    subject_id: SubjectId,
    case_id: str,
    action: str,
    part: Part,
    *,
    now: datetime,
    actor: str,
    reviewer: str | None = None,
) -> Entry:
    said = {"case_id": case_id, "collection": part.collection, "field": part.field, "reviewer": reviewer}
    return Entry(
        event=f"{_id(subject_id, case_id, part)}@{now.isoformat()}",
        entity_type="user",
        entity_id=to_entity_id(subject_id),
        action=action,
        created_at=now,
        performed_by=actor,
        details={name: value for name, value in said.items() if value is not None},
    )
