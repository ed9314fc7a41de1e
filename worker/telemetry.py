"""Logs and error reports that name events, ids and counts, and never hold a value of a person.

Logs are JSON lines on stderr. Sentry gets the type, the stack and the tags of an error: an allow-list, because
messages of libraries quote what they were given.
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import sentry_sdk
import structlog
from sentry_sdk.types import Event, Hint
from structlog.typing import Processor

from compliance.errors import ComplianceError
from compliance.settings import Settings

_EMAIL = re.compile(r"[^\s\"'<>@=:,;]+@[^\s\"'<>@=:,;]+\.[^\s\"'<>@=:,;]+")
_EVENT_FIELDS = (
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
_FRAME_FIELDS = ("filename", "abs_path", "function", "module", "lineno", "in_app")
QUOTING_LOGGER = "celery.worker.consumer"


def configure_logging(level: str) -> None:
    """Send the logs of this process to stderr, one JSON object per line."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        mask_addresses,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(cut_quotations)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(sort_keys=True),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("pymongo").setLevel(logging.WARNING)


def cut_quotations(record: logging.LogRecord) -> bool:
    """Take out of *record* what could quote a message: a traceback, and the body that Celery logs when it refuses one.

    The stack of an error goes to Sentry; ``worker.app`` logs it by function and line.
    """
    record.exc_info = record.exc_text = None
    if record.name.startswith(QUOTING_LOGGER) and record.levelno >= logging.WARNING:
        record.msg, record.args = str(record.msg).split("\n", 1)[0].split("%", 1)[0], ()
    return True


def mask_addresses(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask e-mail addresses in every text of *event*: the second line of defence."""
    for name, value in event.items():
        event[name] = _mask(value)
    return event


def _mask(value: Any) -> Any:
    match value:
        case str():
            return _EMAIL.sub("[address]", value)
        case list() | tuple():
            return [_mask(element) for element in value]
        case dict():
            return {_mask(name): _mask(element) for name, element in value.items()}
    return value


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
        before_send=scrub,
    )


def scrub(event: Event, _hint: Hint) -> Event:
    """Return only what is known to hold no value: type and stack of the error, tags, and our own messages."""
    kept: dict[str, Any] = {name: event[name] for name in _EVENT_FIELDS if name in event}  # type: ignore[literal-required]  # the names are above
    entry: Mapping[str, Any] = event.get("logentry") or {}
    if entry:
        kept["logentry"] = {"message": str(entry.get("message", "")).split("\n", 1)[0].split("%", 1)[0]}
    exceptions = (event.get("exception") or {}).get("values") or []
    if exceptions:
        kept["exception"] = {"values": [_scrub_exception(exception) for exception in exceptions]}
    return kept  # type: ignore[return-value]  # an event is a mapping


def _scrub_exception(exception: Mapping[str, Any]) -> dict[str, Any]:
    frames = (exception.get("stacktrace") or {}).get("frames") or []
    slim = [{name: frame[name] for name in _FRAME_FIELDS if name in frame} for frame in frames]
    kept = {"type": exception.get("type"), "module": exception.get("module"), "stacktrace": {"frames": slim}}
    ours = str(exception.get("module")) == ComplianceError.__module__
    return kept | ({"value": exception.get("value")} if ours else {})


def report_error(error: BaseException, *, kind: str, request_id: str) -> None:
    """Report *error* of a job, grouped by kind of work and class of error."""
    with sentry_sdk.new_scope() as scope:
        scope.set_tag("kind", kind)
        scope.set_tag("request_id", request_id)
        scope.fingerprint = [kind, type(error).__name__]
        scope.capture_exception(error)
