"""The stages of an erasure request and the moves between them; pure."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from compliance.period import ONE_MONTH

REQUESTS = "erasure_requests"


class Stage(StrEnum):
    """Where a request stands."""

    RECEIVED = "received"
    PLANNED = "planned"
    EXECUTING = "executing"
    COMPLETED = "completed"
    COMPLETED_WITH_RETENTION = "completed_with_retention"
    RESIDUAL_FOUND = "residual_found"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"


COMPLETE = (Stage.COMPLETED, Stage.COMPLETED_WITH_RETENTION)
NEXT: Mapping[Stage, tuple[Stage, ...]] = {
    Stage.RECEIVED: (Stage.PLANNED, Stage.REJECTED, Stage.WITHDRAWN),
    Stage.PLANNED: (Stage.EXECUTING, Stage.REJECTED, Stage.WITHDRAWN),
    Stage.EXECUTING: (Stage.EXECUTING, Stage.RESIDUAL_FOUND, Stage.REJECTED, Stage.WITHDRAWN, *COMPLETE),
    Stage.RESIDUAL_FOUND: (Stage.EXECUTING, Stage.WITHDRAWN),
}


def due_date(received: datetime) -> datetime:
    """Return the last day to answer: one calendar month later, or the last day of a shorter month.

    Source: GDPR Art. 12(3).
    """
    return ONE_MONTH.after(received)
