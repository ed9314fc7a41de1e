"""Import: every line is looked at first, nothing is overwritten, and a death costs nothing."""

import hashlib
from pathlib import Path

import pytest
from bson import (
    ObjectId,
)
from deployment import Deployment
from faults import Died, mortal
from packages import (
    SHORT,
    actions,
    content,
    exported,
    finish_after_a_death,
    folder,
    imported,
    message,
    raw_of,
    refusal,
    rewrite,
)

from compliance.erasure.stage import REQUESTS
from compliance.mongo import Databases


def test_equal_documents_are_skipped_and_missing_ones_come_back(deployment: Deployment) -> None:
    admin = deployment.admin
    admin.app["ai_content"].insert_many([content(str(n), _id=n) for n in range(120)])
    before = raw_of(admin.app, "ai_content")
    exported(deployment)
    admin.app["ai_content"].delete_many({"_id": {"$gte": 40, "$lt": 110}})

    job = imported(deployment)

    assert job.result == {"collection": "ai_content", "lines": 120, "inserted": 70}
    assert raw_of(admin.app, "ai_content") == before
    digest = hashlib.sha256((folder(deployment, "p-1") / "ai_content.ndjson").read_bytes()).hexdigest()
    assert [entry["details"]["sha256"] for entry in deployment.entries(action="import.started")] == [digest]
    batches = deployment.entries(action="import.batch")
    assert sum(entry["details"]["inserted"] for entry in batches) == 70
    assert sum(entry["details"]["skipped"] for entry in batches) == 50
    assert [entry["details"]["inserted"] for entry in deployment.entries(action="import.completed")] == [70]


def test_the_same_import_twice_is_one_and_another_one_changes_nothing(deployment: Deployment) -> None:
    admin = deployment.admin
    admin.app["ai_content"].insert_many([content(str(n)) for n in range(10)])
    exported(deployment)
    admin.app["ai_content"].delete_many({})

    first, repeated, second = imported(deployment), imported(deployment), imported(deployment, request_id="import-2")

    assert (first.result or {})["inserted"] == (repeated.result or {})["inserted"] == 10
    assert (second.result or {})["inserted"] == 0
    assert admin.app["ai_content"].count_documents({}) == 10


@pytest.fixture
def packaged(deployment: Deployment) -> tuple[Deployment, Databases, Path]:
    """A package of 120 documents, three batches, and the collection emptied."""
    admin = deployment.admin
    admin.app["ai_content"].insert_many([content(str(n), _id=n) for n in range(120)])
    package = exported(deployment)
    admin.app["ai_content"].delete_many({})
    return deployment, admin, package


Packaged = tuple[Deployment, Databases, Path]


def assert_nothing_was_written(deployment: Deployment, admin: Databases) -> None:
    assert admin.app["ai_content"].count_documents({}) == 0
    assert actions(deployment, "import") == []


def test_a_changed_byte_stops_the_import(packaged: Packaged) -> None:
    deployment, admin, package = packaged
    path = package / "ai_content.ndjson"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))

    assert refusal(imported(deployment)) == ("parked", "ManifestMismatch")
    assert_nothing_was_written(deployment, admin)


@pytest.mark.parametrize("missing", ["manifest.json", "ai_content.ndjson"])
def test_a_missing_file_stops_the_import(packaged: Packaged, missing: str) -> None:
    deployment, admin, package = packaged
    (package / missing).unlink()

    job = imported(deployment)

    assert refusal(job) in {("rejected", "InvalidPayload"), ("parked", "ManifestMismatch")}
    assert missing in message(job)
    assert_nothing_was_written(deployment, admin)


