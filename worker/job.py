"""A kind of work: its name, its payload, its queue, its function, and the registry of all kinds."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, ValidationError

from compliance.errors import InvalidPayload
from compliance.jobs.job import Job
from compliance.jobs.run import Run
from compliance.mongo import Session
from compliance.registry import Registry
from worker.services import Services

ACTOR = "worker"
COLLECTION_NAME = r"^[A-Za-z_][A-Za-z0-9_.-]{0,119}$"
SAFE_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}")


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("expected a time of the years 1 to 9999 in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class Payload(BaseModel):
    """Base of the payload models: ids only, nothing unknown, and no value in an error message."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def subjects(self) -> tuple[str, ...]:
        """Return the ids of the data subjects that it names, in ``subject_id`` or ``subject_ids``."""
        one, many = getattr(self, "subject_id", None), getattr(self, "subject_ids", ())
        return (*many, *((one,) if one is not None else ()))

    def locks(self, subjects: Sequence[str]) -> tuple[str, ...]:
        """Return the names of what a job must have alone while it runs.

        Args:
            subjects: The ids of ``subjects()``, each person's in one spelling.
        """
        del subjects
        return ()


def subject_lock(subject_id: str) -> str:
    """Return the name under which a job has one person alone."""
    return f"subject:{subject_id}"


def collection_lock(name: str) -> str:
    """Return the name under which a job has one collection alone."""
    return f"collection:{name}"


def progress_text(checkpoint: Mapping[str, Any]) -> str | None:
    """Return how far a job with this *checkpoint* is, as people read it; None where it does not say."""
    if "progress" in checkpoint:
        return str(checkpoint["progress"])
    step, steps, inserted = (checkpoint.get(name) for name in ("step", "steps", "inserted"))
    if step and steps:
        return f"step {step} of {steps}"
    return f"{inserted} documents inserted" if inserted else None


def seconds_left(checkpoint: Mapping[str, Any]) -> float | None:
    """Return how long the present step of a job with this *checkpoint* still takes; None where it does not say."""
    left = checkpoint.get("seconds_left")
    return None if left is None else float(left)


P = TypeVar("P", bound=Payload)
Work = Callable[[P, Run, Services], None]
OnEnd = Callable[[Job, Services, Session], None]
Due = Callable[[datetime], datetime]


def in_a_day(received: datetime) -> datetime:
    """Return the deadline of work that nobody set one for."""
    return received + timedelta(days=1)


def _nothing(_job: Job, _services: Services, _session: Session) -> None:
    """Leave nothing behind when a job of this kind ends without success."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKind:
    """A kind of work: its Celery task is ``compliance.<name>``.

    Attributes:
        payload: The model of what a message says.
        queue: The Celery queue.
        work: What is done; everything it changes goes through ``run.commit``.
        is_small: Whether the work is one transaction: then a new job is recorded in it, and pays for no lease.
        due: The deadline of a job that was received at a time, where the sender gives none.
        on_cancel: What else is recorded in the transaction that cancels a job.
        on_failure: What else is recorded in the transaction that parks a job for an error.
    """

    name: str
    payload: type[Payload]
    queue: str
    work: Callable[[Any, Run, Services], None]
    is_small: bool = False
    due: Due = in_a_day
    on_cancel: OnEnd = _nothing
    on_failure: OnEnd = _nothing

    @property
    def task(self) -> str:
        """The name that other services send."""
        return f"compliance.{self.name}"


JOBS: Registry[JobKind] = Registry("job kind")


def job(name: str, payload: type[P], *, queue: str, **more: Any) -> Callable[[Work[P]], Work[P]]:
    """Register a function as the work of the kind *name*; *more* are fields of ``JobKind``."""

    def register(work: Work[P]) -> Work[P]:
        JOBS.add(name, JobKind(name=name, payload=payload, queue=queue, work=work, **more))
        return work

    return register


def parse(kind: JobKind, values: Mapping[str, Any]) -> Payload:
    """Return the payload that *values* hold.

    Raises:
        InvalidPayload: With every fault by field; values, and names that could be values, are not repeated.
    """
    return validate(kind.payload, values, about=kind.task)


M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], values: Mapping[str, Any], *, about: str) -> M:
    """Return *values* as *model*; see ``parse``."""
    found, faults = check(model, values)
    if found is None:
        raise InvalidPayload(f"{about}: {'; '.join(sorted(faults))}")
    return found


def check(model: type[M], values: Mapping[str, Any]) -> tuple[M | None, set[str]]:
    """Return *values* as *model*, or every fault by field; see ``parse``."""
    try:
        return model.model_validate(dict(values)), set()
    except ValidationError as error:
        return None, {f"{_field(fault['loc'])}: {fault['msg']}" for fault in error.errors(include_input=False)}


def _field(location: tuple[int | str, ...]) -> str:
    name = str(location[0]) if location else "payload"
    return name if SAFE_NAME.fullmatch(name) else "(a field whose name is not shown)"
