"""Error reports and check-ins of schedules, for Sentry.

It gets the type, the stack and the tags of an error: an allow-list, because messages of libraries quote what they were
given.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sentry_sdk
from sentry_sdk.crons import capture_checkin
from sentry_sdk.types import Event, Hint

from compliance.errors import ComplianceError
from compliance.settings import Settings
from worker.telemetry.logs import first_words

EVENT_FIELDS = (
    "event_id",
    "timestamp",
    "platform",
    "level",
    "logger",
    "release",
    "environment",
    "fingerprint",
    "tags",
    "sdk",
    "transaction",
)
CHECK_IN_FIELDS = (
    "type",
    "event_id",
    "timestamp",
    "check_in_id",
    "monitor_slug",
    "monitor_config",
    "status",
    "duration",
    "release",
    "environment",
)
FRAME_FIELDS = ("filename", "abs_path", "function", "module", "lineno", "in_app")
# Their errors are reported by ``report_error``, with a stack; the log line would be a second issue for each.
REPORTED_EVENTS = (
    "anchor.conflict",
    "audit.incident",
    "job.crashed",
    "schedule.refused",
    "task.crashed",
    "watch.history_lost",
)

Status = Literal["in_progress", "ok", "error"]
Level = Literal["error", "fatal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitor:
    """One run of a schedule, as Sentry watches it.

    Attributes:
        name: The slug of the monitor: the name of the schedule.
        run: The same in every attempt of the run; 32 hexadecimal digits.
        config: When Sentry expects runs: ``{schedule: {type, value, unit?}, timezone?}``.
    """

    name: str
    run: str
    config: Mapping[str, Any] | None = None


def configure_sentry(settings: Settings) -> None:
    """Report errors to the DSN of *settings*, if there is one.

    ``send_default_pii`` is off unless it is set, and setting it warns since 2.75; ``scrub`` does not rely on it.
    """
    if settings.sentry_dsn is None:
        return
    sentry_sdk.init(
        dsn=settings.sentry_dsn.get_secret_value(),
        environment=settings.environment,
        include_local_variables=False,
        include_source_context=False,
        max_breadcrumbs=0,
        max_request_body_size="never",
        auto_enabling_integrations=False,
        trace_propagation_targets=[],  # nobody we ask over HTTP is to learn our traces
        before_send=scrub,
    )


def scrub(event: Event, hint: Hint) -> Event | None:
    """Return only what is known to hold no value: type and stack of the error, tags, and our own messages.

    A log line of ours is reported by the name of its event, under which Sentry groups it; None where its error is
    reported anyway.
    """
    if event.get("type") == "check_in":
        return _kept(event, CHECK_IN_FIELDS)
    kept: Any = _kept(event, EVENT_FIELDS)
    line = getattr(hint.get("log_record"), "msg", None)
    if isinstance(line, Mapping):
        name = str(line.get("event"))
        if name in REPORTED_EVENTS:
            return None
        return kept | {"logentry": {"message": name}, "fingerprint": [name, str(line.get("kind", ""))]}  # type: ignore[no-any-return]  # an event is a mapping
    entry: Mapping[str, Any] = event.get("logentry") or {}
    if entry:
        kept["logentry"] = {"message": first_words(entry.get("message", ""))}
    exceptions = (event.get("exception") or {}).get("values") or []
    if exceptions:
        kept["exception"] = {"values": [_scrub_exception(exception) for exception in exceptions]}
    return kept  # type: ignore[no-any-return]  # an event is a mapping


def _kept(event: Event, fields: tuple[str, ...]) -> Event:
    return {name: event[name] for name in fields if name in event}  # type: ignore[literal-required,return-value]  # the names are above


def _scrub_exception(exception: Mapping[str, Any]) -> dict[str, Any]:
    frames = (exception.get("stacktrace") or {}).get("frames") or []
    slim = [{name: frame[name] for name in FRAME_FIELDS if name in frame} for frame in frames]
    kept = {"type": exception.get("type"), "module": exception.get("module"), "stacktrace": {"frames": slim}}
    ours = str(exception.get("module")) == ComplianceError.__module__
    return kept | ({"value": exception.get("value")} if ours else {})


def report_error(error: BaseException, *, kind: str, request_id: str, level: Level = "error") -> None:
    """Report *error* of a job, grouped by kind of work and class of error."""
    with sentry_sdk.new_scope() as scope:
        scope.set_level(level)
        scope.set_tag("kind", kind)
        scope.set_tag("request_id", request_id)
        scope.fingerprint = [kind, type(error).__name__]
        scope.capture_exception(error)


def check_in(monitor: Monitor, status: Status, *, seconds: float | None = None) -> None:
    """Tell Sentry how a run of a schedule goes; the same run again moves its check-in.

    Args:
        monitor: The run.
        status: Where it stands.
        seconds: How long it took, once it has ended.
    """
    config: Any = monitor.config  # the SDK declares more keys than we send
    capture_checkin(
        monitor_slug=monitor.name, check_in_id=monitor.run, status=status, duration=seconds, monitor_config=config
    )
