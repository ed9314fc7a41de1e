"""What is asked for without anybody asking, and when: the schedules of a YAML file (``schedules/v1``), validated."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from compliance.errors import ConfigurationError, InvalidPayload
from compliance.jobs.job import DEFAULT_PRIORITY, HIGHEST_PRIORITY
from worker.job import JobKind, parse
from worker.slots import Cron, Every, Unit, When, check_expression, find_zone
from worker.tasks import JOBS

KINDS = {kind.task: kind for kind in JOBS.values()}
NAME = r"^[a-z0-9][a-z0-9-]{0,39}$"
ZONE = r"^(UTC|[A-Za-z]+(/[A-Za-z0-9_+-]+){1,2})$"

Count = Annotated[int, Field(strict=True, gt=0, le=100_000)]


def _known_task(value: str) -> str:
    if value not in KINDS:
        raise ValueError(f"there is no such task; known: {', '.join(sorted(KINDS))}")
    return value


def _known_zone(value: str) -> str:
    find_zone(value)
    return value


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Schedule(_Model):
    """One thing to ask for again and again.

    Attributes:
        name: Part of the request id of every job that comes of it.
        description: Why, for people.
        task: The public name of a task, such as ``compliance.health.check``.
        payload: Its keyword arguments; ids only.
        priority: 0 to 9; a higher one goes first.
        cron: Minute, hour, day of month, month and day of week, on the clocks of ``timezone``.
        every: A distance of time in one unit, such as ``{minutes: 15}``, instead of ``cron``.
        enabled: False lets its slots pass.
    """

    name: Annotated[str, StringConstraints(pattern=NAME)]
    description: Annotated[str, StringConstraints(min_length=3, max_length=200)]
    task: Annotated[str, AfterValidator(_known_task)]
    payload: Annotated[dict[str, Any], Field(validate_default=True)] = {}
    priority: Annotated[int, Field(strict=True, ge=0, le=HIGHEST_PRIORITY)] = DEFAULT_PRIORITY
    cron: Annotated[str, StringConstraints(max_length=100), AfterValidator(check_expression)] | None = None
    every: Annotated[dict[Unit, Count] | None, Field(min_length=1, max_length=1, validate_default=True)] = None
    timezone: Annotated[str, StringConstraints(pattern=ZONE), AfterValidator(_known_zone)] = "UTC"
    enabled: bool = True

    @field_validator("payload")
    @classmethod
    def _fits_its_task(cls, payload: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        kind = KINDS.get(info.data.get("task", ""))
        try:
            return payload if kind is None else parse(kind, payload).model_dump(mode="json", exclude_unset=True)
        except InvalidPayload as error:
            raise ValueError(str(error)) from None

    @field_validator("every")
    @classmethod
    def _instead_of_cron(cls, every: dict[Unit, int] | None, info: ValidationInfo) -> dict[Unit, int] | None:
        if "cron" in info.data and (info.data["cron"] is None) == (every is None):
            raise ValueError("give either cron or every")
        return every

    @field_validator("timezone")
    @classmethod
    def _belongs_to_cron(cls, zone: str, info: ValidationInfo) -> str:
        if info.data.get("every") is not None:
            raise ValueError("belongs to cron; every counts from 1970-01-01 UTC")
        return zone

    @property
    def values(self) -> dict[str, Any]:
        """What is asked for: the payload, and how urgent it is."""
        return {**self.payload, "priority": self.priority}

    @property
    def kind(self) -> JobKind:
        """The kind of work that it asks for."""
        return KINDS[self.task]

    @property
    def when(self) -> When:
        """Its slots."""
        if self.cron is not None:
            return Cron(self.cron, self.timezone)
        ((unit, count),) = (self.every or {}).items()
        return Every(count, unit)


class _File(_Model):
    apiVersion: Literal["schedules/v1"]  # noqa: N815 - the name in the file
    schedules: tuple[Schedule, ...]


@cache
def load_schedules(path: Path) -> tuple[Schedule, ...]:
    """Return the schedules of the file at *path*; it is read once per process.

    Raises:
        ConfigurationError: With every fault and where it stands.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"COMPLIANCE_SCHEDULES: cannot be read ({type(error).__name__})") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigurationError(f"the schedules {path.name} are not valid YAML") from None
    faults = [f"schedules: {name} stands there {count} times" for name, count in _repeated(document)]
    try:
        schedules = _File.model_validate(document).schedules
    except ValidationError as error:
        faults += [_describe(fault, document) for fault in error.errors(include_input=False)]
    if faults:
        raise ConfigurationError(f"the schedules {path.name} are wrong: {'; '.join(faults)}")
    return schedules


def _repeated(document: Any) -> Iterator[tuple[str, int]]:
    names = Counter(name for index in range(_length(document)) if (name := _name(document, index)))
    return ((name, count) for name, count in sorted(names.items()) if count > 1)


def _length(document: Any) -> int:
    listed = document.get("schedules") if isinstance(document, dict) else None
    return len(listed) if isinstance(listed, list) else 0


def _name(document: Any, index: int) -> str | None:
    entry = document["schedules"][index]
    name = entry.get("name") if isinstance(entry, dict) else None
    return name if isinstance(name, str) and re.fullmatch(NAME, name) else None


def _describe(fault: ErrorDetails, document: Any) -> str:
    place = list(fault["loc"])
    if len(place) > 1 and isinstance(place[1], int):
        place[1] = _name(document, place[1]) or place[1]
    return f"{'.'.join(map(str, place)) or 'file'}: {fault['msg'].removeprefix('Value error, ')}"
