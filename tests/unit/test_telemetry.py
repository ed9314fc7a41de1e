"""What leaves the process by logs and error reports holds no value of a person."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sentry_sdk
import structlog
from hypothesis import given
from hypothesis import strategies as st
from sentry_sdk.transport import Transport

from compliance.errors import AuditTampered, LegalHoldActive, StoreUnavailable
from compliance.jobs.job import Job, RequestId, State, Terms
from compliance.settings import Settings
from worker import telemetry
from worker.telemetry import (
    Ending,
    Monitor,
    configure_logging,
    cut_quotations,
    mask_addresses,
    observed,
    report_error,
    scrub,
)

PERSON = "ann.smith@example.org"
NAME = "Ann Smith-Planted"
NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)


def planted(value: str) -> dict[str, Any]:
    """An event with *value* in every place where an SDK could put it."""
    frame = {
        "filename": "worker/job.py",
        "function": "carry_out",
        "module": "worker.job",
        "lineno": 7,
        "in_app": True,
        "vars": {"payload": value},
        "pre_context": [value],
        "context_line": value,
        "post_context": [value],
    }
    return {
        "event_id": "e" * 32,
        "level": "error",
        "platform": "python",
        "environment": "production",
        "tags": {"kind": "erasure.request"},
        "message": value,
        "logentry": {"message": "Task %s\n" + value, "params": [value], "formatted": value},
        "exception": {
            "values": [
                {"type": "ValueError", "module": "builtins", "value": value, "stacktrace": {"frames": [frame]}},
                {"type": "LegalHoldActive", "module": "compliance.errors", "value": "case 7 holds the data"},
            ]
        },
        "breadcrumbs": {"values": [{"message": value}]},
        "request": {"data": value, "url": value},
        "extra": {"celery-job": {"kwargs": value}},
        "user": {"email": value},
        "contexts": {"trace": {"data": value}},
        "threads": {"values": [{"stacktrace": {"frames": [frame]}}]},
        "spans": [{"description": value}],
        "server_name": value,
        value: value,
    }


@given(st.text(min_size=12))
def test_a_report_keeps_no_value_wherever_it_stood(value: str) -> None:
    kept = scrub(planted(f"<{value}>"), {})  # type: ignore[arg-type]

    assert json.dumps(f"<{value}>")[1:-1] not in json.dumps(kept)


def test_a_report_keeps_what_helps_to_find_the_fault() -> None:
    kept: Any = scrub(planted(PERSON), {})  # type: ignore[arg-type]
    foreign, ours = kept["exception"]["values"]

    assert set(kept) == {"event_id", "level", "platform", "environment", "tags", "logentry", "exception"}
    assert kept["logentry"] == {"message": "Task "}
    assert foreign["type"] == "ValueError"
    assert "value" not in foreign
    assert set(foreign["stacktrace"]["frames"][0]) == {"filename", "function", "module", "lineno", "in_app"}
    assert ours["value"] == "case 7 holds the data"


@pytest.mark.parametrize("event", [{}, {"exception": None}, {"exception": {"values": []}}, {"logentry": None}])
def test_a_report_without_an_error_is_kept_small(event: Any) -> None:
    assert scrub(event, {}) == {}


class Caught(Transport):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def capture_envelope(self, envelope: sentry_sdk.envelope.Envelope) -> None:
        self.sent.append(envelope.serialize().decode())


@pytest.fixture
def sentry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Caught]:
    """The real SDK, as we configure it, with a transport that sends nothing."""
    caught, init = Caught(), sentry_sdk.init
    monkeypatch.setattr(telemetry.sentry.sentry_sdk, "init", lambda **options: init(**options, transport=caught))
    telemetry.configure_sentry(Settings.model_validate({"SENTRY_DSN": "https://key@sentry.invalid/1"}))
    yield caught
    sentry_sdk.get_client().close()
    init()


def test_the_sdk_as_we_set_it_up_sends_no_planted_value(sentry: Caught) -> None:
    def fails(payload: dict[str, str]) -> None:
        logging.getLogger("app").warning("about %s", PERSON)
        raise ValueError(f"{payload['email']} {NAME}")

    try:
        fails({"email": PERSON})
    except ValueError as error:
        report_error(error, kind="erasure.request", request_id="r-1")
    logging.getLogger("app").error("failed for %s", PERSON)

    assert len(sentry.sent) == 2
    assert "ValueError" in sentry.sent[0]
    assert '"request_id":"r-1"' in sentry.sent[0].replace('": "', '":"')
    assert [text for text in (PERSON, NAME, "smith") if text in "".join(sentry.sent)] == []


def test_our_own_messages_are_reported(sentry: Caught) -> None:
    report_error(LegalHoldActive("case 7 holds the data"), kind="erasure.request", request_id="r-1")

    assert "case 7 holds the data" in sentry.sent[0]


def sent(sentry: Caught) -> list[dict[str, Any]]:
    return [json.loads(envelope.split("\n")[2]) for envelope in sentry.sent]


def a_job(**changes: Any) -> Job:
    terms = Terms(trace_id="0af7651916cd43dd8448eb211c80319c")
    values: dict[str, Any] = {"kind": "audit.verify", "payload": {}, "attempts": 1, "fence": 1, "terms": terms}
    return Job(request_id=RequestId("r-1"), state=State.RUNNING, created_at=NOW, **(values | changes))


def test_a_bug_is_one_event_with_the_ids_of_its_job(sentry: Caught, log_lines: io.StringIO) -> None:
    log = structlog.get_logger("ours")

    def crash() -> None:
        with observed(a_job(), now=NOW):
            log.error("job.crashed", error="KeyError")
            raise KeyError(PERSON)

    with pytest.raises(KeyError) as caught:
        crash()
    report_error(caught.value, kind="audit.verify", request_id="r-1")  # as the task does, which knows no attempt
    log.error("task.crashed", error="KeyError")
    (event,) = sent(sentry)

    assert event["tags"] == {
        "kind": "audit.verify",
        "request_id": "r-1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }
    assert event["fingerprint"] == ["audit.verify", "KeyError"]
    assert PERSON not in str(event)


def test_our_error_lines_are_grouped_by_their_event_and_keep_their_fields_here(
    sentry: Caught, log_lines: io.StringIO
) -> None:
    for number in range(2):
        structlog.get_logger("ours").error("health.failed", request_id=f"r-{number}", note=PERSON)
    events = sent(sentry)

    assert [event["logentry"] for event in events] == [{"message": "health.failed"}] * 2
    assert [event["fingerprint"] for event in events] == [["health.failed", ""]] * 2
    assert PERSON not in "".join(sentry.sent)


def test_an_incident_is_one_fatal_event_grouped_by_its_kind(sentry: Caught, log_lines: io.StringIO) -> None:
    structlog.get_logger("ours").critical("audit.incident", kind="DELETED", what="a document was deleted")
    report_error(AuditTampered("DELETED"), kind="audit.incident/DELETED", request_id="none", level="fatal")
    (event,) = sent(sentry)

    assert event["level"] == "fatal"
    assert event["fingerprint"] == ["audit.incident/DELETED", "AuditTampered"]


MONITOR = Monitor(
    name="nightly-audit",
    run="ab" * 16,
    config={"schedule": {"type": "crontab", "value": "30 3 * * *"}, "timezone": "Europe/Berlin"},
)


@pytest.mark.parametrize(
    ("ending", "statuses"),
    [
        (Ending.DONE, ["in_progress", "ok"]),
        (Ending.PARKED, ["in_progress", "error"]),
        (Ending.REJECTED, ["in_progress", "error"]),
        (Ending.RETRIED, ["in_progress"]),
        (Ending.HANDED_BACK, ["in_progress"]),
    ],
)
def test_a_run_of_a_schedule_checks_in(sentry: Caught, ending: Ending, statuses: list[str]) -> None:
    with observed(a_job(), now=NOW, monitor=MONITOR) as end:
        end(ending)
    events = sent(sentry)

    assert [event["status"] for event in events] == statuses
    assert {event["check_in_id"] for event in events} == {MONITOR.run}
    assert events[0]["monitor_config"] == MONITOR.config
    assert {event["monitor_slug"] for event in events} == {"nightly-audit"}


@given(st.text(min_size=12))
def test_a_check_in_keeps_no_value_beside_its_own_fields(value: str) -> None:
    event = planted(f"<{value}>") | {"type": "check_in", "monitor_slug": "nightly-audit", "status": "ok"}
    kept: Any = scrub(event, {})  # type: ignore[arg-type]

    assert (kept["type"], kept["monitor_slug"], kept["status"]) == ("check_in", "nightly-audit", "ok")
    assert json.dumps(f"<{value}>")[1:-1] not in json.dumps(kept)


def test_an_attempt_whose_end_could_not_be_recorded_is_no_bug(sentry: Caught) -> None:
    def lose() -> None:
        with observed(a_job(), now=NOW):
            raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        lose()

    assert sentry.sent == []


def test_without_a_dsn_nothing_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry.sentry.sentry_sdk, "init", lambda **_: pytest.fail("set up"))

    telemetry.configure_sentry(Settings())


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        (PERSON, "[address]"),
        (f"about <{PERSON}>, sent", "about <[address]>, sent"),
        (f"to={PERSON}", "to=[address]"),
        ({"mail": [PERSON], PERSON: 1}, {"mail": ["[address]"], "[address]": 1}),
        ((PERSON, 1), ["[address]", 1]),
        (7, 7),
        (None, None),
        ("host:41:ab", "host:41:ab"),
    ],
)
def test_addresses_are_masked_wherever_they_stand(value: Any, masked: Any) -> None:
    assert mask_addresses(None, "info", {"event": "e", "field": value}) == {"event": "e", "field": masked}


def record(name: str, level: int, message: str, *args: Any) -> logging.LogRecord:
    return logging.LogRecord(name, level, "f.py", 1, message, args, None)


@pytest.mark.parametrize(
    "message",
    [
        "Received and deleted unknown message.  Wrong destination?!?\n\nThe full contents of the message body was: %s",
        "Can't decode message body: %r [type:%r encoding:%r headers:%s]\n\nbody: %s",
        "Received unregistered task of type %s.\n%s",
    ],
)
def test_a_message_that_celery_refuses_is_not_quoted(message: str) -> None:
    args = tuple(PERSON for _ in range(message.count("%")))
    refused = record("celery.worker.consumer.consumer", logging.ERROR, message, *args)

    assert cut_quotations(refused)
    assert PERSON not in refused.getMessage()
    assert refused.getMessage().startswith(("Received", "Can't decode"))


@pytest.mark.parametrize(
    "message", ["\nIn Celery 5.1 we introduced it.\nSee %s.", " \n \nIn Celery 5.1 we introduced it."]
)
def test_a_message_that_begins_with_an_empty_line_says_something(message: str) -> None:
    line = record("celery.worker.consumer.consumer", logging.WARNING, message)
    cut_quotations(line)
    reported: Any = scrub({"logentry": {"message": message}}, {})

    assert line.getMessage() == reported["logentry"]["message"] == "In Celery 5.1 we introduced it."


def test_a_traceback_is_cut_and_other_messages_stay() -> None:
    try:
        raise ValueError(PERSON)
    except ValueError:
        failed = record("app", logging.ERROR, "done %s", 5)
        failed.exc_info, failed.exc_text = sys.exc_info(), PERSON

    assert cut_quotations(failed)
    assert (failed.exc_info, failed.exc_text, failed.getMessage()) == (None, None, "done 5")


@pytest.fixture
def log_lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging("INFO")
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


def test_log_lines_are_json_and_hold_no_planted_value(log_lines: io.StringIO) -> None:
    structlog.get_logger("ours").info("job.done", request_id="r-1", note=PERSON, more={"to": [PERSON]})
    logging.getLogger("theirs").info("sent to %s", PERSON)
    try:
        raise ValueError(PERSON)
    except ValueError:
        logging.getLogger("theirs").exception("failed")
        structlog.get_logger("ours").exception("job.failed")
    lines = [json.loads(line) for line in log_lines.getvalue().splitlines()]

    assert [line["event"] for line in lines] == ["job.done", "sent to [address]", "failed", "job.failed"]
    assert (lines[0]["request_id"], lines[0]["level"], lines[0]["logger"]) == ("r-1", "info", "ours")
    assert PERSON not in log_lines.getvalue()
