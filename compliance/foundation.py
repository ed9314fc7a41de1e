"""The collections of ``<app>_compliance`` with their indexes, and how they are made what they should be.

Which jobs may run together is decided by a unique index, so an index that is missing or differs is no matter of speed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import bson
from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import OperationFailure

from compliance.errors import StepRefused
from compliance.mongo import DUPLICATE_KEY, Databases, driver_errors

NAMESPACE_EXISTS = 48
WAITING = {"state": "queued"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# The partial ones hold unfinished jobs only: to take, ring or take over costs the same beside ten million done ones.
OWN: dict[str, tuple[IndexModel, ...]] = {
    "jobs": (
        IndexModel(
            [("kind", ASCENDING), ("priority", DESCENDING), ("deadline", ASCENDING)],
            name="ix_job_waiting",
            partialFilterExpression=WAITING,
        ),
        IndexModel([("ring_at", ASCENDING)], name="ix_job_ring", partialFilterExpression=WAITING),
        IndexModel(
            [("locks", ASCENDING)],
            name="ix_job_lock_waiting",
            partialFilterExpression={**WAITING, "locks": {"$exists": True}},
        ),
        IndexModel([("lease.until", ASCENDING)], name="ix_job_lease", partialFilterExpression={"state": "running"}),
        IndexModel(
            [("locks", ASCENDING)],
            name="ux_job_lock",  # two running jobs never have one lock
            unique=True,
            partialFilterExpression={"state": "running", "locks": {"$exists": True}},
        ),
        IndexModel([("state", ASCENDING), ("created_at", DESCENDING)], name="ix_job_state"),
        IndexModel([("kind", ASCENDING), ("created_at", DESCENDING)], name="ix_job_kind"),
        IndexModel([("created_at", DESCENDING)], name="ix_job_created"),
        IndexModel(
            [("finished_at", ASCENDING)],
            name="ix_job_finished",
            partialFilterExpression={"finished_at": {"$gt": EPOCH}},  # a query since a later time implies it
        ),
    ),
    "erasure_requests": (
        IndexModel([("subject_id", ASCENDING)], name="ix_request_subject"),
        IndexModel([("normalised_id", ASCENDING)], name="ix_request_normalised", sparse=True),
        IndexModel([("state", ASCENDING), ("due_at", ASCENDING)], name="ix_request_state_due"),
        IndexModel([("held.hold", ASCENDING)], name="ix_request_held", sparse=True),
    ),
    "erasure_returns": (),
    "holds": (IndexModel([("subject_id", ASCENDING)], name="ix_hold_subject"),),
    "data_maps": (),
    "consent_events": (
        IndexModel(
            [("subject_id", ASCENDING), ("type", ASCENDING), ("occurred_at", ASCENDING)],
            name="ix_consent_event_subject",
        ),
    ),
    "health_checks": (
        IndexModel([("checked_at", DESCENDING)], name="ix_check_at"),
        IndexModel([("subject_id", ASCENDING)], name="ix_check_subject"),
    ),
    "outbox": (),
    "watch_tokens": (),
    "schedules": (),
    "migration_history": (),
    "migration_lease": (),
    "migration_steps": (),
    "migration_sources": (),
    "migration_control": (),
    "migration_writes": (IndexModel([("revision", ASCENDING), ("at", ASCENDING)], name="ix_write_at"),),
    "migration_approvals": (IndexModel([("gate", ASCENDING)], name="ix_approval_gate"),),
    "migration_promotions": (),
    "declared_schema": (),
    "pre_image_sets": (),
    "set_aside": (),
}

UNSAID = frozenset({"name", "v", "ns", "background"})  # what a server adds to an index, and its name


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not as declared.

    Attributes:
        index: None where the whole collection is missing.
        differs_in: Options in which the index that is there differs; empty where it is missing.
    """

    collection: str
    index: IndexModel | None = None
    differs_in: tuple[str, ...] = ()

    @property
    def thing(self) -> str:
        """What it is about, for a sentence."""
        if self.index is None:
            return f"collection {self.collection}"
        return f"index {self.collection}.{self.index.document['name']}"

    @property
    def problem(self) -> str:
        """The sentence of a check."""
        fault = f"differs in {', '.join(self.differs_in)}" if self.differs_in else "is missing"
        return f"{self.thing} {fault}"


def find_differences(databases: Databases) -> list[Difference]:
    """Compare ``OWN`` with what is there: names, keys, uniqueness, partial filter and every other option.

    A read-only operation: the worker's rights are enough.
    """
    with driver_errors():
        present = set(databases.compliance.list_collection_names())
        missing = [Difference(collection=name) for name in OWN if name not in present]
        return missing + [difference for name in OWN for difference in _of_indexes(databases, name)]


def ensure_own(databases: Databases) -> list[str]:
    """Create what is missing, drop and create anew what differs; return what was created.

    Raises:
        StepRefused: When documents break a unique index; it is missing then, and the next call tries again.
    """
    return [_mend(databases, difference) for difference in find_differences(databases)]


def _of_indexes(databases: Databases, collection: str) -> Iterator[Difference]:
    present = databases.compliance[collection].index_information()
    for index in OWN[collection]:
        found = present.get(index.document["name"])
        if found is None:
            yield Difference(collection=collection, index=index)
            continue
        wanted, observed = _options(index.document), _options(found)
        differs_in = tuple(sorted(key for key in wanted | observed if wanted.get(key) != observed.get(key)))
        if differs_in:
            yield Difference(collection=collection, index=index, differs_in=differs_in)


def _options(index: Mapping[str, Any]) -> dict[str, Any]:
    """What an index is, as the server would return it: times without zone, keys in their order."""
    options = {name: value for name, value in index.items() if name not in UNSAID}
    return bson.decode(bson.encode(options | {"key": [list(key) for key in dict(index["key"]).items()]}))


def commands_of(difference: Difference) -> Iterator[dict[str, Any]]:
    """Yield the commands that mend *difference*, as the server gets them."""
    name, majority = difference.collection, {"writeConcern": {"w": "majority"}}
    if difference.index is None:
        yield {"create": name, **majority}
        return
    index = difference.index.document
    if difference.differs_in:
        yield {"dropIndexes": name, "index": index["name"], **majority}
    yield {"createIndexes": name, "indexes": [index], **majority}


def _mend(databases: Databases, difference: Difference) -> str:
    with driver_errors():
        try:
            for command in commands_of(difference):
                databases.compliance.command(command)
        except OperationFailure as error:
            if difference.index is None and error.code == NAMESPACE_EXISTS:
                return difference.thing  # somebody else was faster
            if error.code != DUPLICATE_KEY:
                raise
            raise StepRefused(
                f"{difference.thing} cannot be unique while documents share a value; where these are running jobs, let "
                "them end, or stop the workers, which hand them back; then run `compliance migrate up` again"
            ) from None
    return difference.thing
