"""What identifies a job, when it is tried again, and what a wrong message is told."""

import json
import string
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.errors import InvalidPayload
from compliance.jobs.document import finished, from_document, new_document, payload_hash
from compliance.jobs.job import FINAL, Job, RequestId, State, to_request_id
from worker.attempt import MAX_BACKOFF, backoff
from worker.job import Payload, parse
from worker.tasks import JOBS

PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
SECRET = "ann.smith@example.org"
VALID: dict[str, dict[str, Any]] = {
    "erasure.request": {"subject_id": "65f000000000000000000001"},
    "erasure.campaign": {"subject_ids": ["65f000000000000000000001"]},
    "erasure.returned": {"subject_id": "65f000000000000000000001", "earlier": "r-1"},
    "erasure.look": {},
    "recipient.tell": {"erasure": "r-1", "recipient": "search-index"},
    "consent.update": {
        "event_id": "e-1",
        "subject_id": "65f000000000000000000001",
        "type": "MARKETING",
        "granted": True,
        "occurred_at": "2026-03-31T12:00:00Z",
    },
    "export.run": {"collection": "users"},
    "import.run": {"package": "p-1", "collection": "users"},
    "migration.run": {"direction": "down", "target": "004"},
    "health.check": {"checks": ["no_residual"]},
    "audit.verify": {},
    "audit.heartbeat": {},
    "jobs.retention": {},
    "retention.sweep": {},
}


@given(st.text(PRINTABLE.replace("@", ""), min_size=1, max_size=128))
def test_printable_ascii_is_a_request_id(text: str) -> None:
    assert to_request_id(text) == text


@pytest.mark.parametrize("value", ["", "x" * 129, "a\n", "\n", "é", "a\tb", "\x7f", None, 5, b"a", ["a"]])
def test_anything_else_is_no_request_id(value: object) -> None:
    with pytest.raises(InvalidPayload, match="request_id: expected 1 to 128 printable ASCII characters"):
        to_request_id(value)


@given(
    local=st.text(string.ascii_letters + string.digits + "._+", min_size=1, max_size=20),
    domain=st.from_regex(r"[a-z]{1,10}\.[a-z]{2,5}", fullmatch=True),
    before=st.sampled_from(["", "erase ", "r-1:"]),
)
def test_an_address_is_no_request_id_and_is_not_repeated(local: str, domain: str, before: str) -> None:
    with pytest.raises(InvalidPayload, match="looks like an e-mail address") as caught:
        to_request_id(f"{before}{local}@{domain}")

    assert domain not in str(caught.value)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=5))
def test_the_hash_of_a_payload_does_not_depend_on_its_order(payload: dict[str, Any]) -> None:
    assert payload_hash(dict(reversed(payload.items()))) == payload_hash(payload)
    assert payload_hash(json.loads(json.dumps(payload))) == payload_hash(payload)


@given(first=st.dictionaries(st.text(max_size=5), JSON, max_size=3), second=st.dictionaries(st.text(max_size=5), JSON))
def test_another_payload_has_another_hash(first: dict[str, Any], second: dict[str, Any]) -> None:
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)

    assert (payload_hash(first) == payload_hash(second)) is same


def test_a_new_job_is_read_back_as_it_was_asked_for(moment: datetime) -> None:
    payload = VALID["erasure.request"]
    document = new_document(
        RequestId("r-1"), kind="erasure.request", payload=payload, origin="celery", now=moment, sender="crm"
    )

    assert from_document(document) == Job(
        request_id=RequestId("r-1"),
        kind="erasure.request",
        payload=payload,
        state=State.QUEUED,
        created_at=moment,
        origin="celery",
        sender="crm",
    )


def test_a_job_that_was_recorded_before_senders_were_has_none(moment: datetime) -> None:
    document = new_document(RequestId("r-1"), kind="audit.verify", payload={}, origin="cli", now=moment)
    del document["sender"]

    assert from_document(document).sender is None


@pytest.mark.parametrize("state", sorted(set(State) - set(FINAL)))
def test_a_job_ends_in_a_final_state_only(state: State, moment: datetime) -> None:
    with pytest.raises(ValueError, match="is no final state"):
        finished(state, now=moment)


