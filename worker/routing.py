"""Decide which queue takes which kind of work, and which follow-up work a change event asks for; pure."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from compliance.datamap.model import DataMap
from compliance.datamap.subject import parse_subject_id, to_text
from compliance.erasure.stage import COMPLETE, REQUESTS
from compliance.errors import InvalidPayload
from compliance.jobs.job import Prefix

QUEUES = (
    "compliance.erasure",
    "compliance.consent",
    "compliance.bulk",
    "compliance.migration",
    "compliance.health",
    "compliance.audit",
)
SCHEMA_EVENTS = ("create", "createIndexes", "drop", "dropIndexes", "modify", "rename")
SCHEMA_CHECKS = ("declared_indexes", "declared_validators")


@dataclass(frozen=True, slots=True)
class FollowUp:
    """Work that a change event asks for."""

    kind: str
    request_id: str
    payload: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Source:
    """A change stream to follow: of the application database, or of ours."""

    database: Literal["app", "compliance"]
    stages: list[dict[str, Any]] = field(hash=False)
    full_document: Literal["updateLookup"] | None = None


def sources(data_map: DataMap) -> tuple[Source, ...]:
    """Return what to follow; the stages let pass what ``route`` looks at, and no document of the application.

    Where a root document is not known by its ``_id``, its deletion does not tell whom it was about; where that is
    personal, it would tell too much: then the completed request does.
    """
    root = {"operationType": "delete", "ns.coll": data_map.subject.collection}
    schema = {"operationType": {"$in": list(SCHEMA_EVENTS)}}
    slim = {"operationType": 1, "ns": 1, "documentKey": 1, "clusterTime": 1}
    gone = [] if data_map.root_key.personal else [root]  # the event would tell who it was
    app = Source("app", [{"$match": {"$or": [*gone, schema]}}, {"$project": slim}])
    if _is_told_by_deletion(data_map):
        return (app,)
    done = {
        "operationType": "update",
        "ns.coll": REQUESTS,
        "updateDescription.updatedFields.state": {"$in": [stage.value for stage in COMPLETE]},
    }
    subject = {"operationType": 1, "ns": 1, "fullDocument.subject_id": 1}
    return (app, Source("compliance", [{"$match": done}, {"$project": subject}], "updateLookup"))


def route(change: Mapping[str, Any], data_map: DataMap) -> FollowUp | None:
    """Return what the *change* event asks for: a person gone asks whether all is gone, DDL asks for the schema checks.

    The id of the request comes from the event, so that the same event twice is one job.
    """
    request_id = f"{Prefix.WATCH}{hashlib.sha256(str(change['_id']).encode()).hexdigest()[:24]}"
    kind = change["operationType"]
    if kind in ("delete", "update"):
        subject_id = _subject_of(change, data_map)
        if subject_id is None:
            return None
        payload = {"checks": ["no_residual"], "subject_id": subject_id, "cause": "change"}
        return FollowUp("health.check", request_id, payload)
    if kind in SCHEMA_EVENTS:
        return FollowUp("health.check", request_id, {"checks": list(SCHEMA_CHECKS), "cause": "change"})
    return None


def _subject_of(change: Mapping[str, Any], data_map: DataMap) -> str | None:
    """Return the id of the person who is gone after *change*, None where it does not tell of one."""
    collection = change["ns"]["coll"]
    if change["operationType"] == "delete" and collection == data_map.subject.collection:
        found = change["documentKey"]["_id"] if _is_told_by_deletion(data_map) else None
    elif change["operationType"] == "update" and collection == REQUESTS:
        found = (change.get("fullDocument") or {}).get("subject_id")
    else:
        found = None
    if found is None:
        return None
    try:
        text = to_text(found)
        parse_subject_id(text, data_map)
    except (InvalidPayload, ValueError):
        return None
    return text


def _is_told_by_deletion(data_map: DataMap) -> bool:
    return data_map.root_key.path == "_id" and not data_map.root_key.personal


def coalesce(follow_ups: Iterable[FollowUp | None]) -> list[FollowUp]:
    """Return one of each: a burst of schema changes asks for one check."""
    unique = {(found.kind, str(found.payload)): found for found in follow_ups if found is not None}
    return list(unique.values())
