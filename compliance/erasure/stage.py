"""The stages of an erasure request and the moves between them; pure."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from compliance.period import ONE_MONTH

REQUESTS = "erasure_requests"


class Stage(StrEnum):
    """Where a request stands."""

    RECEIVED = "received"
    ACCEPTED = "accepted"
    PLANNED = "planned"
    GRACE = "grace"
    EXECUTING = "executing"
    VERIFYING = "verifying"
    COMPLETED = "completed"
    COMPLETED_WITH_RETENTION = "completed_with_retention"
    RESIDUAL_FOUND = "residual_found"
    REPLANNED = "replanned"
    FAILED = "failed"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"


COMPLETE = (Stage.COMPLETED, Stage.COMPLETED_WITH_RETENTION)
WAITING_FOR_HOLDS = (Stage.COMPLETED_WITH_RETENTION, Stage.REJECTED)  # where a legal hold can have kept data back
NEXT: Mapping[Stage, tuple[Stage, ...]] = {
    Stage.RECEIVED: (Stage.ACCEPTED, Stage.REJECTED, Stage.WITHDRAWN),
    Stage.ACCEPTED: (Stage.PLANNED, Stage.REJECTED, Stage.WITHDRAWN),
    Stage.PLANNED: (Stage.GRACE, Stage.EXECUTING, Stage.REPLANNED, Stage.REJECTED, Stage.WITHDRAWN),
    Stage.GRACE: (Stage.EXECUTING, Stage.REPLANNED, Stage.REJECTED, Stage.WITHDRAWN),
    Stage.REPLANNED: (Stage.EXECUTING, Stage.REPLANNED, Stage.FAILED, Stage.REJECTED, Stage.WITHDRAWN),
    Stage.EXECUTING: (
        Stage.EXECUTING,  # another attempt
        Stage.VERIFYING,
        Stage.RESIDUAL_FOUND,
        Stage.REPLANNED,
        Stage.FAILED,
        Stage.REJECTED,
        Stage.WITHDRAWN,
    ),
    Stage.VERIFYING: (
        Stage.EXECUTING,  # another attempt
        Stage.RESIDUAL_FOUND,
        Stage.REPLANNED,
        Stage.FAILED,
        Stage.WITHDRAWN,
        *COMPLETE,
    ),
    Stage.RESIDUAL_FOUND: (Stage.REPLANNED, Stage.REJECTED, Stage.WITHDRAWN),
    Stage.FAILED: (Stage.REPLANNED, Stage.REJECTED, Stage.WITHDRAWN),
}
BEGUN = (Stage.EXECUTING, Stage.VERIFYING, Stage.RESIDUAL_FOUND, Stage.REPLANNED, Stage.FAILED)


def may_become(source: Stage, target: Stage) -> bool:
    """Whether a request that stands at *source* may move to *target*."""
    return target in NEXT.get(source, ())


def due_date(received: datetime) -> datetime:
    """Return the last day to answer: one calendar month later, or the last day of a shorter month.

    Source: GDPR Art. 12(3).
    """
    return ONE_MONTH.after(received)
