"""Export: every byte is there, nothing is overwritten, and a death costs nothing."""

import hashlib
import json
import stat
import subprocess
import sys
from collections.abc import Mapping
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
from packages import (
    NOON,
    SHORT,
    SUFFIX,
    actions,
    content,
    exported,
    finish_after_a_death,
    folder,
    imported,
    message,
    raw_of,
    refusal,
)
from sealed import faults_of_entries
from waiting import wait_until

from compliance.jobs.job import Job
from compliance.transfer.manifest import open_package
from worker.attempt import carry_out
from worker.tasks import JOBS

ROOT = Path(__file__).parents[2]
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
    assert faults_of_entries(deployment) == []


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

    def take_over(job: Job) -> bool:
        """Again where the heartbeat of the first attempt was faster."""
        admin.compliance["jobs"].update_one({"_id": "r-1"}, {"$set": {"lease.until": NOON}})
        return carry_out(JOBS["export.run"], job.request_id, services=services, on_progress=lambda _: None)

    def paused() -> bool:
        """Asked whether to stop: between the first and the second transaction of the first attempt."""
        job = services.ledger.find("r-1")
        if job is not None and job.fence == 1 and (folder(deployment, "p-1") / ".ai_content.ndjson.1.part").exists():
            admin.app["ai_content"].insert_one(content("late"))
            wait_until(lambda: take_over(job), timeout=10, what="a successor does it")
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
