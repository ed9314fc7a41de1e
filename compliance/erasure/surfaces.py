"""Look at what MongoDB and its operators keep beside the collections: who was erased from these may still stand there.

Nothing here keeps an erasure from being completed: what this process may not read, or does not understand, is unknown,
and the report says what to do.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from bson import MaxKey
from pymongo.collection import Collection

from compliance.audit.entry import EntityId
from compliance.datamap.model import DataMap
from compliance.datamap.outside import PreImages
from compliance.erasure.surface import (
    BACKUPS,
    LOGS,
    MIGRATIONS,
    OPLOG,
    PRE_IMAGES,
    PROFILE,
    State,
    Surface,
    clean,
    expires,
    unknown,
)
from compliance.erasure.sweep import Finder, sweep_collection
from compliance.errors import ConfigurationError, StepRefused
from compliance.mongo import Databases, Document, driver_errors
from compliance.period import Period
from compliance.roles import PRE_IMAGES as KEPT_BY_MIGRATIONS
from compliance.roles import PROFILES, STREAM_PRE_IMAGES

PURGED_DOCS = 1000  # in one delete
_EMPTY = 1e-6  # of an oplog in which next to nothing is
PROVISION = "run `compliance doctor --provision`, so that workers may look"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The erasure that surfaces are looked at for.

    Attributes:
        names: How the audit log names the person.
        needles: What recognises the person.
        collections: Where documents were erased.
        done_at: When the last of them was; what is newer holds nothing about the person.
        check: Called now and then; ends the look by what it raises.
    """

    databases: Databases
    data_map: DataMap
    names: tuple[EntityId, ...]
    needles: Finder
    collections: frozenset[str]
    done_at: datetime
    check: Callable[[], None] = lambda: None


Look = Callable[[Scope], Surface]


def look_at_surfaces(scope: Scope, looks: Iterable[tuple[str, Look]]) -> tuple[Surface, ...]:
    """Return what each of *looks*, by the name of its surface, finds."""
    return tuple(_looked_at(name, look, scope) for name, look in looks)


def _looked_at(name: str, look: Look, scope: Scope) -> Surface:
    try:
        return look(scope)
    except ConfigurationError:
        return unknown(name, "this worker has no right to look at it", todo=PROVISION)
    except StepRefused as error:
        return unknown(name, str(error), todo="ask the administrator of the servers")


def oplog(scope: Scope) -> Surface:
    """Look how long the oplog reaches back; it cannot be written to, so what is in it leaves by age only.

    Its rate is that of the whole window, so the date is a forecast: it says so.
    """
    admin, local = scope.databases.client.admin, scope.databases.client.local
    with driver_errors():
        status = admin.command("serverStatus", oplog=1)
        stats = local.command("collStats", "oplog.rs")
    found = status.get("oplog")
    if found is None:
        return unknown(OPLOG, "the server tells nothing of its oplog", todo="ask the administrator of the servers")
    return judge_oplog(
        found["earliestOptime"].as_datetime(),
        found["latestOptime"].as_datetime(),
        filled=stats["size"] / stats["maxSize"],
        least=timedelta(hours=status.get("oplogTruncation", {}).get("oplogMinRetentionHours", 0)),
        done_at=scope.done_at,
    )


def judge_oplog(first: datetime, last: datetime, *, filled: float, least: timedelta, done_at: datetime) -> Surface:
    """Return what is known of an oplog that reaches from *first* to *last*.

    Args:
        first: When its oldest entry was written.
        last: When its newest was.
        filled: Which part of its largest size it takes; one that is not full reaches further back before it loses any.
        least: How long entries are kept at least.
        done_at: When the person was erased.
    """
    window = f"the oplog reached from {_time(first)} to {_time(last)}, with a least retention of {_hours(least)} hours"
    if first > done_at:
        return clean(OPLOG, f"{window}: from after the erasure")
    try:
        at = done_at + max((last - first) / min(max(filled, _EMPTY), 1.0), least)
    except OverflowError:
        at = datetime.max.replace(tzinfo=done_at.tzinfo)
    return expires(OPLOG, _whole(at), f"{window}; at that rate the entries leave it by this date")


def pre_images(scope: Scope) -> Surface:
    """Look at the pre-images of change streams, and remove those of the person where the data map says so."""
    with driver_errors():
        listed = [info for info in scope.databases.app.list_collections() if info["type"] == "collection"]
    kept = sorted(info["name"] for info in listed if _keeps_pre_images(info))
    if scope.data_map.surfaces.pre_images is PreImages.PURGE:
        purged = _purge(scope, [info["info"]["uuid"] for info in listed])
        return clean(PRE_IMAGES, f"{purged} pre-images in which the person stood were removed; none is left")
    if not kept:
        return clean(PRE_IMAGES, "no collection keeps pre-images")
    seconds = _expiry(scope.databases)
    names = ", ".join(kept)
    if seconds is None:
        by_oplog = oplog(scope)
        evidence = f"{names} keep pre-images as long as the oplog reaches back"
        if by_oplog.state is not State.EXPIRES or by_oplog.expires_at is None:
            return unknown(PRE_IMAGES, evidence, todo="set surfaces.pre_images: purge in the data map")
        return expires(PRE_IMAGES, by_oplog.expires_at, evidence)
    return expires(
        PRE_IMAGES,
        _whole(scope.done_at + timedelta(seconds=seconds)),
        f"{names} keep pre-images for {seconds} seconds",
    )


