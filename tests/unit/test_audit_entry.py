"""What is hashed is what is stored, and any change of it changes the hash."""

import hashlib
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

from compliance.audit.entry import Entry, canonical_bytes, leaf_hash, to_document
from compliance.audit.schema import VALIDATOR
from compliance.mongo import CODEC

NAMES = st.from_regex(r"[a-z_]{1,20}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
IDS = st.binary(min_size=12, max_size=12).map(ObjectId)
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - as the strategy asks
INTEGERS = st.integers(-(2**63), 2**63 - 1)
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
    entity_id=IDS | TEXTS,
    action=NAMES,
    created_at=MOMENTS,
    performed_by=NAMES,
    outcome=st.sampled_from(["success", "failure"]),
    request_id=st.none() | TEXTS,
    details=DETAILS,
)


def stored(document: dict[str, Any]) -> dict[str, Any]:
    return bson.decode(bson.encode(document), CODEC)


@given(ENTRIES)
def test_what_is_stored_has_the_hash_of_what_was_recorded(entry: Entry) -> None:
    document = to_document(entry)

    assert leaf_hash(stored(document)) == document["h"]
    assert leaf_hash(dict(reversed(stored(document).items()))) == document["h"]


@given(entry=ENTRIES, other=ENTRIES, data=st.data())
def test_any_changed_field_changes_the_hash(entry: Entry, other: Entry, data: st.DataObject) -> None:
    document, foreign = stored(to_document(entry)), stored(to_document(other))
    name = data.draw(st.sampled_from(sorted(set(document) - {"h"})))
    changed = document | {name: foreign[name]}

    same = bson.encode({"v": changed[name]}) == bson.encode({"v": document[name]})
    if isinstance(document[name], dict):
        same = document[name] == changed[name] and repr(sorted(document[name].items())) == repr(
            sorted(changed[name].items())
        )

    assert (leaf_hash(changed) == document["h"]) is same


@given(entry=ENTRIES, data=st.data())
def test_a_field_taken_away_or_added_changes_the_hash(entry: Entry, data: st.DataObject) -> None:
    document = to_document(entry)
    name = data.draw(st.sampled_from(sorted(set(document) - {"h"})))

    assert leaf_hash({key: value for key, value in document.items() if key != name}) != document["h"]
    assert leaf_hash({**document, "note": None}) != document["h"]


@given(ENTRIES)
def test_canonical_bytes_are_sorted_json_without_white_space(entry: Entry) -> None:
    document = to_document(entry)
    raw = canonical_bytes(document)
    parsed = json.loads(raw)

    assert list(parsed) == sorted(set(document) - {"h"})
    assert json.dumps(parsed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == raw
    assert hashlib.sha256(b"\x00" + raw).hexdigest() == document["h"]


@pytest.mark.parametrize(
    "value",
    [1.5, float("nan"), b"bytes", Decimal128("1"), datetime(2026, 1, 1), {"$oid": "0" * 24}, {1: 1}, {"a": [0.0]}],  # noqa: DTZ001 - naive on purpose
)
def test_what_has_no_canonical_text_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical_bytes({"details": {"v": value}})


def test_an_id_and_the_text_that_imitates_it_differ() -> None:
    oid = ObjectId()

    assert canonical_bytes({"entity_id": oid}) != canonical_bytes({"entity_id": str(oid)})


def test_numbers_have_one_text_whatever_their_width() -> None:
    assert canonical_bytes({"n": Int64(5)}) == canonical_bytes({"n": 5}) == b'{"n":5}'


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

    assert canonical_bytes(to_document(entry)).decode() == (
        '{"_id":"' + entry.id + '","action":"erasure.completed","created_at":{"$date":1774958400123},'
        '"details":{"documents":3,"kept":{"ü":1}},"entity_id":{"$oid":"65f000000000000000000001"},'
        '"entity_type":"user","outcome":"success","performed_by":"worker","request_id":"r-1"}'
    )


@given(ENTRIES)
def test_the_id_follows_from_event_and_action_alone(entry: Entry) -> None:
    later = replace(entry, created_at=entry.created_at + timedelta(days=1), performed_by="other", details={})

    assert later.id == entry.id
    assert re.fullmatch(VALIDATOR["$jsonSchema"]["properties"]["_id"]["pattern"], entry.id)


@given(entry=ENTRIES, event=TEXTS, action=NAMES)
def test_another_event_or_action_has_another_id(entry: Entry, event: str, action: str) -> None:
    other = replace(entry, event=event, action=action)

    assert (other.id == entry.id) is ((event, action) == (entry.event, entry.action))


@pytest.mark.parametrize("entity_id", ["ann@x.org", "u:ann@localhost", "@", "", "x" * 201])
def test_the_server_refuses_entity_ids_that_look_like_addresses(entity_id: str) -> None:
    kinds = VALIDATOR["$jsonSchema"]["properties"]["entity_id"]["anyOf"]
    (pattern,) = [kind["pattern"] for kind in kinds if "pattern" in kind]

    assert re.search(pattern, entity_id) is None
    assert re.search(pattern, "65f000000000000000000001")


def test_the_server_knows_every_field_of_an_entry(moment: datetime) -> None:
    entry = Entry(event="e", entity_type="job", entity_id="j", action="job.done", created_at=moment, performed_by="w")

    assert set(to_document(entry)) == set(VALIDATOR["$jsonSchema"]["properties"])
    assert VALIDATOR["$jsonSchema"]["additionalProperties"] is False
