"""Migrations of a database that holds documents: what is normalised, set aside, named and refused."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

import pytest
from bson import Binary, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from deployment import Deployment
from migrated import NAMES, NOON, names, snapshot, user
from pymongo.errors import WriteError

from compliance.errors import ExitCode, StepFailed


@pytest.mark.parametrize("copies", [2, 30])
def test_duplicate_addresses_are_named_by_id_before_anything_is_built(empty: Deployment, copies: int) -> None:
    admin = empty.admin
    ids = admin.app["users"].insert_many([user() for _ in range(copies)]).inserted_ids

    with pytest.raises(StepFailed) as refused:
        empty.migrate()

    message = str(refused.value)
    assert refused.value.exit_code is ExitCode.PARTIAL
    assert all(str(id_) in message for id_ in ids[:2])
    assert "mara" not in message
    assert len(message) < 500
    assert set(admin.app["users"].index_information()) == {"_id_"}
    assert admin.app["artists"].index_information().keys() == {"_id_"}
    assert names(empty.runner().pending()) == NAMES[2:]

    admin.app["users"].delete_many({"_id": {"$in": ids[1:]}})
    empty.migrate()
    assert admin.app["users"].index_information()["ix_user_email"]["unique"]


def test_two_consents_of_one_person_and_purpose_are_named(empty: Deployment) -> None:
    empty.runner().up("005")
    consent = {"user_id": ObjectId(), "type": "TERMS", "granted": True, "timestamp": NOON}
    ids = empty.admin.app["consent"].insert_many([dict(consent), dict(consent)]).inserted_ids

    with pytest.raises(StepFailed, match=str(ids[1])):
        empty.migrate()


def test_a_foreign_index_on_the_same_keys_is_named_not_replaced(empty: Deployment) -> None:
    empty.runner().up("001")
    empty.admin.app["users"].create_index("email", name="old_email")

    with pytest.raises(StepFailed, match="old_email"):
        empty.migrate()

    assert set(empty.admin.app["users"].index_information()) == {"_id_", "old_email"}


def test_old_documents_are_normalised_and_what_cannot_be_is_set_aside(empty: Deployment) -> None:
    admin = empty.admin
    admin.app["users"].insert_many([{"_id": 1, "email": "a"}, {"_id": 2, "email": "b", "status": "BLOCKED"}])
    admin.app["artists"].insert_many(
        [
            {"_id": 1, "genres": ["Rock", "JAZZ"]},
            {"_id": 2, "genres": ["Rock", 7]},
            {"_id": 3, "genres": "Rock"},
            {"_id": 4, "genres": None},
            {"_id": 5, "genres": []},
            {"_id": 6},
            {"_id": 7, "genres": ["ÉLECTRO"], "note": "kept"},
        ]
    )
    admin.app["tracks"].insert_many([{"_id": 1}, {"_id": 2, "created_at": NOON}])
    lines: list[str] = []

    empty.runner(report=lines.append).up("003")

    assert {found["_id"]: found["status"] for found in admin.app["users"].find()} == {1: "ACTIVE", 2: "BLOCKED"}
    assert {found["_id"]: found.get("genres", "absent") for found in admin.app["artists"].find()} == {
        1: ["rock", "jazz"],
        2: ["Rock", 7],
        3: "Rock",
        4: None,
        5: [],
        6: "absent",
        7: ["électro"],
    }
    tracks = {found["_id"]: found["created_at"] for found in admin.app["tracks"].find()}
    assert isinstance(tracks[1], datetime)
    assert tracks[2] == NOON
    aside = list(admin.compliance["set_aside"].find({}, {"_id": 0, "at": 0}))
    assert [item["document_id"] for item in aside] == [2, 3, 4]
    assert {item["reason"] for item in aside} == {"genres is not a list of texts"}
    assert any("set aside 3 documents of artists" in line for line in lines)
    steps = empty.entries(entity_id="v003_data_normalise_core", action="migration.step")
    assert sum(entry["details"].get("set_aside", 0) for entry in steps) == 3


MIXED_IDS = [
    MinKey(),
    None,
    7,
    Int64(8),
    2.5,
    Decimal128(Decimal("9.5")),
    "text",
    {"nested": 1},
    b"bytes",
    Binary.from_uuid(UUID(int=7)),
    ObjectId(),
    False,
    NOON,
    Timestamp(1, 1),
    MaxKey(),
]


def test_documents_are_visited_whatever_the_type_of_their_id(empty: Deployment) -> None:
    admin = empty.admin
    admin.app["artists"].insert_many([{"_id": id_, "genres": ["Rock"]} for id_ in MIXED_IDS])
    admin.app["users"].insert_many([{"_id": id_, "email": f"u{n}"} for n, id_ in enumerate(MIXED_IDS)])

    empty.runner(batch_docs=2).up("003")

    assert admin.app["artists"].count_documents({"genres": ["rock"]}) == len(MIXED_IDS)
    assert admin.app["users"].count_documents({"status": "ACTIVE"}) == len(MIXED_IDS)


def test_the_old_application_works_until_the_contract(empty: Deployment) -> None:
    admin = empty.admin
    empty.runner().up("003")
    admin.app["users"].insert_one(user(_id=1))

    for number, target in enumerate(("004_pre", "004_data"), 2):
        empty.runner().up(target)
        admin.app["users"].insert_one(user(_id=number, email=f"u{number}@example.org"))
        admin.app["users"].update_one({"_id": number}, {"$set": {"status": "BLOCKED"}})
    with pytest.raises(WriteError):
        admin.app["users"].insert_one(user(_id=9, email="new@example.org", subscription_type="GOLD"))

    empty.runner().up("004_post")

    assert {found["_id"]: found["subscription_type"] for found in admin.app["users"].find()} == {
        1: "FREE",
        2: "FREE",
        3: "FREE",  # written after the backfill
    }
    with pytest.raises(WriteError) as refused:
        admin.app["users"].insert_one(user(_id=10, email="late@example.org"))
    assert refused.value.code == 121


def test_the_contract_names_documents_that_it_would_lock_and_changes_nothing(empty: Deployment) -> None:
    admin = empty.admin
    empty.runner().up("004_data")
    old = admin.app["users"].insert_one(
        {"email": "mara@example.org", "role": 7, "status": "ACTIVE"}, bypass_document_validation=True
    )

    with pytest.raises(StepFailed, match=str(old.inserted_id)) as refused:
        empty.runner().up("004_post")

    assert "mara" not in str(refused.value)
    assert snapshot(admin.app)["users"]["options"]["validationLevel"] == "moderate"
    assert names(empty.runner().pending())[0] == "v004_post_subscription_type"
