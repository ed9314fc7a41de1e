"""Export and import: every byte comes back, nothing is overwritten, and nobody else's data is given out."""

import hashlib
import json
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import bson
import pytest
from bson import (
    Binary,
    Code,
    DatetimeMS,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
)
from bson.raw_bson import RawBSONDocument
from deployment import Deployment
from faults import Died, mortal
from waiting import wait_until

from compliance.audit.verify import verify
from compliance.erasure.stage import REQUESTS
from compliance.jobs.job import Job
from compliance.mongo import Databases, Document
from compliance.transfer.manifest import open_package
from worker.attempt import carry_out
from worker.tasks import JOBS

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
ROOT = Path(__file__).parents[2]
SUFFIX = ".ndjson"

VALUES: dict[str, Any] = {
    "double": 1.5,
    "double that is whole": 2.0,
    "negative zero": -0.0,
    "tiny": 5e-324,
    "nan": float("nan"),
    "infinity": float("-inf"),
    "int": 7,
    "negative int": -(2**31),
    "long that fits an int": Int64(7),
    "long": Int64(-(2**63)),
    "decimal": Decimal128(Decimal("0.1000")),
    "decimal nan": Decimal128("NaN"),
    "decimal exponent": Decimal128("1E+6000"),
    "text": 'naïve Ω 🎵 \u2028 \x00 " \\ \n',
    "empty text": "",
    "decomposed": "e\u0301",
    "bytes": b"\x00\xff",
    "uuid": Binary.from_uuid(UUID(int=7)),
    "old uuid": Binary(b"0123456789abcdef", 3),
    "user binary": Binary(b"x", 128),
    "old binary": Binary(b"x", 2),
    "id": ObjectId("0123456789abcdef01234567"),
    "true": True,
    "null": None,
    "date": NOON + timedelta(milliseconds=1),
    "date before 1970": datetime(1789, 7, 14, 5, 0, 0, 1000, tzinfo=UTC),
    "date of year 1": datetime(1, 1, 1, tzinfo=UTC),
    "date after year 9999": DatetimeMS(2**60),
    "date before year 1": DatetimeMS(-(2**60)),
    "regex": Regex('^a[.]"/', "im"),
    "timestamp": Timestamp(2**32 - 1, 5),
    "min": MinKey(),
    "max": MaxKey(),
    "code": Code("function () { return 1 }"),
    "code with scope": Code("f", {"x": 1}),
    "reference": DBRef("users", ObjectId("0123456789abcdef01234567"), "other"),
    "empty object": {},
    "empty array": [],
    "nested": {"a": [{"b": [[1, Int64(2)], {"c": {"d": "e"}}]}, None]},
    "order": {"z": 1, "a": 2, "m": 3},
    "numbers as names": {"0": "a", "1": "b"},
    "dots in names": {"a.b": {"c.d": 1}},
    "dollars in names": {"$set": 1, "a": {"$oid": "0123456789abcdef01234567"}},
    "looks like a number": {"$numberLong": "7"},
    "looks like a date": {"$date": {"$numberLong": "1"}},
    "in a list": [{"$oid": "0123456789abcdef01234567"}],
    "empty name": {"": 1},
    "unicode name": {"🎵": 1},
}


def raw_of(database: Any, collection: str) -> dict[bytes, bytes]:
    """The bytes of every document, by the bytes of its id."""
    codec = database.codec_options.with_options(document_class=RawBSONDocument)
    found = database.get_collection(collection, codec_options=codec).find()
    return {bson.encode({"_id": document["_id"]}): document.raw for document in found}


def content(type_: str, **changes: Any) -> Document:
    """A valid document of ai_content, whose payload may hold anything."""
    return {"type": type_, "payload": {}, "created_at": NOON} | changes


def folder(deployment: Deployment, package: str) -> Path:
    return deployment.services().transfer_dir / package


def exported(deployment: Deployment, collection: str = "ai_content", package: str = "p-1") -> Path:
    job = deployment.run("export.run", {"collection": collection, "package": package}, f"export-{package}-{collection}")
    assert job.state == "done", job.error
    return folder(deployment, package)


def imported(deployment: Deployment, collection: str = "ai_content", request_id: str = "import-1") -> Job:
    return deployment.run("import.run", {"package": "p-1", "collection": collection}, request_id)


