"""Which follow-up work a change event asks for."""

from typing import Any

import pytest
import yaml
from bson import Binary, ObjectId
from hypothesis import given
from hypothesis import strategies as st

from compliance.datamap.model import DataMap, load_data_map
from compliance.health import CHECKS
from compliance.jobs.job import to_request_id
from compliance.settings import DATA_MAP
from worker.job import parse
from worker.routing import QUEUES, SCHEMA_EVENTS, FollowUp, coalesce, route, sources
from worker.tasks import JOBS

REFERENCE = load_data_map(DATA_MAP)
GONE = ObjectId("65f000000000000000000001")


def event(kind: str, collection: str = "users", token: str = "t", **more: Any) -> dict[str, Any]:
    return {"_id": {"_data": token}, "operationType": kind, "ns": {"db": "app", "coll": collection}, **more}


def deleted(document_id: Any = GONE, **more: Any) -> dict[str, Any]:
    return event("delete", documentKey={"_id": document_id}, **more)


def map_of(kind: str, path: str = "_id") -> DataMap:
    content = yaml.safe_load(DATA_MAP.read_text())
    content["subject"]["keys"]["user_id"] |= {"type": kind, "path": path}
    return DataMap.model_validate(content)


def test_a_person_gone_asks_whether_all_of_it_is_gone() -> None:
    found = route(deleted(), REFERENCE)

    assert found is not None
    assert (found.kind, found.payload) == (
        "health.check",
        {"checks": ["no_residual"], "subject_id": str(GONE), "cause": "change"},
    )


@pytest.mark.parametrize("kind", SCHEMA_EVENTS)
def test_a_change_of_schema_asks_for_the_schema_checks(kind: str) -> None:
    found = route(event(kind, "anything"), REFERENCE)

    assert found is not None
    assert found.payload == {"checks": ["declared_indexes", "declared_validators"], "cause": "change"}


@pytest.mark.parametrize(
    "change",
    [
        event("insert"), event("update"), event("replace"), event("delete", "tracks", documentKey={"_id": GONE}),
        event("invalidate"), event("shardCollection"),
    ],
)  # fmt: skip
def test_other_events_ask_for_nothing(change: dict[str, Any]) -> None:
    assert route(change, REFERENCE) is None


@pytest.mark.parametrize("document_id", ["ann@x.org", "no id", 7, None, Binary(b"x" * 16, 3), {"a": 1}])
def test_a_document_whose_id_is_no_person_asks_for_nothing(document_id: Any) -> None:
    assert route(deleted(document_id), REFERENCE) is None
    assert route(deleted(document_id), map_of("string", "number")) is None


def test_a_uuid_is_written_as_requests_write_it() -> None:
    uuid = "c8edabc3-f738-4ca3-b68d-ab92a91478a3"
    found = route(deleted(Binary(bytes.fromhex(uuid.replace("-", "")), 4)), map_of("uuid"))

    assert found is not None
    assert found.payload["subject_id"] == uuid


@given(first=st.text(max_size=20), second=st.text(max_size=20))
def test_the_same_event_is_the_same_request(first: str, second: str) -> None:
    one, other = route(deleted(token=first), REFERENCE), route(deleted(token=second), REFERENCE)

    assert one is not None
    assert other is not None
    assert (one.request_id == other.request_id) is (first == second)
    assert to_request_id(one.request_id) == one.request_id


@pytest.mark.parametrize("change", [deleted(), event("create")])
def test_what_is_asked_for_is_a_message_that_its_kind_takes(change: dict[str, Any]) -> None:
    found = route(change, REFERENCE)

    assert found is not None
    assert parse(JOBS[found.kind], found.payload)
    assert set(found.payload["checks"]) <= set(CHECKS)


def test_the_stream_lets_pass_what_is_routed_and_no_document() -> None:
    match, project = (next(iter(stage.values())) for stage in sources(REFERENCE)[0].stages)

    assert match == {
        "$or": [{"operationType": "delete", "ns.coll": "users"}, {"operationType": {"$in": list(SCHEMA_EVENTS)}}]
    }
    assert not {"fullDocument", "fullDocumentBeforeChange", "updateDescription"} & set(project)


def test_where_ids_are_personal_no_deletion_is_read_and_the_completed_request_asks() -> None:
    content = yaml.safe_load(DATA_MAP.read_text())
    content["subject"]["keys"]["user_id"] |= {"type": "string", "personal": True}
    del content["collections"]["playlists"]["rules"][2]  # an array: a personal key is not pulled out of one
    personal = DataMap.model_validate(content)
    app, ours = sources(personal)
    done = event("update", "erasure_requests", fullDocument={"subject_id": f"hmac-sha256:k:{'0' * 64}"})
    found = route(done, personal)

    assert app.stages[0] == {"$match": {"$or": [{"operationType": {"$in": list(SCHEMA_EVENTS)}}]}}
    assert ours.database == "compliance"
    assert route(deleted("ann@x.org"), personal) is None
    assert route(deleted(f"hmac-sha256:k:{'0' * 64}"), personal) is None
    assert found is not None
    assert found.payload["subject_id"] == f"hmac-sha256:k:{'0' * 64}"


def test_a_burst_of_schema_changes_asks_once_and_each_person_once() -> None:
    other = ObjectId("65f000000000000000000002")
    changes = [event("create", token="1"), deleted(token="2"), event("drop", token="3"), deleted(other, token="4"),
               deleted(token="5"), event("insert", token="6")]  # fmt: skip
    found = coalesce(route(change, REFERENCE) for change in changes)

    assert [one.payload.get("subject_id") for one in found] == [None, str(GONE), str(other)]


@given(st.lists(st.sampled_from("abc").map(lambda name: FollowUp("k", f"r-{name}", {"x": name})), max_size=8))
def test_coalescing_twice_changes_nothing(found: list[FollowUp]) -> None:
    once = coalesce(found)

    assert coalesce(once) == once
    assert {str(one.payload) for one in once} == {str(one.payload) for one in found}


def test_each_queue_has_one_name() -> None:
    assert len(set(QUEUES)) == len(QUEUES)
