"""Where the reconciler of an online change stands: the checkpoint of its lease, for whoever waits for it or asks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from bson import ObjectId, Timestamp, json_util

from compliance.errors import ShapesDisagree
from compliance.health.declared import DECLARED
from compliance.jobs.document import new_document
from compliance.jobs.job import RequestId
from compliance.jobs.ledger import Ledger
from compliance.mongo import Databases, Document, driver_errors
from migrations.ledger import LEASE
from migrations.online.feed import CONTROL, majority_moment
from migrations.online.shape import Side

NEVER = Timestamp(0, 0)
BEHIND = timedelta(seconds=30)  # how long whoever waits for the reconciler does so
POLL = timedelta(milliseconds=100)
KIND = "migration.lease"
START_IT = "start the process `compliance reconciler`, or run the command again when it is there"


def lease_id(revision: str) -> RequestId:
    """Return the id of the lease under which the shapes of *revision* are kept in step."""
    return RequestId(f"reconcile {revision}")


def settle_id(revision: str) -> str:
    """Return the id of the request of a person to settle what disagrees in *revision*."""
    return f"settle {revision}"


class Doing(StrEnum):
    """What whoever keeps the shapes in step does."""

    FOLLOWING = "following changes"
    COMPARING = "comparing every document"
    AWAITING = "waiting for the collection"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of a reconciler.

    Attributes:
        owner: Who keeps the shapes in step; None while nobody does.
        upto: The moment up to which everything is in step.
        lag: How far that is behind the present, by the clock of the server.
        writes: How many documents it has written so far.
        lost: How often it began again, for the oplog did not reach back or the collection was not the same.
        doing: What is done at present; with nobody to do it, what comes next.
    """

    owner: str | None
    upto: Timestamp | None
    lag: timedelta | None
    leaving: str | None
    writes: int
    lost: int
    doing: Doing


def begin(databases: Databases, revision: str, *, passage: ObjectId, before: Mapping[str, Any], at: datetime) -> None:
    """Note from which moment on the shapes of *revision* are to be kept in step; once for each passage.

    Args:
        databases: Where.
        revision: The change.
        passage: The event of the history with which it began.
        before: The validator as it was, for a rollback.
        at: When.
    """
    id_, start = lease_id(revision), majority_moment(databases)
    Ledger(databases, LEASE).record(new_document(id_, kind=KIND, payload={}, origin="migrations", now=at))
    checkpoint = {"passage": passage, "start": start, "upto": start, "token": None, "before": json_util.dumps(before)}
    with driver_errors():
        asked = databases.compliance[CONTROL].find_one({"_id": settle_id(revision)})
        if asked is not None:
            checkpoint["settled"] = asked["request"]  # of an earlier start: it was about other documents
        databases.compliance[LEASE].update_one(
            {"_id": id_, "checkpoint.passage": {"$ne": passage}}, {"$set": {"checkpoint": checkpoint}}
        )


def checkpoint_of(databases: Databases, revision: str) -> Document:
    """Return the checkpoint of the reconciler of *revision*; empty where it was never begun."""
    with driver_errors():
        found = databases.compliance[LEASE].find_one({"_id": lease_id(revision)}, {"checkpoint": 1}) or {}
    return dict(found.get("checkpoint") or {})


def rules_before(databases: Databases, revision: str) -> dict[str, Any]:
    """Return what ``begin`` was told of the validator."""
    return dict(json_util.loads(checkpoint_of(databases, revision).get("before", "{}")))


def declared_before(databases: Databases, collection: str) -> Document | None:
    """Return what is declared of *collection* at present."""
    with driver_errors():
        return databases.compliance[DECLARED].find_one({"_id": f"collection:{collection}"})


def standing_of(databases: Databases, revision: str) -> Standing:
    """Return how the reconciler of *revision* stands."""
    with driver_errors():
        found = databases.compliance[LEASE].find_one({"_id": lease_id(revision)}) or {}
    left, lease = found.get("checkpoint") or {}, found.get("lease") or {}
    now, upto = databases.server_time(), left.get("upto")
    return Standing(
        owner=lease.get("owner") if _lives(lease, now) else None,
        upto=upto,
        lag=max(timedelta(), now - upto.as_datetime()) if upto else None,
        leaving=left.get("leaving"),
        writes=left.get("writes", 0),
        lost=left.get("lost", 0),
        doing=_doing(left),
    )


def _doing(left: Mapping[str, Any]) -> Doing:
    if left.get("away"):
        return Doing.AWAITING
    return Doing.COMPARING if left.get("unseen") else Doing.FOLLOWING


def _lives(lease: Mapping[str, Any], now: datetime) -> bool:
    return bool(lease) and lease["until"] > now


def wait_until_followed(
    databases: Databases,
    revision: str,
    moment: Timestamp,
    *,
    leaving: Side | None,
    sleep: Callable[[timedelta], None],
    patience: timedelta = BEHIND,
) -> None:
    """Return once everything up to *moment* is in step, by a reconciler that knows which shape is *leaving*.

    Raises:
        ShapesDisagree: When it does not come so far.
    """
    waited = timedelta()
    while waited < patience:
        found = checkpoint_of(databases, revision)
        is_compared = not found.get("unseen")
        if (
            is_compared
            and found.get("leaving") == (leaving.value if leaving else None)
            and found.get("upto", NEVER) >= moment
        ):
            return
        sleep(POLL)
        waited += POLL
    owner = standing_of(databases, revision).owner
    who = f"{owner} is behind" if owner else "nobody does it"
    raise ShapesDisagree(f"the shapes of {revision} are not kept in step up to now: {who}; {START_IT}")