BAD_LINES = {
    "no JSON": b"{not json\n",
    "empty": b"\n",
    "cut off": b'{"_id": {"$numberInt": "7"}\n',
    "no object": b"[1, 2]\n",
    "no id": b'{"a": 1}\n',
    "wrong wrapper": b'{"_id": {"$oid": "xyz"}}\n',
    "number too large": b'{"_id": 1, "n": {"$numberLong": "99999999999999999999"}}\n',
    "name with a zero byte": b'{"_id": 1, "a\\u0000b": 1}\n',
    "half a character": b'{"_id": 1, "a": "\\ud800"}\n',
    "no UTF-8": b'{"_id": 1, "a": "\xff"}\n',
    "broken bytes": b'{"$bson": "AAAA"}\n',
    "no base64": b'{"$bson": "!"}\n',
    "very deep": b'{"_id": 1, "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_line_that_is_no_document_is_named_and_nothing_is_written(packaged: Packaged, name: str) -> None:
    deployment, admin, package = packaged
    rewrite(package, lambda lines: [*lines[:76], BAD_LINES[name], *lines[77:]])

    job = imported(deployment)

    assert refusal(job) == ("rejected", "InvalidPayload")
    assert message(job).startswith("line 77 is not a document")
    assert_nothing_was_written(deployment, admin)


def test_a_document_that_is_there_with_other_content_stops_the_import(packaged: Packaged) -> None:
    deployment, admin, _ = packaged
    admin.app["ai_content"].insert_one(content("changed since", _id=99))

    job = imported(deployment)

    assert refusal(job) == ("rejected", "InvalidPayload")
    assert message(job).startswith("line 100:")
    assert admin.app["ai_content"].count_documents({}) == 1
    assert actions(deployment, "import") == []


def test_two_lines_with_one_id_and_different_content_stop_the_import(packaged: Packaged) -> None:
    deployment, admin, package = packaged
    rewrite(
        package,
        lambda lines: [
            *lines[:10],
            lines[3].replace(b'"3"}', b'"3"}').replace(b'"type": "3"', b'"type": "x"'),
            *lines[10:],
        ],
    )

    job = imported(deployment)

    assert refusal(job) == ("rejected", "InvalidPayload")
    assert message(job).startswith("line 11:")
    assert_nothing_was_written(deployment, admin)


@pytest.mark.parametrize("collection", ["consent", "security_events", "unknown"])
def test_a_collection_that_the_data_map_does_not_declare_is_no_target(deployment: Deployment, collection: str) -> None:
    job = imported(deployment, collection)

    assert refusal(job) == ("rejected", "UnknownName")
    assert "ai_content" in message(job)


def test_a_package_without_the_collection_is_refused(packaged: Packaged) -> None:
    deployment, admin, _ = packaged

    assert refusal(imported(deployment, "tracks")) == ("rejected", "UnknownName")
    assert admin.app["tracks"].count_documents({}) == 0


@pytest.mark.parametrize("form", ["id", "text"])
def test_documents_of_an_erased_person_do_not_come_back(deployment: Deployment, form: str) -> None:
    admin = deployment.admin
    person = ObjectId()
    held = person if form == "id" else f"user:{person}"
    admin.app["ai_content"].insert_many([content(str(n), _id=n) for n in range(60)])
    admin.app["ai_content"].insert_one(content("own", _id=60, payload={"deep": [{"who": held}]}))
    exported(deployment)
    admin.app["ai_content"].delete_many({})
    admin.compliance[REQUESTS].insert_one({"_id": "e-1", "subject_id": person, "state": "completed"})

    job = imported(deployment)

    assert job.state == "rejected"
    assert message(job).startswith("line 61 holds the id of an erased person")
    assert str(person) not in message(job)
    assert_nothing_was_written(deployment, admin)


def test_what_the_validator_refuses_is_named_and_nothing_of_its_batch_is_written(packaged: Packaged) -> None:
    deployment, admin, package = packaged
    rewrite(package, lambda lines: [*lines[:76], lines[76].replace(b'"type": "76"', b'"type": 76'), *lines[77:]])

    job = imported(deployment)

    assert refusal(job) == ("parked", "StepRefused")
    assert message(job).startswith("line 77:")
    assert [found["_id"] for found in admin.app["ai_content"].find().sort("_id")] == list(range(50))
    assert len(deployment.entries(action="import.batch")) == 1


IMPORT_COMMITS = 5  # started, three batches, completed


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("n", range(1, IMPORT_COMMITS + 1))
def test_an_import_that_dies_at_any_commit_goes_on_where_it_stood(packaged: Packaged, n: int, moment: str) -> None:
    deployment, admin, _ = packaged
    brief = deployment.with_settings(lease=SHORT)
    values = {"package": "p-1", "collection": "ai_content"}

    with pytest.raises(Died):
        brief.carry_out(
            "import.run", values, "import-1", databases=mortal(brief.worker, at=n, committed=moment == "after")
        )
    job = finish_after_a_death(brief, "import.run", "import-1")

    assert job.state == "done", job.error
    assert job.result == {"collection": "ai_content", "lines": 120, "inserted": 120}
    assert sorted(found["_id"] for found in admin.app["ai_content"].find()) == list(range(120))
    batches = deployment.entries(action="import.batch")
    assert sum(entry["details"]["inserted"] for entry in batches) == 120
    assert sorted(actions(deployment, "import")) == [*["import.batch"] * 3, "import.completed", "import.started"]


def test_the_deaths_above_are_all_there_are(packaged: Packaged) -> None:
    deployment, _, _ = packaged
    databases = mortal(deployment.worker, at=0, committed=False)

    job = deployment.carry_out(
        "import.run", {"package": "p-1", "collection": "ai_content"}, "import-1", databases=databases
    )

    assert job.state == "done"
    assert databases.fate.calls == IMPORT_COMMITS


def test_a_file_that_changed_while_the_import_was_interrupted_is_refused(packaged: Packaged) -> None:
    deployment, admin, package = packaged
    brief = deployment.with_settings(lease=SHORT)
    with pytest.raises(Died):
        brief.carry_out(
            "import.run",
            {"package": "p-1", "collection": "ai_content"},
            "import-1",
            databases=mortal(brief.worker, at=2, committed=True),
        )
    path = package / "ai_content.ndjson"
    path.write_bytes(path.read_bytes().replace(b'"type": "77"', b'"type": "xx"'))

    job = finish_after_a_death(brief, "import.run", "import-1")

    assert refusal(job) == ("parked", "ManifestMismatch")
    assert admin.app["ai_content"].count_documents({}) == 50


def test_a_stalled_import_whose_lease_was_taken_writes_nothing_more(packaged: Packaged) -> None:
    deployment, admin, _ = packaged
    services = deployment.services()
    asked: list[None] = []

    def taken_over() -> bool:
        asked.append(None)
        if len(asked) == 6:  # three batches were looked at, the start and the first one are committed
            admin.compliance["jobs"].update_one({"_id": "import-1"}, {"$inc": {"fence": 1}})
        return False

    job = deployment.carry_out(
        "import.run", {"package": "p-1", "collection": "ai_content"}, "import-1", should_stop=taken_over
    )

    assert job.state == "running"
    assert admin.app["ai_content"].count_documents({}) == 50
    assert services.ledger.find("import-1") == job