@given(attempts=st.integers(0, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_a_retry_waits_within_a_bound_that_doubles(attempts: int, chance: float) -> None:
    wait = backoff(attempts, rng=lambda: chance)

    assert timedelta() <= wait <= min(MAX_BACKOFF, timedelta(seconds=2.0 ** min(attempts, 16)))


@given(st.integers(0, 100))
def test_the_bound_never_shrinks(attempts: int) -> None:
    assert backoff(attempts, rng=lambda: 1.0) <= backoff(attempts + 1, rng=lambda: 1.0) <= MAX_BACKOFF


def test_there_is_an_example_of_every_kind() -> None:
    assert set(VALID) == set(JOBS)


@pytest.mark.parametrize("name", JOBS)
def test_a_good_message_is_read(name: str) -> None:
    assert isinstance(parse(JOBS[name], VALID[name]), Payload)


@pytest.mark.parametrize("name", JOBS)
def test_a_payload_goes_through_the_ledger_unchanged(name: str) -> None:
    first = parse(JOBS[name], VALID[name]).model_dump(mode="json", exclude_none=True)
    again = parse(JOBS[name], json.loads(json.dumps(first))).model_dump(mode="json", exclude_none=True)

    assert payload_hash(again) == payload_hash(first)


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize(
    "extra",
    [SECRET, "Ann Smith", "x" * 41, "", "ünü", "a-b", "1a"],
    ids=["mail", "name", "long", "empty", "u", "dash", "1"],
)
def test_an_unknown_field_is_refused_and_a_name_that_could_be_a_value_is_not_repeated(name: str, extra: str) -> None:
    with pytest.raises(InvalidPayload, match=r"a field whose name is not shown\)?: Extra inputs") as caught:
        parse(JOBS[name], {**VALID[name], extra: SECRET})

    assert SECRET not in str(caught.value)
    assert not extra or extra not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("name", JOBS)
def test_an_unknown_field_with_a_plain_name_is_named(name: str) -> None:
    with pytest.raises(InvalidPayload, match=rf"compliance\.{name}: subjectid: Extra inputs"):
        parse(JOBS[name], {**VALID[name], "subjectid": SECRET})


@pytest.mark.parametrize(("name", "field"), [(name, field) for name, values in VALID.items() for field in values])
@pytest.mark.parametrize("wrong", [{SECRET: SECRET}, [[SECRET]], None])
def test_a_wrong_value_is_named_by_its_field_and_not_repeated(name: str, field: str, wrong: Any) -> None:
    kind = JOBS[name]
    try:
        parse(kind, {**VALID[name], field: wrong})
    except InvalidPayload as error:
        assert field in str(error) or "payload" in str(error)  # noqa: PT017 - None is allowed in some
        assert SECRET not in str(error)  # noqa: PT017
    else:
        assert wrong is None


@pytest.mark.parametrize("name", JOBS)
def test_every_missing_field_is_named_at_once(name: str) -> None:
    required = [field for field, info in JOBS[name].payload.model_fields.items() if info.is_required()]
    if not required:
        return
    with pytest.raises(InvalidPayload) as caught:
        parse(JOBS[name], {})

    assert [field for field in required if f"{field}: " not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("name", "values", "fault"),
    [
        ("export.run", {}, "give either collection or subject_id"),
        ("export.run", {"collection": "users", "subject_id": "s"}, "give either collection or subject_id"),
        ("migration.run", {"direction": "down"}, "down needs a target"),
        ("consent.update", VALID["consent.update"] | {"occurred_at": "2026-03-31T12:00:00"}, "occurred_at: .*timezone"),
        ("export.run", {"collection": "users", "package": "../out"}, "package: "),
        ("import.run", {"collection": "users", "package": "a/b"}, "package: "),
        ("erasure.campaign", {"subject_ids": []}, "subject_ids: "),
        ("erasure.campaign", {"subject_ids": ["s"] * 1001}, "subject_ids: "),
    ],
)
def test_a_message_that_makes_no_sense_is_told_why(name: str, values: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidPayload, match=fault):
        parse(JOBS[name], values)
