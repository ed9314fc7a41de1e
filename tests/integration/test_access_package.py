"""Access packages: what is the person's is given out, and nothing of others."""

import json

import pytest
from bson import (
    DatetimeMS,
    ObjectId,
)
from deployment import Deployment
from packages import NOON, actions, content, folder, lines_of, refusal

from compliance.mongo import Document

MARA, OTTO = ObjectId("0000000000000000000000a1"), ObjectId("0000000000000000000000b2")


def person(id_: ObjectId, email: str) -> Document:
    return {
        "_id": id_,
        "email": email,
        "role": "listener",
        "status": "ACTIVE",
        "subscription_type": "FREE",
        "created_at": NOON,
    }


@pytest.fixture
def two_people(deployment: Deployment) -> Deployment:
    """Mara and Otto, each with a document of their own everywhere, and playlists that they share."""
    app = deployment.admin.app
    for id_, name in ((MARA, "mara"), (OTTO, "otto")):
        own = {"made_for": name}
        app["users"].insert_one(person(id_, f"{name}@example.org"))
        app["artists"].insert_one({"_id": name, "user_id": id_, "display_name": name, "created_at": NOON})
        app["tracks"].insert_one({"_id": name, "title": name, "artist_id": ObjectId(), "created_at": NOON})
        app["analytics"].insert_one({"user_id": id_, "event_type": "play", "timestamp": NOON, "payload": own})
        app["ai_content"].insert_one(content("mix", payload={"user_id": id_, **own}))
        app["security_events"].insert_one({"event_type": "x", "detected_at": NOON, "details": {"user_id": id_}})
        app["consent"].insert_one({"user_id": id_, "type": "TERMS", "granted": True, "timestamp": NOON})
        app["geo_events"].insert_one(
            {
                "location": {"type": "Point", "coordinates": [1.0, 2.0]},
                "event_type": "x",
                "details": {"user_id": id_},
                "created_at": NOON,
            }
        )
        app["versioning"].insert_one(
            {"entity_type": "user", "entity_id": id_, "version": 1, "created_at": NOON, "description": name}
        )
        app["playlists"].insert_one({"_id": name, "name": name, "owner_id": id_, "created_at": NOON})
        app["users_history"].insert_one({"document_id": id_, "email": f"{name}@example.org", "old": name})
    app["playlists"].insert_one(
        {
            "_id": "of otto",
            "name": "Otto's secret",
            "owner_id": OTTO,
            "created_at": NOON,
            "collaborators": [{"user_id": OTTO, "nick": "otto"}, {"user_id": MARA, "nick": "mara"}],
        }
    )
    app["playlists"].insert_one(
        {
            "_id": "of mara",
            "name": "Mara's",
            "owner_id": MARA,
            "created_at": NOON,
            "collaborative": True,
            "collaborators": [{"user_id": MARA, "nick": "mara"}, {"user_id": OTTO, "nick": "otto"}],
        }
    )
    return deployment


def test_an_access_package_holds_what_is_the_person_s_and_nothing_of_others(two_people: Deployment) -> None:
    deployment = two_people

    job = deployment.run("export.run", {"subject_id": str(MARA), "package": "mara"})

    assert job.state == "done", job.error
    package = folder(deployment, "mara")
    found = lines_of(package)
    assert {name: len(documents) for name, documents in found.items()} == {
        "users": 1,
        "users_history": 1,
        "artists": 1,
        "analytics": 1,
        "ai_content": 1,
        "security_events": 1,
        "consent": 1,
        "geo_events": 1,
        "versioning": 1,
        "playlists": 3,
    }
    playlists = {document["_id"]: document for document in found["playlists"]}
    assert playlists["of otto"] == {"_id": "of otto", "collaborators": [{"user_id": MARA, "nick": "mara"}]}
    assert playlists["of mara"]["collaborators"] == [{"user_id": MARA, "nick": "mara"}]
    assert playlists["of mara"]["name"] == "Mara's"
    everything = b"".join(path.read_bytes() for path in package.iterdir()).lower()
    assert b"otto" not in everything.replace(b"of otto", b"")
    assert str(OTTO).encode() not in everything


def test_an_access_package_says_who_else_holds_data_and_is_recorded_about_the_person(two_people: Deployment) -> None:
    deployment = two_people
    deployment.run("export.run", {"subject_id": str(MARA), "package": "mara"})

    manifest = json.loads((folder(deployment, "mara") / "manifest.json").read_text())
    assert manifest["about"] == "subject"
    assert any("search-index" in note for note in manifest["notes"])
    entries = deployment.entries(entity_type="user", entity_id=MARA)
    assert [entry["action"] for entry in entries] == ["export.started", "export.completed"]
    digests = {f"{file['collection']}:{file['sha256']}" for file in manifest["files"]}
    assert set(entries[1]["details"]["sha256"]) == digests
    assert not any("example.org" in str(entry) for entry in deployment.entries())


def test_what_a_person_s_documents_hold_is_given_out_even_when_it_is_odd(deployment: Deployment) -> None:
    app = deployment.admin.app
    app["users"].insert_one(person(MARA, "mara@example.org") | {"updated_at": DatetimeMS(2**60)})
    for id_ in ({"a": 1}, None, DatetimeMS(-(2**60))):
        app["analytics"].insert_one(
            {"_id": id_, "user_id": MARA, "event_type": "x", "timestamp": NOON, "payload": {"value": DatetimeMS(2**60)}}
        )

    job = deployment.run("export.run", {"subject_id": str(MARA), "package": "mara"})

    assert job.state == "done", job.error
    assert (job.result or {})["documents"] == 4


def test_nobody_gets_no_package(deployment: Deployment) -> None:
    job = deployment.run("export.run", {"subject_id": str(ObjectId()), "package": "mara"})

    assert refusal(job) == ("rejected", "UnknownSubject")
    assert not folder(deployment, "mara").exists()
    assert actions(deployment, "export") == []
