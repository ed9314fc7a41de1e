"""Logs: JSON lines on stderr that name events, ids and counts, and never hold a value of a person.

Every line that is written during an attempt carries its ids, whoever writes it; see ``attempt``.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from structlog.typing import Processor

_EMAIL = re.compile(r"[^\s\"'<>@=:,;]+@[^\s\"'<>@=:,;]+\.[^\s\"'<>@=:,;]+")
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

    The stack of an error goes to Sentry; ``worker.celery_tasks`` logs it by function and line.
    """
    record.exc_info = record.exc_text = None
    if record.name.startswith(QUOTING_LOGGER) and record.levelno >= logging.WARNING:
        record.msg, record.args = first_words(record.msg), ()
    return True


def first_words(message: object) -> str:
    """Return the first line that says something, up to where a value would stand."""
    return str(message).strip().split("\n", 1)[0].split("%", 1)[0]


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
