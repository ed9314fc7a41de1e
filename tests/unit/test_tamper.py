"""What change events of the audit database mean: total, and deaf to no kind of event."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signing import TRUST

from compliance.audit.incident import Kind
from compliance.audit.schema import INDEXES, VALIDATORS
from compliance.audit.tamper import MAX_TRANSACTION, find_incidents, judge, transaction_of
from compliance.roles import AUDIT_LOG, BATCHES

NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)
ID_INDEX = {"v": 2, "key": {"_id": 1}, "name": "_id_"}
KNOWN = (
    "insert",
    "update",
    "replace",
    "delete",
    "drop",
    "dropDatabase",
    "rename",
    "create",
    "modify",
    "createIndexes",
    "dropIndexes",
    "shardCollection",
    "refineCollectionShardKey",
    "reshardCollection",
    "somethingNew",
)
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)


def event(kind: str, collection: str = AUDIT_LOG, **fields: Any) -> dict[str, Any]:
    return {
        "_id": {"_data": f"{kind}-{collection}"},
        "operationType": kind,
        "ns": {"db": "app_audit", "coll": collection},
        "wallTime": NOON,
        **fields,
    }


def kind_of(found: dict[str, Any]) -> Kind | None:
    incident = judge(found)
    return incident.kind if incident else None


def created(name: str = AUDIT_LOG, **changes: Any) -> dict[str, Any]:
    options = {"validator": VALIDATORS[name], "validationLevel": "strict", "idIndex": ID_INDEX}
    return event("create", name, operationDescription=options | changes)


def test_what_provisioning_makes_is_no_incident() -> None:
    indexes = [{"v": 2, "key": keys, "name": name} for name, keys in INDEXES.items()]
    made = [*map(created, VALIDATORS), event("createIndexes", operationDescription={"indexes": indexes})]

    assert find_incidents(made, TRUST) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"validator": {}},
        {"validationLevel": "moderate"},
        {"validationAction": "warn"},
        {"capped": True},
        {"expireAfterSeconds": 1},
        {"changeStreamPreAndPostImages": {"enabled": True}},
        {"idIndex": ID_INDEX | {"collation": {"locale": "de"}}},
        {"collation": {"locale": "de"}},
    ],
)
def test_a_collection_of_ours_that_is_made_otherwise_is_one(changes: dict[str, Any]) -> None:
    assert kind_of(created(**changes)) is Kind.SCHEMA_CHANGED


def test_a_collection_of_ours_without_a_validator_is_one() -> None:
    assert kind_of(event("create", operationDescription={"idIndex": ID_INDEX})) is Kind.SCHEMA_CHANGED
    assert kind_of(created() | {"operationDescription": {"validator": VALIDATORS[BATCHES]}}) is Kind.SCHEMA_CHANGED


@pytest.mark.parametrize(
    "index",
    [
        {"expireAfterSeconds": 1},
        {"unique": True},
        {"hidden": True},
        {"sparse": True},
        {"key": {"entity_id": 1, "entity_type": 1}},
        {"key": {"entity_type": -1, "entity_id": 1}},
        {"name": "ix_other"},
    ],
)
def test_an_index_that_differs_from_the_declared_one_is_one(index: dict[str, Any]) -> None:
    declared = {"v": 2, "key": INDEXES["ix_audit_entity"], "name": "ix_audit_entity"}
    made = event("createIndexes", operationDescription={"indexes": [declared, declared | index]})

    assert kind_of(made) is Kind.INDEX_CHANGED


def test_a_declared_index_on_another_collection_is_one() -> None:
    declared = {"v": 2, "key": INDEXES["ix_audit_entity"], "name": "ix_audit_entity"}

    assert kind_of(event("createIndexes", BATCHES, operationDescription={"indexes": [declared]})) is Kind.INDEX_CHANGED


@pytest.mark.parametrize("kind", [kind for kind in KNOWN if kind != "insert"])
def test_every_kind_of_event_without_a_description_is_an_incident(kind: str) -> None:
    assert kind_of(event(kind)) is not None


@pytest.mark.parametrize("name", sorted(VALIDATORS))
def test_only_an_insert_into_a_collection_of_ours_is_ordinary(name: str) -> None:
    assert kind_of(event("insert", name)) is None
    assert kind_of(event("insert", f"{name}_")) is Kind.CREATED


@given(kind=st.sampled_from(KNOWN), description=json, key=json, name=st.text())
def test_no_event_whatever_it_holds_ends_the_watch(kind: str, description: Any, key: Any, name: str) -> None:
    found = event(kind, name, documentKey={"_id": key})
    if isinstance(description, dict):
        found["operationDescription"] = description

    assert find_incidents([found], TRUST) or (kind == "modify" and not description)


def test_many_inserts_into_a_collection_that_is_not_ours_are_one_incident() -> None:
    inserts = [event("insert", "other", collectionUUID=b"1") | {"_id": {"_data": str(n)}} for n in range(3)]
    made = event("create", "other", collectionUUID=b"1")

    assert len({incident.id for incident in find_incidents([made, *inserts], TRUST)}) == 1


def test_events_of_one_transaction_share_session_and_number() -> None:
    one = {"lsid": {"id": b"1", "uid": b"2"}, "txnNumber": 1}
    first, second = event("delete", **one), event("insert", **one)
    others = [
        event("delete", **(one | {"txnNumber": 2})),
        event("delete", **(one | {"lsid": {"id": b"1", "uid": b"3"}})),
        event("delete", **(one | {"lsid": {"id": b"2", "uid": b"2"}})),
    ]

    assert transaction_of(first) == transaction_of(second) is not None
    assert all(transaction_of(other) != transaction_of(first) for other in others)
    assert transaction_of(event("delete")) is None
    assert MAX_TRANSACTION >= 1000
