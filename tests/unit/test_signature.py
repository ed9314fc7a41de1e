"""Signed requests: what is signed, who is believed, and what a refusal says."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.clock import SystemClock
from compliance.errors import ConfigurationError, InvalidPayload, UntrustedSender
from worker.client import sign
from worker.signature import Keyring, Seal, canonical_json, read_seal, seal, signed_text

DOCUMENT = (Path(__file__).parents[2] / "docs" / "signing.md").read_text(encoding="utf-8")
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
OLD, KEY, OTHER = "o" * 32, "k" * 32, "x" * 32
TASK, KWARGS = "compliance.erasure.request", {"subject_id": "65f2c0ffee0000000000abcd"}
DAY = timedelta(days=1)
KEYRING = Keyring.parse(
    json.dumps({"crm": {"keys": [OLD, KEY]}, "shop": {"keys": [OTHER], "tasks": ["compliance.consent.update"]}})
)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def sealed(service: str = "crm", key: str = KEY, at: datetime = NOW, **changes: Any) -> Seal:
    request = {"task": TASK, "kwargs": KWARGS, "request_id": "r-1"} | changes
    return seal(
        request["task"],
        request["kwargs"],
        request_id=request["request_id"],
        service=service,
        key=key,
        timestamp=int(at.timestamp()),
    )


def verify(given_seal: Seal | None, *, kwargs: Mapping[str, Any] = KWARGS, now: datetime = NOW) -> str:
    return KEYRING.verify(given_seal, TASK, kwargs, request_id="r-1", now=now, window=DAY)


@pytest.mark.parametrize("key", [OLD, KEY])
def test_each_key_of_a_service_is_good_and_proves_its_name(key: str) -> None:
    assert verify(sealed(key=key)) == "crm"


@pytest.mark.parametrize("at", [NOW - DAY, NOW - timedelta(hours=1), NOW + timedelta(hours=1)])
def test_clocks_may_be_an_hour_apart(at: datetime) -> None:
    assert verify(sealed(at=at)) == "crm"


@pytest.mark.parametrize(
    ("given_seal", "says"),
    [
        (None, "is not signed"),
        (sealed(service="nobody"), "not known here"),
        (sealed(key=OTHER), "does not fit"),
        (sealed(service="shop", key=KEY), "does not fit"),
        (sealed(request_id="r-2"), "does not fit"),
        (sealed(task="compliance.consent.update"), "does not fit"),
        (sealed(kwargs=KWARGS | {"dry_run": True}), "does not fit"),
        (Seal(service="crm", timestamp=sealed().timestamp + 1, signature=sealed().signature), "does not fit"),
        (Seal(service="crm", timestamp=sealed().timestamp, signature="v1=é\ud800"), "does not fit"),
        (sealed(at=NOW - DAY - timedelta(seconds=1)), "older than 86400 seconds"),
        (sealed(at=NOW + timedelta(hours=1, seconds=1)), "more than 3600 seconds ahead"),
        (sealed(service="shop", key=OTHER), "shop may not ask for compliance.erasure.request"),
    ],
)
def test_what_is_not_proven_is_refused_with_its_reason(given_seal: Seal | None, says: str) -> None:
    with pytest.raises(UntrustedSender, match=says) as caught:
        verify(given_seal)

    assert "nobody" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("offset", [timedelta(), DAY, -timedelta(minutes=5)])
def test_a_signature_is_good_to_the_end_of_its_window(offset: timedelta) -> None:
    verify(sealed(at=NOW - offset))


@given(JSON_VALUES, JSON_VALUES)
def test_two_payloads_have_one_canonical_text_only_if_they_are_equal(one: Any, other: Any) -> None:
    equal = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)

    assert (canonical_json({"a": one}) == canonical_json({"a": other})) is equal


@given(JSON_VALUES)
def test_the_canonical_text_is_json_and_survives_a_round_trip(value: Any) -> None:
    text = canonical_json({"a": value})

    assert json.loads(text) == {"a": value}
    assert canonical_json(json.loads(text)) == text


@pytest.mark.parametrize("value", [1.0, 2**53, object(), "\ud800", [[[[[[[[[1]]]]]]]]], {"a": float("nan")}])
def test_what_languages_write_differently_is_not_signed(value: Any) -> None:
    with pytest.raises(InvalidPayload, match="cannot be signed"):
        canonical_json({"a": value})


def test_names_are_sorted_as_rfc_8785_sorts_them() -> None:
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]

    text = canonical_json(dict.fromkeys(names, 0)).decode()

    assert list(json.loads(text)) == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"compliance_service": "crm", "compliance_timestamp": 1},
        {"compliance_service": ["crm"], "compliance_timestamp": 1, "compliance_signature": "v1=0"},
        {"compliance_service": "crm", "compliance_timestamp": "soon", "compliance_signature": "v1=0"},
        {"compliance_service": "crm", "compliance_timestamp": 1.5, "compliance_signature": "v1=0"},
        {"compliance_service": "crm", "compliance_timestamp": 1, "compliance_signature": {}},
    ],
)
def test_headers_of_another_form_are_no_seal(headers: dict[str, Any]) -> None:
    assert read_seal(headers) is None


@pytest.mark.parametrize("number", [7, "7"], ids=["number", "text"])
def test_the_time_may_be_a_number_or_text(number: object) -> None:
    headers = {"compliance_service": "crm", "compliance_timestamp": number, "compliance_signature": "v1=0"}

    assert read_seal(headers) == Seal(service="crm", timestamp=7, signature="v1=0")


def test_the_helper_signs_what_is_sent() -> None:
    headers = sign(TASK, KWARGS | {"request_id": "r-1"}, request_id="r-1", service="crm", key=KEY)

    verify(read_seal(headers), now=SystemClock().now())


@pytest.mark.parametrize(
    ("kwargs", "request_id"), [({"request_id": "r-2"}, "r-1"), ({}, "ann@x.org"), ({"a": NOW}, "r-1")]
)
def test_the_helper_refuses_what_cannot_be_sent(kwargs: dict[str, Any], request_id: str) -> None:
    with pytest.raises(InvalidPayload):
        sign(TASK, kwargs, request_id=request_id, service="crm", key=KEY)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected services with their keys, such as {crm: {keys: "),
        ("{}", "at least 1 item"),
        ("a: [", "expected YAML or JSON"),
        ("abc", "expected services with their keys"),
        ("crm: {keys: []}", "keys: Value error, expected one key or more"),
        ("crm: {keys: [short-but-secret]}", "KEYS: keys.0: Value error, expected 32 characters or more"),
        ("crm: {}", "keys: Field required"),
        (f"crm: {{keys: [{KEY}], task: [x]}}", "Extra inputs"),
        (f"{KEY.upper()}: {{keys: [{KEY}]}}", "should match pattern"),
        (f"crm: {KEY}", "a service: "),
    ],
)
def test_a_wrong_keyring_is_named_by_its_place_and_never_quoted(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(says)) as caught:
        Keyring.parse(text)

    assert "COMPLIANCE_SIGNING_KEYS" in str(caught.value)
    assert str(caught.value).count("; ") == 0
    assert not [secret for secret in (KEY, KEY.upper(), "short-but") if secret in str(caught.value)]


def test_a_keyring_shows_no_key() -> None:
    assert KEY not in f"{KEYRING!r} {KEYRING} {KEYRING.model_dump()}"
    assert KEYRING.named_tasks == {"compliance.consent.update"}


def test_the_documented_vectors_are_what_the_code_computes() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    vectors = json.loads(block)
    for vector in vectors:
        request = {name: vector[name] for name in ("request_id", "service", "timestamp")}

        assert canonical_json(vector["kwargs"]).decode() == vector["canonical_json"]
        assert signed_text(vector["task"], vector["kwargs"], **request) == vector["signed_text"]
        assert seal(vector["task"], vector["kwargs"], key=vector["key"], **request).signature == vector["signature"]
    assert len(vectors) == 3
