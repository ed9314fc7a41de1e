"""How a job is stored.

Document shape (``<app>_compliance.jobs``)::

    {_id: request_id, kind: str, payload: object, payload_hash: str, origin: str, sender: str | null, state: str,
     priority: int, deadline: date | null, trace_id: str | null,
     locks: [str],                        only where there are any; while it runs no other job has one of them
     attempts: int, takeovers: int, fence: int, lease: {owner: str, until: date} | null,
     run_at: date | null, ring_at: date | null, rings: int, asked: "cancel" | "park" | null,
     checkpoint: object, result: object | null, result_digest: str | null,
     error: {code: str, message: str} | null,
     created_at: date, updated_at: date, finished_at: date | null,
     refused: true}                       only where it is no job, but the note of a message that was refused
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from compliance.jobs.job import DEFAULT_PRIORITY, FINAL, Ask, Job, Payload, RequestId, State, Terms

DEFAULT = Terms()


def new_document(
    request_id: RequestId,
    *,
    kind: str,
    payload: Payload,
    origin: str,
    now: datetime,
    sender: str | None = None,
    terms: Terms = DEFAULT,
    locks: Sequence[str] = (),
) -> dict[str, Any]:
    """Return a queued job as it is stored."""
    document = {
        "_id": request_id,
        "kind": kind,
        "payload": payload,
        "payload_hash": payload_hash(payload),
        "origin": origin,
        "sender": sender,
        "state": State.QUEUED.value,
        "priority": terms.priority,
        "deadline": terms.deadline,
        "trace_id": terms.trace_id,
        "attempts": 0,
        "takeovers": 0,
        "fence": 0,
        "lease": None,
        "run_at": None,
        "ring_at": None,
        "rings": 0,
        "asked": None,
        "checkpoint": {},
        "result": None,
        "result_digest": None,
        "error": None,
        "created_at": now,
        "updated_at": now,
        "finished_at": None,
    }
    return document | ({"locks": list(locks)} if locks else {})


def succeeded(result: Mapping[str, Any], *, now: datetime) -> dict[str, Any]:
    """Return the changes that end a job with *result*."""
    return finished(State.DONE, now=now, result=dict(result), result_digest=payload_hash(dict(result)), error=None)


def finished(state: State, *, now: datetime, **changes: Any) -> dict[str, Any]:
    """Return the changes that end a job in *state*."""
    if state not in FINAL:
        raise ValueError(f"{state} is no final state")
    return {"state": state.value, "lease": None, "finished_at": now, **changes}


def from_document(document: Mapping[str, Any]) -> Job:
    """Return the job that *document* of the ledger holds."""
    asked, lease = document.get("asked"), document.get("lease") or {}
    return Job(
        request_id=RequestId(document["_id"]),
        kind=document["kind"],
        payload=document["payload"],
        state=State(document["state"]),
        created_at=document["created_at"],
        origin=document.get("origin", ""),
        sender=document.get("sender"),
        terms=Terms(
            priority=document.get("priority", DEFAULT_PRIORITY),
            deadline=document.get("deadline"),
            trace_id=document.get("trace_id"),
        ),
        locks=tuple(document.get("locks", ())),
        attempts=document["attempts"],
        takeovers=document.get("takeovers", 0),
        fence=document["fence"],
        checkpoint=document.get("checkpoint") or {},
        result=document.get("result"),
        result_digest=document.get("result_digest"),
        error=document.get("error"),
        asked=Ask(asked) if asked else None,
        owner=lease.get("owner"),
        lease_until=lease.get("until"),
        run_at=document.get("run_at"),
        finished_at=document.get("finished_at"),
    )


def payload_hash(payload: Payload) -> str:
    """Return the SHA-256 of *payload* as JSON with sorted keys, by which a repeated request id is compared."""
    return hashlib.sha256(json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
