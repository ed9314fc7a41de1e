"""What is hashed is what is stored, and an entry holds nothing that it must not."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pytest
from bson import Decimal128, Int64, ObjectId
from hypothesis import given
from hypothesis import strategies as st
from signing import signed

from compliance.audit.entry import Cause, Entry, to_document
from compliance.audit.leaf import MAX_INTEGER, canonical_bytes, stored_bytes
from compliance.audit.schema import VALIDATOR
from compliance.audit.vocabulary import ACTIONS
from compliance.errors import InvalidPayload
from compliance.mongo import CODEC

NAMES = st.from_regex(r"[a-z_]{1,20}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00@"), max_size=20)
IDS = st.binary(min_size=12, max_size=12).map(ObjectId)
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - as the strategy asks
INTEGERS = st.integers(-MAX_INTEGER, MAX_INTEGER)
DETAILS = st.dictionaries(
    NAMES,
    st.none()
    | st.booleans()
    | INTEGERS
    | TEXTS
    | st.lists(TEXTS, max_size=3)
    | st.dictionaries(NAMES, INTEGERS, max_size=3),
    max_size=4,
)
ENTRIES = st.builds(
    Entry,
    event=TEXTS,
    entity_type=NAMES,
    entity_id=IDS | TEXTS.filter(bool),
    action=st.sampled_from(sorted(ACTIONS)),
    created_at=MOMENTS,
    performed_by=NAMES,
    outcome=st.sampled_from(["success", "failure"]),
    request_id=st.none() | TEXTS,
    details=DETAILS,
)


def stored(document: dict[str, Any]) -> dict[str, Any]:
    return bson.decode(bson.encode(document), CODEC)


@given(ENTRIES)
def test_what_is_stored_has_the_bytes_of_what_was_recorded(entry: Entry) -> None:
    (document,) = signed(entry)
    recorded = canonical_bytes(document)

    assert canonical_bytes(stored(document)) == recorded
    assert stored_bytes(stored(document)) == recorded
    assert stored_bytes(dict(reversed(stored(document).items()))) == recorded


@given(entry=ENTRIES, other=ENTRIES, data=st.data())
def test_any_changed_field_changes_the_bytes(entry: Entry, other: Entry, data: st.DataObject) -> None:
    document, foreign = stored(signed(entry)[0]), stored(signed(other)[0])
    name = data.draw(st.sampled_from(sorted(document)))
    changed = document | {name: foreign[name]}

    same = bson.encode({"v": changed[name]}) == bson.encode({"v": document[name]})
    if isinstance(document[name], dict):
        same = document[name] == changed[name] and repr(sorted(document[name].items())) == repr(
            sorted(changed[name].items())
        )

    assert (stored_bytes(changed) == canonical_bytes(document)) is same


@given(entry=ENTRIES, data=st.data())
def test_a_field_taken_away_or_added_changes_the_bytes(entry: Entry, data: st.DataObject) -> None:
    document = to_document(entry)
    name = data.draw(st.sampled_from(sorted(document)))
    recorded = canonical_bytes(document)

    assert stored_bytes({key: value for key, value in document.items() if key != name}) != recorded
    assert stored_bytes({**document, "note": None}) != recorded


@given(ENTRIES)
def test_canonical_bytes_are_sorted_json_without_white_space(entry: Entry) -> None:
    document = to_document(entry)
    raw = canonical_bytes(document)
    parsed = json.loads(raw)

    assert list(parsed) == sorted(document)
    assert json.dumps(parsed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == raw


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        float("nan"),
        b"bytes",
        Decimal128("1"),
        datetime(2026, 1, 1),  # noqa: DTZ001 - naive on purpose
        {"$oid": "0" * 24},
        {1: 1},
        {"a": [0.0]},
        {"\U0001f600": 1},
        MAX_INTEGER + 1,
        -MAX_INTEGER - 1,
    ],
)
def test_what_has_no_canonical_text_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical_bytes({"details": {"v": value}})


@pytest.mark.parametrize(
    ("honest", "imitation"),
    [
        (ObjectId("0" * 24), {"$oid": "0" * 24}),
        (datetime(2026, 1, 1, tzinfo=UTC), {"$date": 1767225600000}),
        (5, 5.0),
    ],
)
def test_an_imitation_never_has_the_bytes_of_what_it_imitates(honest: Any, imitation: Any) -> None:
    recorded = canonical_bytes({"a": "$text", "entity_id": honest})

    try:
        found = stored_bytes({"a": "$text", "entity_id": imitation})
    except TypeError:
        return
    assert found != recorded


@given(st.dictionaries(st.text(max_size=5), st.integers(0, 9), max_size=5))
def test_names_are_sorted_as_the_rfc_asks(given_names: dict[str, int]) -> None:
    try:
        raw = canonical_bytes(given_names)
    except (TypeError, UnicodeEncodeError):
        return

    assert list(json.loads(raw)) == sorted(given_names, key=lambda name: name.encode("utf-16-be"))


def test_an_id_and_its_text_differ() -> None:
    oid = ObjectId()

    assert canonical_bytes({"entity_id": oid}) != canonical_bytes({"entity_id": str(oid)})


def test_numbers_have_one_text_whatever_their_width() -> None:
    assert canonical_bytes({"n": Int64(5)}) == canonical_bytes({"n": 5}) == stored_bytes({"n": Int64(5)}) == b'{"n":5}'


def test_the_canonical_bytes_of_an_entry_are_these(moment: datetime) -> None:
    entry = Entry(
        event="r-1",
        entity_type="user",
        entity_id=ObjectId("65f000000000000000000001"),
        action="erasure.completed",
        created_at=moment,
        performed_by="worker",
        request_id="r-1",
        details={"documents": 3, "kept": {"ü": 1}},
    )

    assert canonical_bytes(to_document(entry, Cause(requested_by="shop"))).decode() == (
        '{"_id":"' + entry.id + '","action":"erasure.completed","created_at":{"$date":1774958400123},'
        '"details":{"documents":3,"kept":{"ü":1}},"entity_id":{"$oid":"65f000000000000000000001"},'
        '"entity_type":"user","outcome":"success","performed_by":"worker","request_id":"r-1","requested_by":"shop",'
        '"v":1}'
    )


@given(ENTRIES)
def test_the_id_follows_from_event_and_action_alone(entry: Entry) -> None:
    later = replace(entry, created_at=entry.created_at + timedelta(days=1), performed_by="other", details={})

    assert later.id == entry.id
    assert re.fullmatch(VALIDATOR["$jsonSchema"]["properties"]["_id"]["pattern"], entry.id)


@given(entry=ENTRIES, event=TEXTS, action=st.sampled_from(sorted(ACTIONS)))
def test_another_event_or_action_has_another_id(entry: Entry, event: str, action: str) -> None:
    other = replace(entry, event=event, action=action)

    assert (other.id == entry.id) is ((event, action) == (entry.event, entry.action))


GOOD: dict[str, Any] = {
    "event": "e",
    "entity_type": "user",
    "entity_id": "u-1",
    "action": "job.parked",
    "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    "performed_by": "worker",
}
SECRET = "ann@example.org"
WRONG: dict[str, Any] = {
    "entity_type": "User",
    "entity_id": SECRET,
    "action": "job.invented",
    "performed_by": SECRET,
    "outcome": "maybe",
    "request_id": "r" * 129,
    "details": {"note": SECRET},
}


@pytest.mark.parametrize("name", WRONG)
def test_an_entry_that_is_not_of_the_model_is_refused_by_the_name_of_its_field(name: str) -> None:
    with pytest.raises(InvalidPayload) as caught:
        Entry(**(GOOD | {name: WRONG[name]}))

    assert str(caught.value) == f"an audit entry is wrong in: {name}"


@pytest.mark.parametrize(
    "detail", [1.5, [SECRET], {"fields": "text"}, {"n": 1.0}, object(), 2**53, [["a"]], {"a": {"b": 1}}]
)
def test_details_are_counts_codes_and_names_only(detail: Any) -> None:
    with pytest.raises(InvalidPayload, match="details"):
        Entry(**(GOOD | {"details": {"v": detail}}))


@pytest.mark.parametrize("entity_id", ["ann@x.org", "u:ann@localhost", "@", "", "x" * 201])
def test_the_server_refuses_entity_ids_that_look_like_addresses(entity_id: str) -> None:
    kinds = VALIDATOR["$jsonSchema"]["properties"]["entity_id"]["anyOf"]
    (pattern,) = [kind["pattern"] for kind in kinds if "pattern" in kind]

    assert re.search(pattern, entity_id) is None
    assert re.search(pattern, "65f000000000000000000001")


def test_the_server_knows_every_field_of_an_entry() -> None:
    (document,) = signed(Entry(**GOOD), cause=Cause(channel="celery", trace_id="a" * 32, requested_by="shop"))
    fields = VALIDATOR["$jsonSchema"]["properties"]

    assert set(document) == set(fields)
    assert VALIDATOR["$jsonSchema"]["additionalProperties"] is False
    for part in ("source", "writer"):
        assert set(document[part]) == set(fields[part]["properties"]) == set(fields[part]["required"])
        assert fields[part]["additionalProperties"] is False
