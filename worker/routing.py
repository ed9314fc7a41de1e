"""Decide which queue takes which kind of work, and which follow-up work a change event asks for; pure."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from compliance.datamap.model import DataMap
from compliance.datamap.subject import parse_subject_id, to_text
from compliance.errors import InvalidPayload

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


def pipeline(data_map: DataMap) -> list[dict[str, Any]]:
    """Return the change stream stages that let pass what ``route`` looks at, without any document."""
    root = {"operationType": "delete", "ns.coll": data_map.subject.collection}
    schema = {"operationType": {"$in": list(SCHEMA_EVENTS)}}
    slim = {"operationType": 1, "ns": 1, "documentKey": 1, "clusterTime": 1}
    return [{"$match": {"$or": [root, schema]}}, {"$project": slim}]


def route(change: Mapping[str, Any], data_map: DataMap) -> FollowUp | None:
    """Return what the *change* event asks for: a person gone asks whether all is gone, DDL asks for the schema checks.

    The id of the request comes from the event, so that the same event twice is one job.
    """
    request_id = f"watch-{hashlib.sha256(str(change['_id']).encode()).hexdigest()[:24]}"
    kind = change["operationType"]
    if kind == "delete" and change["ns"]["coll"] == data_map.subject.collection:
        subject_id = _subject_of(change, data_map)
        if subject_id is None:
            return None
        payload = {"checks": ["no_residual"], "subject_id": subject_id, "cause": "change"}
        return FollowUp("health.check", request_id, payload)
    if kind in SCHEMA_EVENTS:
        return FollowUp("health.check", request_id, {"checks": list(SCHEMA_CHECKS), "cause": "change"})
    return None


def _subject_of(change: Mapping[str, Any], data_map: DataMap) -> str | None:
    """Return the id of the person that *change* is about, None where its ``_id`` does not tell."""
    if data_map.root_key.path != "_id":
        return None
    try:
        text = to_text(change["documentKey"]["_id"])
        parse_subject_id(text, data_map)
    except (InvalidPayload, ValueError):
        return None
    return text


def coalesce(follow_ups: Iterable[FollowUp | None]) -> list[FollowUp]:
    """Return one of each: a burst of schema changes asks for one check."""
    unique = {(found.kind, str(found.payload)): found for found in follow_ups if found is not None}
    return list(unique.values())
