"""Write a package: entry of intent, files, manifest, entry of completion.

The files lie outside any transaction, so they are written under a temporary name and a repeat writes them anew; what
the log says of them (counts and SHA-256) is committed last.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compliance.audit.entry import Detail, EntityId, Entry
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Document
from compliance.transfer.formats import ndjson
from compliance.transfer.manifest import File, Manifest, open_package, replacing, write_manifest

LOOK_EVERY = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What to write, and what to call it in the audit log.

    Attributes:
        about: ``collection`` or ``subject``.
        notes: Sentences for the reader of the package.
    """

    directory: Path
    name: str
    about: str
    database: str
    entity_type: str
    entity_id: EntityId
    actor: str
    notes: tuple[str, ...] = ()


def write_package(run: Run, package: Package, collections: Iterable[tuple[str, Iterable[Mapping[str, Any]]]]) -> None:
    """Write one file for each of *collections* that has documents, and end the job.

    Documents are streamed; of an access package the ids of the person's documents are in memory, so that one that two
    rules reach is written once.
    """
    path = open_package(package.directory, package.name, run.job.request_id, attempt=run.job.fence)
    _record(run, package, "export.started", {"package": package.name})
    files = [file for name, documents in collections if (file := _write_file(run, path, name, documents)).documents]
    manifest = Manifest(
        request_id=run.job.request_id,
        about=package.about,
        database=package.database,
        created_at=run.clock.now().isoformat(),
        files=tuple(files),
        notes=package.notes,
    )
    write_manifest(manifest, path, attempt=run.job.fence)
    details: dict[str, Detail] = {
        "package": package.name,
        "documents": {file.collection: file.documents for file in files},
        "sha256": [f"{file.collection}:{file.sha256}" for file in files],
    }
    result = {"package": package.name, "documents": sum(file.documents for file in files), "files": len(files)}
    _record(run, package, "export.completed", details, result=result)


def _write_file(run: Run, path: Path, collection: str, documents: Iterable[Mapping[str, Any]]) -> File:
    name = collection + ndjson.SUFFIX
    with replacing(path / name, attempt=run.job.fence) as file:
        count = ndjson.write(_until_stopped(run, documents), file)
        run.commit(lambda _: Outcome())  # an attempt that lost its lease must not replace a file of its successor
    if not count:
        (path / name).unlink()
    return File(name=name, collection=collection, documents=count, size_bytes=file.size_bytes, sha256=file.sha256)


def _until_stopped(run: Run, documents: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for number, document in enumerate(documents):
        if number % LOOK_EVERY == 0:
            run.check()
        yield document


def _record(
    run: Run, package: Package, action: str, details: Mapping[str, Detail], *, result: Document | None = None
) -> None:
    entry = Entry(
        event=f"{run.job.request_id}#{run.job.fence}",
        entity_type=package.entity_type,
        entity_id=package.entity_id,
        action=action,
        created_at=run.clock.now(),
        performed_by=package.actor,
        request_id=run.job.request_id,
        details=details,
    )
    run.commit(lambda _: Outcome(entries=(entry,), result=result))
