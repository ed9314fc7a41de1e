"""People whose only id says who they are: everything of ours names them by a keyed pseudonym."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment
from members import ANN, BOB, NOON, found_club, join, name_of
from pydantic import SecretStr

from compliance.datamap.pseudonym import Pseudonyms
from compliance.erasure.holds import Holds
from compliance.errors import ConfigurationError
from compliance.jobs.job import Job
from worker.addresses import Addresses
from worker.intake import Message, receive
from worker.tasks import JOBS

CHANGED = ("members", "members_history", "orders", "profiles", "photos")
NEW_KEY = f"k2026:{'b2' * 20}"
OLD_KEY = f"k2025:{'a1' * 20}"
KEYS = f"{NEW_KEY} {OLD_KEY}"


@pytest.fixture
def club(empty: Deployment, tmp_path: Path) -> Deployment:
    return found_club(empty, tmp_path)


@pytest.fixture
def rotated(empty: Deployment, tmp_path: Path) -> Deployment:
    """A club that has begun to use another key."""
    return found_club(empty, tmp_path, pseudonym_keys=SecretStr(KEYS))


def old_name(club: Deployment, address: str) -> str:
    pseudonyms = club.services().pseudonyms
    assert pseudonyms is not None
    return pseudonyms.all_of(address)[1]


def erase(club: Deployment, address: str, request_id: str = "r-1", **more: Any) -> Job:
    return club.run("erasure.request", {"subject_id": name_of(club, address), **more}, request_id)


def request(club: Deployment, request_id: str = "r-1") -> dict[str, Any]:
    return club.admin.compliance["erasure_requests"].find_one({"_id": request_id}) or {}


def code(job: Job) -> str:
    return (job.error or {})["code"]


def app_text(club: Deployment) -> str:
    app = club.admin.app
    return str({name: list(app[name].find()) for name in app.list_collection_names()})


def ours(club: Deployment) -> str:
    """Everything in our own two databases."""
    databases = (club.admin.audit, club.admin.compliance)
    return str([list(database[name].find()) for database in databases for name in database.list_collection_names()])


def consent(club: Deployment, address: str, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": "e-1",
        "subject_id": name_of(club, address),
        "type": "MARKETING",
        "granted": True,
        "occurred_at": NOON.isoformat(),
    } | changes


def test_the_person_is_gone_and_nobody_else_is_touched(club: Deployment) -> None:
    before = {name: list(club.admin.app[name].find()) for name in CHANGED}
    job = erase(club, ANN)

    assert job.state == "done", job.error
    assert request(club)["state"] == "completed_with_retention"
    assert club.admin.app["orders"].find_one({"_id": 0}) == {"_id": 0, "buyer": "nobody", "total": 5}
    assert club.admin.app["orders"].find_one({"_id": 1}) == before.pop("orders")[1]
    assert {name: list(club.admin.app[name].find()) for name in before} == {
        name: documents[1:] for name, documents in before.items()
    }
    entries = club.entries(entity_type="user")
    assert {entry["entity_id"] for entry in entries} == {name_of(club, ANN)}
    told = ["erasure.requested", "erasure.accepted", "erasure.planned", "erasure.started"]
    assert [entry["action"] for entry in entries][:4] == told


def test_a_dry_run_counts_and_changes_nothing(club: Deployment) -> None:
    before = app_text(club)
    job = erase(club, ANN, dry_run=True)

    assert job.state == "done"
    assert app_text(club) == before
    assert sorted((step["collection"], step["documents"]) for step in request(club)["plan"]) == [
        ("members", 1), ("members_history", 1), ("orders", 1), ("photos", 1), ("profiles", 1),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["see {}", "<{}>", "{}"])
def test_the_second_look_finds_an_address_that_no_rule_knows(club: Deployment, text: str) -> None:
    club.admin.app["letters"].insert_one({"_id": 1, "text": text.format(ANN.upper())})
    job = erase(club, ANN)

    assert (job.state, code(job)) == ("parked", "ErasureIncomplete")
    assert request(club)["residual"] == {"letters": 1}
    assert club.admin.app["members"].count_documents({}) == 2  # the root goes last


def test_an_erasure_that_died_behind_the_root_document_goes_on_by_what_is_left(club: Deployment) -> None:
    club.admin.app["letters"].insert_one({"_id": 1, "text": f"to {ANN}"})
    erase(club, ANN)
    club.admin.app["members"].delete_one({"_id": ANN})
    join_again = {"_id": "p-9", "member": ANN.lower()}
    club.admin.app["profiles"].insert_one(join_again)
    club.admin.app["letters"].delete_one({"_id": 1})
    services = club.services()
    services.ledger.jobs.update_one({"_id": "r-1"}, {"$set": {"state": "queued"}})
    job = erase(club, ANN)

    assert job.state == "done", job.error
    assert "ann.lee" not in app_text(club).lower()
    assert request(club)["affected"]["profiles"] == {"delete": 2}


def test_somebody_unknown_is_refused(club: Deployment) -> None:
    job = erase(club, "nobody@example.org")

    assert (job.state, code(job)) == ("rejected", "UnknownSubject")
    assert "nobody@" not in ours(club)


def test_a_repeated_request_of_a_person_who_is_gone_is_done(club: Deployment) -> None:
    erase(club, ANN)

    assert erase(club, ANN, "r-2").state == "done"


def test_a_key_that_nobody_has_is_named(club: Deployment) -> None:
    job = club.run("erasure.request", {"subject_id": f"hmac-sha256:gone:{'0' * 64}"})

    assert (job.state, code(job)) == ("rejected", "InvalidPayload")
    assert "COMPLIANCE_PSEUDONYM_KEYS does not hold" in (job.error or {})["message"]


@pytest.mark.parametrize("kind", ["erasure.request", "export.run", "health.check"])
def test_an_address_is_refused_with_what_to_send_and_not_kept(club: Deployment, kind: str) -> None:
    receive(Message(kind=JOBS[kind], values={"subject_id": ANN}, request_id="r-1"), services=club.services())
    job = club.services().ledger.find("r-1")

    assert job is not None
    assert (job.state, code(job)) == ("rejected", "InvalidPayload")
    assert "compliance datamap pseudonym" in (job.error or {})["message"]
    assert "ann.lee" not in ours(club).lower()


def test_two_people_whose_addresses_differ_in_case_only_are_not_mixed_up(club: Deployment) -> None:
    club.admin.app["members"].insert_one({"_id": ANN.lower()})
    before = app_text(club)
    job = erase(club, ANN)

    assert (job.state, code(job)) == ("parked", "ErasureIncomplete")
    assert "1 other documents of members" in (job.error or {})["message"]
    assert app_text(club) == before


def test_a_hold_stops_an_erasure_until_it_is_released(club: Deployment) -> None:
    services, name = club.services(), name_of(club, ANN)
    holds, now = Holds(services.databases), services.clock.now()
    holds.place(name, "C-17", until=None, now=now, actor="test", log=services.log)
    held = erase(club, ANN)
    holds.release(name, "C-17", now=services.clock.now(), actor="test", log=services.log)

    assert (held.state, code(held)) == ("rejected", "LegalHoldActive")
    assert erase(club, ANN, "r-2").state == "done"


@pytest.mark.parametrize("address", [ANN, BOB])
def test_a_hold_under_an_older_key_holds_the_same_person_only(rotated: Deployment, address: str) -> None:
    services = rotated.services()
    name, now = old_name(rotated, ANN), services.clock.now()
    Holds(services.databases).place(name, "C-17", until=None, now=now, actor="test", log=services.log)

    assert erase(rotated, address).state == ("rejected" if address == ANN else "done")


def test_a_pseudonym_of_an_older_key_names_the_person(rotated: Deployment) -> None:
    job = rotated.run("erasure.request", {"subject_id": old_name(rotated, ANN)})

    assert job.state == "done", job.error
    assert [found["_id"] for found in rotated.admin.app["members"].find()] == [BOB]


def test_consent_is_kept_by_address_with_the_application_and_by_pseudonym_with_us(club: Deployment) -> None:
    first = club.run("consent.update", consent(club, ANN))
    second = club.run("consent.update", consent(club, ANN, event_id="e-2", granted=False), "r-2")

    assert (first.state, second.state) == ("done", "done")
    assert [(item["user_id"], item["granted"]) for item in club.admin.app["consent"].find()] == [(ANN, False)]
    assert {item["subject_id"] for item in club.admin.compliance["consent_events"].find()} == {name_of(club, ANN)}
    assert {entry["entity_id"] for entry in club.entries(entity_type="user")} == {name_of(club, ANN)}


def test_consent_of_nobody_is_refused_and_leaves_nothing(club: Deployment) -> None:
    job = club.run("consent.update", consent(club, "nobody@example.org"))

    assert (job.state, code(job)) == ("rejected", "UnknownSubject")
    assert club.admin.app["consent"].count_documents({}) == 0
    assert club.admin.compliance["consent_events"].count_documents({}) == 0


def test_a_package_holds_everything_about_one_person(club: Deployment) -> None:
    club.run("consent.update", consent(club, ANN))
    job = club.run("export.run", {"subject_id": name_of(club, ANN), "package": "ann"}, "r-2")
    folder = club.settings.transfer_dir / "ann"
    lines = {path.name: path.read_text() for path in folder.glob("*.ndjson")}

    assert job.state == "done", job.error
    assert set(lines) == {f"{name}.ndjson" for name in (*CHANGED, "consent")}
    assert json.loads(lines["members.ndjson"]) == {
        "_id": ANN,
        "since": {"$date": {"$numberLong": str(int(NOON.timestamp() * 1000))}},
        "number": {"$numberInt": "0"},
    }
    assert BOB not in str(lines)
    assert ANN not in (folder / "manifest.json").read_text()


def test_no_residual_finds_what_comes_back_in_any_case(club: Deployment) -> None:
    erase(club, ANN)
    values = {"checks": ["no_residual"], "subject_id": name_of(club, ANN)}
    everybody = {"checks": ["no_residual"]}

    assert (club.run("health.check", values, "h-1").result or {})["failed"] == []
    assert (club.run("health.check", everybody, "h-2").result or {})["failed"] == []

    club.admin.app["letters"].insert_one({"text": f"dear {ANN.upper()}, ..."})
    for number, asked in enumerate((values, everybody)):
        job = club.run("health.check", asked, f"h-{number + 3}")
        assert (job.result or {})["failed"] == ["no_residual"]
    found = list(club.admin.compliance["health_checks"].find({"status": "failed"}))
    assert {tuple(item["problems"]) for item in found} == {
        ("1 documents of letters hold an identifier of an erased person",)
    }


def test_no_residual_says_of_whom_it_cannot_tell_anything(rotated: Deployment) -> None:
    before = rotated.with_settings(pseudonym_keys=SecretStr(OLD_KEY))
    erase(before, ANN)
    later = rotated.with_settings(pseudonym_keys=SecretStr(NEW_KEY))
    job = later.run("health.check", {"checks": ["no_residual"]}, "h-1")
    found = rotated.admin.compliance["health_checks"].find_one({"request_id": "h-1"}) or {}

    assert (job.result or {})["failed"] == ["no_residual"]
    assert found["problems"] == [
        "1 people who were erased are named by a key that COMPLIANCE_PSEUDONYM_KEYS does not hold; nobody can look"
    ]


def test_an_import_refuses_documents_of_erased_people(club: Deployment) -> None:
    club.run("export.run", {"collection": "profiles", "package": "all"})
    erase(club, ANN, "r-2")
    job = club.run("import.run", {"package": "all", "collection": "profiles"}, "r-3")

    assert (job.state, code(job)) == ("rejected", "RejectedError")
    assert "line 1 holds the id of an erased person" in (job.error or {})["message"]


def test_an_import_is_refused_where_the_key_of_somebody_who_was_erased_is_not_there(rotated: Deployment) -> None:
    before = rotated.with_settings(pseudonym_keys=SecretStr(OLD_KEY))
    before.run("export.run", {"collection": "profiles", "package": "all"})
    erase(before, ANN, "r-2")
    later = rotated.with_settings(pseudonym_keys=SecretStr(NEW_KEY))
    job = later.run("import.run", {"package": "all", "collection": "profiles"}, "r-3")

    assert (job.state, code(job)) == ("parked", "ConfigurationError")
    assert "no COMPLIANCE_PSEUDONYM_KEYS with the key" in (job.error or {})["message"]
    assert rotated.admin.app["profiles"].count_documents({}) == 1


def test_the_address_is_found_nowhere_but_with_the_application(
    club: Deployment, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    services, name = club.services(), name_of(club, ANN)
    holds, now = Holds(services.databases), services.clock.now()
    holds.place(name, "C-1", until=None, now=now, actor="test", log=services.log)
    ends = [
        erase(club, ANN).state,
        club.run("consent.update", consent(club, ANN), "r-2").state,
        club.run("export.run", {"subject_id": name}, "r-3").state,
        club.run("health.check", {"subject_id": name}, "r-4").state,
    ]
    holds.release(name, "C-1", now=services.clock.now(), actor="test", log=services.log)
    ends += [erase(club, ANN, "r-6").state, erase(club, "nobody@example.org", "r-7").state]
    join(club, ANN, 8)
    ends.append(club.run("health.check", {}, "r-8").state)
    ends.append(club.run("erasure.campaign", {"subject_ids": [name]}, "r-9").state)
    kept = ours(club) + str(club.published) + caplog.text + "".join(capfd.readouterr())

    assert ends == ["rejected", *["done"] * 4, "rejected", "done", "done"]
    assert name in kept
    assert "job.done" in kept
    assert "ann.lee" not in kept.lower()
    assert "nobody@" not in kept


def test_a_worker_without_a_key_does_not_start(club: Deployment) -> None:
    uri = SecretStr(club.sender_uri)
    addresses = Addresses(club.settings.model_copy(update={"mongodb_uri": uri}))
    data_map = club.services().data_map

    with pytest.raises(ConfigurationError, match=r"set COMPLIANCE_PSEUDONYM_KEYS to name:secret: subject\.key email"):
        addresses.pseudonyms(data_map)
    with_keys = Addresses(addresses.settings.model_copy(update={"pseudonym_keys": SecretStr(KEYS)}))
    assert (with_keys.pseudonyms(data_map) or Pseudonyms("", ())).make(ANN).startswith("hmac-sha256:k2026:")


def test_where_ids_are_opaque_no_key_is_needed(deployment: Deployment) -> None:
    assert deployment.services().pseudonyms is None