def refusal(job: Job) -> tuple[str, str]:
    return job.state.value, (job.error or {})["code"]


def message(job: Job) -> str:
    return (job.error or {})["message"]


def actions(deployment: Deployment, verb: str) -> list[str]:
    return [entry["action"] for entry in deployment.entries() if entry["action"].startswith(verb)]


def rewrite(package: Path, change: Callable[[list[bytes]], list[bytes]], collection: str = "ai_content") -> None:
    """Change the lines of a file, and the manifest with them, as somebody who edits a package on purpose does."""
    path = package / f"{collection}{SUFFIX}"
    data = b"".join(change(path.read_bytes().splitlines(keepends=True)))
    path.write_bytes(data)
    manifest = json.loads((package / "manifest.json").read_text())
    for file in manifest["files"]:
        if file["collection"] == collection:
            file |= {
                "size_bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "documents": data.count(b"\n"),
            }
    (package / "manifest.json").write_text(json.dumps(manifest))


def test_every_kind_of_value_comes_back_byte_for_byte(deployment: Deployment) -> None:
    admin = deployment.admin
    admin.app["ai_content"].insert_many([content(name, payload={"value": value}) for name, value in VALUES.items()])
    admin.app["ai_content"].insert_many(
        [content("id", _id=id_) for id_ in (1, "one", {"a": 1}, Binary.from_uuid(UUID(int=1)), NOON, Int64(2**40))]
    )
    before = raw_of(admin.app, "ai_content")

    exported(deployment)
    admin.app["ai_content"].delete_many({})
    job = imported(deployment)

    assert job.state == "done", job.error
    assert raw_of(admin.app, "ai_content") == before


def test_documents_that_no_driver_writes_today_come_back_byte_for_byte(deployment: Deployment) -> None:
    admin = deployment.admin
    plain = bson.encode(content("odd", _id=1, payload={"value": "text", "other": 7}))
    odd = {
        "symbol": plain.replace(b"\x02value\x00", b"\x0evalue\x00"),
        "text that is no UTF-8": plain.replace(b"text\x00", b"t\xff\xfet\x00"),
        "a name twice": plain.replace(b"\x10other\x00", b"\x10value\x00"),
        "undefined": bson.encode(content("odd", _id=1, payload={"value": None})).replace(b"\x0avalue", b"\x06value"),
    }
    for number, raw in enumerate(odd.values()):
        document = RawBSONDocument(raw.replace(b"\x10_id\x00\x01", b"\x10_id\x00" + bytes([number + 1])))
        admin.app["ai_content"].insert_one(document)
    before = raw_of(admin.app, "ai_content")
    assert len(before) == len(odd)

    exported(deployment)
    admin.app["ai_content"].delete_many({})
    job = imported(deployment)

    assert job.state == "done", job.error
    assert raw_of(admin.app, "ai_content") == before


