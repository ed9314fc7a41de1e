"""Packages that tests export and import."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument
from deployment import Deployment
from waiting import wait_until

from compliance.jobs.job import Job
from compliance.mongo import Document
from worker.attempt import carry_out
from worker.tasks import JOBS

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SUFFIX = ".ndjson"
SHORT = timedelta(seconds=0.3)


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


def lines_of(package: Path) -> dict[str, list[Document]]:
    return {
        path.name.removesuffix(SUFFIX): [bson.json_util.loads(line) for line in path.read_bytes().splitlines()]
        for path in package.glob(f"*{SUFFIX}")
    }
