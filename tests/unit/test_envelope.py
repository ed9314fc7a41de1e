"""What a message must look like before Celery may see it; the whole table on a real worker: tests/acceptance."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport.virtual import Message

from worker.consumer import fault_text
from worker.envelope import (
    FAULTS,
    MAX_BODY_BYTES,
    PUT_OFF,
    empty_envelope,
    eta_of,
    fault_of,
    to_envelope,
    to_protocol_2,
)

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
HEADERS = {"task": "compliance.audit.verify", "id": "i-1", "timelimit": [None, None], "retries": 0}
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
PARTS = ("body", "headers", "properties", "content-type", "content-encoding")


class Channel:
    """Decodes bodies as a channel of the Redis transport does."""

    def decode_body(self, body: Any, encoding: str | None) -> Any:
        return (
            Celery("x", broker="memory://", set_as_current=False)
            .connection()
            .default_channel.decode_body(body, encoding)
        )


@given(ANY_JSON | st.dictionaries(st.sampled_from(PARTS), ANY_JSON))
def test_whatever_was_read_kombu_can_make_a_message_of_it(raw: Any) -> None:
    envelope = to_envelope(raw, queue="q", tag="t") or empty_envelope(queue="q", tag="t")
    message = Message(envelope, channel=Channel())

    assert isinstance(message.headers, dict)
    assert isinstance(message.delivery_tag, str)
    assert {"exchange", "routing_key"} <= set(message.delivery_info)


def test_a_sound_envelope_is_left_as_it_is() -> None:
    with Celery("any-service", broker="memory://", set_as_current=False) as client:
        client.send_task("compliance.audit.verify", kwargs={"request_id": "r-1"}, queue="wire")
        with client.connection_for_read() as connection:
            raw = connection.default_channel._get("wire")

    assert to_envelope(raw, queue="q", tag="t") == raw
    assert fault_of(raw["headers"], [[], {}, {}], now=NOW) is None


@given(st.dictionaries(st.sampled_from([*HEADERS, "eta", "expires", "group"]), ANY_JSON), ANY_JSON)
def test_any_message_has_a_known_fault_or_none(headers: dict[str, Any], payload: Any) -> None:
    given_headers, parts = to_protocol_2(headers, payload)
    fault = fault_of(given_headers, parts, now=NOW)

    assert fault is None or fault in FAULTS


@pytest.mark.parametrize(
    ("headers", "fault"),
    [
        ({"eta": (NOW + timedelta(seconds=30)).isoformat()}, None),
        ({"eta": "2026-05-01T12:00:30"}, None),
        ({"eta": (NOW + timedelta(minutes=6)).isoformat()}, "eta"),
        ({"eta": "0001-01-01T00:00:00+14:00"}, "eta"),
        ({"expires": "2026-05-01T12:00:30Z"}, None),
        ({"expires": 7}, "expires"),
        ({"expires": "0001-01-01T00:00:00+14:00"}, "expires"),
        ({"timelimit": None}, None),
        ({"timelimit": [60, 50.5]}, None),
        ({"timelimit": [None, "5"]}, "timelimit"),
        ({"timelimit": [5]}, "timelimit"),
        ({"id": "ann@example.org"}, "id"),
        ({"stamps": {}, "stamped_headers": None}, None),
        ({"stamps": {"a": 1}}, "headers"),
        ({"retries": -1}, "headers"),
        ({"headers": {"sentry-trace": "1"}}, None),
        ({"headers": [1]}, "headers"),
    ],
    ids=str,
)
def test_a_header_that_celery_trusts_is_looked_at(headers: dict[str, Any], fault: str | None) -> None:
    assert fault_of(HEADERS | headers, [[], {}, None], now=NOW) == fault


@pytest.mark.parametrize(
    ("headers", "waits"),
    [
        ({PUT_OFF: 7.5}, 7.5),
        ({PUT_OFF: 30, "eta": "9999-01-01T00:00:00Z"}, 30),
        ({PUT_OFF: 0, "eta": "ann"}, 0),
        ({PUT_OFF: 31}, None),
        ({PUT_OFF: -1}, None),
        ({PUT_OFF: float("nan")}, None),
        ({PUT_OFF: "7"}, None),
        ({}, None),
    ],
    ids=str,
)
def test_what_was_put_off_waits_by_the_clock_of_who_reads_it(headers: dict[str, Any], waits: float | None) -> None:
    expected = None if waits is None else (NOW + timedelta(seconds=waits)).isoformat()

    assert eta_of(headers, NOW) == expected


def test_anybody_elses_time_is_left_as_it_is() -> None:
    assert eta_of({"eta": "ann", PUT_OFF: 31}, NOW) == "ann"


def test_a_fault_is_told_by_its_code_and_never_by_what_a_sender_writes_there() -> None:
    assert fault_text(None) is None
    assert fault_text("kwargs") == FAULTS["kwargs"]
    assert fault_text("ann@example.org") == fault_text([1]) == FAULTS["headers"]
    assert str(MAX_BODY_BYTES) in FAULTS["size"]
    assert "ann" not in json.dumps(FAULTS)