def test_the_manifest_tells_the_truth_and_only_the_owner_may_read(deployment: Deployment) -> None:
    deployment.admin.app["ai_content"].insert_many([content(str(n), note="ü") for n in range(120)])

    package = exported(deployment)

    data = (package / "ai_content.ndjson").read_bytes()
    manifest = json.loads((package / "manifest.json").read_text())
    assert manifest["format"] == "compliance-export/v1"
    assert (manifest["about"], manifest["database"]) == ("collection", deployment.name)
    assert manifest["files"] == [
        {
            "name": "ai_content.ndjson",
            "collection": "ai_content",
            "documents": 120,
            "size_bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    ]
    assert data.count(b"\n") == 120
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in package.iterdir()}
    assert {name: mode for name, mode in modes.items() if mode != 0o600} == {}
    assert stat.S_IMODE(package.stat().st_mode) == 0o700
    assert [path.name for path in package.iterdir() if path.name.endswith(".part")] == []


def test_an_export_leaves_entries_that_prove_what_was_given_out(deployment: Deployment) -> None:
    deployment.admin.app["ai_content"].insert_one(content("x"))

    package = exported(deployment)

    digest = hashlib.sha256((package / "ai_content.ndjson").read_bytes()).hexdigest()
    started, completed = (deployment.entries(action=f"export.{verb}") for verb in ("started", "completed"))
    assert [entry["entity_id"] for entry in (*started, *completed)] == ["ai_content", "ai_content"]
    assert completed[0]["details"]["sha256"] == [f"ai_content:{digest}"]
    assert completed[0]["details"]["documents"] == {"ai_content": 1}
    assert verify(deployment.services().log.all()).is_ok


def test_an_empty_collection_is_a_package_without_files(deployment: Deployment) -> None:
    package = exported(deployment)

    assert json.loads((package / "manifest.json").read_text())["files"] == []
    assert [path.suffix for path in package.iterdir() if path.suffix == SUFFIX] == []


def test_the_same_export_twice_is_one(deployment: Deployment) -> None:
    deployment.admin.app["ai_content"].insert_one(content("x"))
    package = exported(deployment)
    before = (package / "manifest.json").read_bytes()

    exported(deployment)

    assert (package / "manifest.json").read_bytes() == before
    assert actions(deployment, "export") == ["export.started", "export.completed"]


def test_an_unknown_collection_is_refused_with_the_known_ones(deployment: Deployment) -> None:
    job = deployment.run("export.run", {"collection": "playlist"})

    assert refusal(job) == ("rejected", "UnknownName")
    assert "playlists" in message(job)
    assert "system." not in message(job)


@pytest.mark.parametrize(
    "values",
    [
        {"collection": "../users"},
        {"collection": "system.views\x00"},
        {"collection": "users", "package": "../up"},
        {"collection": "users", "package": "a/b"},
        {"collection": "users", "package": ""},
        {"collection": "users", "subject_id": "0123456789abcdef01234567"},
        {},
    ],
    ids=repr,
)
def test_what_names_no_plain_thing_is_refused_and_writes_no_file(
    deployment: Deployment, values: Mapping[str, str]
) -> None:
    assert refusal(deployment.run("export.run", values)) == ("rejected", "InvalidPayload")
    directory = deployment.services().transfer_dir
    assert not directory.exists() or list(directory.iterdir()) == []


def test_the_package_of_another_request_is_left_alone(deployment: Deployment) -> None:
    deployment.admin.app["ai_content"].insert_one(content("x"))
    package = exported(deployment)
    before = {path.name: path.read_bytes() for path in package.iterdir()}

    job = deployment.run("export.run", {"collection": "users", "package": "p-1"}, "another")

    assert refusal(job) == ("rejected", "RequestConflict")
    assert {path.name: path.read_bytes() for path in package.iterdir()} == before


def test_a_package_that_another_request_is_still_writing_is_left_alone(deployment: Deployment) -> None:
    deployment.admin.app["ai_content"].insert_one(content("x"))
    path = open_package(deployment.services().transfer_dir, "p-1", "busy", attempt=1)
    (path / ".users.ndjson.1.part").write_bytes(b"half")

    job = deployment.run("export.run", {"collection": "ai_content", "package": "p-1"}, "another")

    assert refusal(job) == ("rejected", "RequestConflict")
    assert (path / ".users.ndjson.1.part").read_bytes() == b"half"


SHORT = timedelta(seconds=0.3)


def finish_after_a_death(deployment: Deployment, kind: str, request_id: str) -> Job:
    """Let another worker take the job over as soon as the lease of the dead one ends."""
    services = deployment.services()

    def is_over() -> bool:
        job = services.ledger.find(request_id)
        assert job is not None
        if job.state == "running":
            carry_out(JOBS[kind], job.request_id, services=services, on_progress=lambda _: None)
        return job.state != "running"

    wait_until(is_over, timeout=20, what="a successor ends the job")
    job = services.ledger.find(request_id)
    assert job is not None
    return job


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_an_export_that_dies_at_any_commit_is_written_anew(deployment: Deployment, n: int, moment: str) -> None:
    brief = deployment.with_settings(lease=SHORT)
    deployment.admin.app["ai_content"].insert_many([content(str(n)) for n in range(60)])
    databases = mortal(brief.worker, at=n, committed=moment == "after")

    with pytest.raises(Died):
        brief.carry_out("export.run", {"collection": "ai_content", "package": "p-1"}, databases=databases)
    if (n, moment) != (3, "after"):  # there the job is done
        (folder(deployment, "p-1") / ".ai_content.ndjson.1.part").touch()  # what SIGKILL leaves
    job = finish_after_a_death(brief, "export.run", "r-1")

    assert job.state == "done", job.error
    package = folder(deployment, "p-1")
    manifest = json.loads((package / "manifest.json").read_text())
    data = (package / "ai_content.ndjson").read_bytes()
    assert manifest["files"][0]["sha256"] == hashlib.sha256(data).hexdigest()
    assert sorted(path.name for path in package.iterdir() if not path.name.startswith(".request")) == [
        "ai_content.ndjson",
        "manifest.json",
    ]
    assert len(deployment.entries(action="export.completed")) == 1


def test_an_attempt_that_lost_its_lease_does_not_replace_the_files_of_its_successor(deployment: Deployment) -> None:
    """A worker is paused in the middle of a file; its successor finishes; then it wakes up."""
    brief = deployment.with_settings(lease=SHORT)
    admin = deployment.admin
    admin.app["ai_content"].insert_many([content(str(n)) for n in range(10)])
    services = brief.services()
    values = {"collection": "ai_content", "package": "p-1"}

    def paused() -> bool:
        """Asked whether to stop: between the first and the second transaction of the first attempt."""
        job = services.ledger.find("r-1")
        if job is not None and job.fence == 1 and (folder(deployment, "p-1") / ".ai_content.ndjson.1.part").exists():
            admin.compliance["jobs"].update_one({"_id": "r-1"}, {"$set": {"lease.until": NOON}})
            admin.app["ai_content"].insert_one(content("late"))
            carry_out(JOBS["export.run"], job.request_id, services=services, on_progress=lambda _: None)
        return False

    job = brief.carry_out("export.run", values, should_stop=paused)

    assert job.state == "done", job.error
    assert (job.result or {})["documents"] == 11
    package = folder(deployment, "p-1")
    data = (package / "ai_content.ndjson").read_bytes()
    assert data.count(b"\n") == 11
    assert json.loads((package / "manifest.json").read_text())["files"][0]["sha256"] == hashlib.sha256(data).hexdigest()
    assert len(deployment.entries(action="export.completed")) == 1


def test_a_worker_that_stops_hands_a_long_export_back(deployment: Deployment) -> None:
    deployment.admin.app["ai_content"].insert_many([content(str(n)) for n in range(10)])
    asked: list[None] = []

    def stopping() -> bool:
        asked.append(None)
        return len(asked) > 1

    job = deployment.carry_out("export.run", {"collection": "ai_content", "package": "p-1"}, should_stop=stopping)

    assert job.state == "queued"
    assert not (folder(deployment, "p-1") / "manifest.json").exists()
    again = deployment.carry_out("export.run", {"collection": "ai_content", "package": "p-1"})
    assert again.state == "done"


MEMORY_PROBE = """
import resource, sys
from compliance.mongo import Databases, open_client
from compliance.transfer.export import collection_documents
from compliance.transfer.formats import ndjson
class Sink:
    def write(self, data): return len(data)
with open_client(sys.argv[1], app_name="probe") as client:
    documents = collection_documents(Databases(client, sys.argv[2]).app, "analytics")
    ndjson.write((next(documents) for _ in range(2_000)), Sink())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = ndjson.write(documents, Sink())
    print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_the_memory_of_an_export_does_not_grow_with_the_collection(deployment: Deployment, tmp_path: Path) -> None:
    admin = deployment.admin
    event = bson.encode({"user_id": ObjectId(), "event_type": "play", "timestamp": NOON, "payload": {"n": 1}})
    for _ in range(10):
        admin.app["analytics"].insert_many([bson.decode(event) for _ in range(20_000)], ordered=False)
    uri = deployment.environ(tmp_path)["MONGODB_URI"]

    done = subprocess.run(
        [sys.executable, "-c", MEMORY_PROBE, uri, deployment.name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )

    count, grown_kib = map(int, done.stdout.split())
    assert count == 198_000
    assert grown_kib < 16 * 1024


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


def lines_of(package: Path) -> dict[str, list[Document]]:
    return {
        path.name.removesuffix(SUFFIX): [bson.json_util.loads(line) for line in path.read_bytes().splitlines()]
        for path in package.glob(f"*{SUFFIX}")
    }


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
