"""Which steps of a script were carried out: insert only, each in the transaction that ends the step.

Document shape (``migration_steps``)::

    {_id: {passage: ObjectId, number: int}, revision: str, kind: str, what: str, digest: str, by: str, at: date,
     documents?: int, work_ms?: int}

``work_ms`` is how long the batches took in all, without what they waited.

A passage goes through a script once, with all its interruptions, and is named by the event of the history with which it
began; the next one, such as up again after a down, begins anew.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from bson import MaxKey, ObjectId
from pymongo import DESCENDING

from compliance.mongo import Databases, Document, Session, driver_errors
from migrations.past import REPAIRED
from migrations.step import Step

STEPS = "migration_steps"
RECENT = 20
BEGINS, ENDS = ("started", "reverting"), ("applied", "reverted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """The steps of one passage through a script.

    Attributes:
        done: The digest of each step that was carried out, by its number.
        is_accepted: Whether a person answers for it that what was carried out is what the script says now.
    """

    databases: Databases
    revision: str
    passage: ObjectId
    done: Mapping[int, str]
    is_accepted: bool = False

    def add(self, step: Step, *, at: datetime, by: str, session: Session, cost: Mapping[str, int]) -> None:
        """Add *step* in the transaction of *session*; nothing where it was carried out before.

        Args:
            cost: ``documents`` and ``work_ms`` of a step with batches; empty for others.
        """
        if step.number in self.done:
            return
        self.databases.compliance[STEPS].insert_one(
            {
                "_id": {"passage": self.passage, "number": step.number},
                "revision": self.revision,
                "kind": step.kind.value,
                "what": step.what,
                "digest": step.digest,
                "by": by,
                "at": at,
                **cost,
            },
            session=session,
        )


def passage_of(events: Iterable[Document], begin: str) -> ObjectId | None:
    """Return the id of the event with which the passage began that *begin* goes on with; None for a new one.

    Args:
        events: What the history says of the script, oldest first.
        begin: ``started`` or ``reverting``.
    """
    passage, way = None, None
    for event in events:
        if event["event"] in ENDS:
            passage, way = None, None
        elif event["event"] in BEGINS and event["event"] != way:  # half applied, half undone: nothing counts as done
            passage, way = event["_id"], event["event"]
    return passage if way == begin else None


def started_under(events: Iterable[Document], checksum: str) -> frozenset[int]:
    """Return the fences under which the passage up that is open was begun, or gone on with, as the text of *checksum*.

    Args:
        events: What the history says of the script, oldest first.
        checksum: Of the script as it is to run now.
    """
    fences = set[int]()
    for event in events:
        if event["event"] == BEGINS[0]:
            if event["checksum"] == checksum:
                fences.add(event["fence"])
        elif event["event"] != REPAIRED:
            fences.clear()
    return frozenset(fences)


def is_accepted(events: Iterable[Document], passage: ObjectId | None, checksum: str) -> bool:
    """Whether a person accepted the text of *checksum* in *passage*.

    Args:
        events: What the history says of the script, oldest first.
        passage: As ``passage_of`` returns it.
        checksum: Of the script as it is to run now.
    """
    is_within = False
    for event in events:
        is_within = is_within or event["_id"] == passage
        if is_within and event["event"] == REPAIRED and event["checksum"] == checksum:
            return True
    return False


def open_journal(databases: Databases, *, revision: str, passage: ObjectId, is_accepted: bool = False) -> Journal:
    """Return the journal of one passage as it is now."""
    first, last = {"passage": passage, "number": 0}, {"passage": passage, "number": MaxKey()}
    with driver_errors():
        found = databases.compliance[STEPS].find({"_id": {"$gte": first, "$lt": last}})
        done = {step["_id"]["number"]: step["digest"] for step in found}
    return Journal(databases=databases, revision=revision, passage=passage, done=done, is_accepted=is_accepted)


def measured_rate(databases: Databases) -> float | None:
    """Return how many documents a second the last steps with batches changed here; None where none is known."""
    with driver_errors():
        found = databases.compliance[STEPS].find({"work_ms": {"$gt": 0}, "documents": {"$gt": 0}})
        steps = list(found.sort("_id", DESCENDING).limit(RECENT))
    took = sum(step["work_ms"] for step in steps)
    return 1000 * sum(step["documents"] for step in steps) / took if took else None