def _keeps_pre_images(info: Mapping[str, Any]) -> bool:
    return bool(info["options"].get("changeStreamPreAndPostImages", {}).get("enabled"))


def _expiry(databases: Databases) -> int | None:
    """Return after how many seconds pre-images expire, None where they do with the oplog."""
    with driver_errors():
        found = databases.client.admin.command("getClusterParameter", "changeStreamOptions")
    seconds = found["clusterParameters"][0].get("preAndPostImages", {}).get("expireAfterSeconds", "off")
    return None if seconds == "off" else int(seconds)


def _purge(scope: Scope, uuids: Iterable[Any]) -> int:
    """Remove the pre-images in which the person stands; they lie outside any transaction, and a repeat finds none."""
    stored = scope.databases.client.config[STREAM_PRE_IMAGES]
    removed = 0
    for uuid in uuids:
        while batch := list(islice(_pre_images_of(stored, uuid, scope), PURGED_DOCS)):
            with driver_errors():
                removed += stored.delete_many({"_id": {"$in": batch}}).deleted_count
    return removed


def _pre_images_of(stored: Collection[Document], uuid: Any, scope: Scope) -> Iterator[Any]:
    """Yield the ids of those of one collection; the collection is clustered by them."""
    mine = {"_id": {"$gte": {"nsUUID": uuid}, "$lt": {"nsUUID": uuid, "ts": MaxKey()}}}
    for found in sweep_collection(stored, scope.needles, query=mine, check=scope.check):
        yield found["_id"]


def profile(scope: Scope) -> Surface:
    """Look at the profiler of the application database: an entry of it quotes the operation."""
    database = scope.databases.app
    with driver_errors():
        level = int(database.command("profile", -1)["was"])
        is_there = bool(list(database.list_collections(filter={"name": PROFILES})))
        others = len(database.client.admin.command("hello").get("hosts", ())) - 1
    found = sum(1 for _ in sweep_collection(database[PROFILES], scope.needles, check=scope.check)) if is_there else 0
    return judge_profile(level, found, others=others)


def judge_profile(level: int, found: int, *, others: int) -> Surface:
    """Return what is known of the profiler when *found* entries of the primary name the person.

    Args:
        level: That of the primary, 0 to 2; what it recorded before it was switched off stays.
        found: Entries of the primary in which an identifier stands.
        others: Further members of the replica set, each with a profiler of its own.
    """
    evidence = f"the profiler is at level {level}; {found} of its entries hold an identifier of the person"
    if found:
        return unknown(
            PROFILE, evidence, todo="db.setProfilingLevel(0), then db.system.profile.drop(), then the level again"
        )
    if others > 0:
        return unknown(
            PROFILE,
            f"on the primary {evidence}",
            todo=f"look at db.getProfilingStatus() and drop system.profile on the {others} other members",
        )
    return clean(PROFILE, evidence)


def copies_of_migrations(scope: Scope) -> Surface:
    """Look at what migrations keep of what they overwrote."""
    stored = scope.databases.app[KEPT_BY_MIGRATIONS]
    found = sum(1 for _ in sweep_collection(stored, scope.needles, check=scope.check))
    evidence = f"{found} of the documents that migrations keep hold an identifier of the person"
    if found:
        return unknown(MIGRATIONS, evidence, todo=f"ask for the erasure once more: {KEPT_BY_MIGRATIONS} was written to")
    return clean(MIGRATIONS, evidence)


def server_logs(scope: Scope) -> Surface:
    """Tell when the logs of the servers from before the erasure are gone, as the data map says."""
    return _declared(LOGS, scope.data_map.surfaces.logs, scope.done_at, variable="surfaces.logs")


def backups(scope: Scope) -> Surface:
    """Tell when the last backup from before the erasure is gone, as the data map says."""
    return _declared(BACKUPS, scope.data_map.surfaces.backups, scope.done_at, variable="surfaces.backups")


def _declared(name: str, period: Period | None, done_at: datetime, *, variable: str) -> Surface:
    if period is None:
        return unknown(
            name, "the data map does not say how long they are kept", todo=f"set {variable} in the data map, as P35D"
        )
    return expires(name, _whole(period.after(done_at)), f"the data map says that they are kept for {period}")


LOOKS: tuple[tuple[str, Look], ...] = (
    (OPLOG, oplog),
    (PRE_IMAGES, pre_images),
    (PROFILE, profile),
    (LOGS, server_logs),
    (MIGRATIONS, copies_of_migrations),
    (BACKUPS, backups),
)


def _whole(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)


def _hours(length: timedelta) -> str:
    return f"{length / timedelta(hours=1):g}"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
