"""Write a package: entry of intent, files, manifest, entry of completion.

The files lie outside any transaction, so they are written under a temporary name and a repeat writes them anew; what
the log says of them (counts and SHA-256) is committed last.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from compliance.audit.entry import Detail, EntityId, Entry
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Document
from compliance.transfer.formats import ndjson
from compliance.transfer.manifest import File, Manifest, open_package, replacing, write_manifest


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


def write_package(run: Run, package: Package, collections: Iterable[tuple[str, Iterable[Document]]]) -> None:
    """Write one file for each of *collections* that has documents, and end the job.

    Memory does not grow with the number of documents.
    """
    path = open_package(package.directory, package.name, run.job.request_id)
    _record(run, package, "export.started", {"package": package.name})
    fence = run.job.fence
    files = [file for name, documents in collections if (file := _write_file(path, name, documents, fence)).documents]
    manifest = Manifest(
        request_id=run.job.request_id,
        about=package.about,
        database=package.database,
        created_at=run.clock.now().isoformat(),
        files=tuple(files),
        notes=package.notes,
    )
    write_manifest(manifest, path, attempt=fence)
    details: dict[str, Detail] = {
        "package": package.name,
        "documents": {file.collection: file.documents for file in files},
        "sha256": [f"{file.collection}:{file.sha256}" for file in files],
    }
    result = {"package": package.name, "documents": sum(file.documents for file in files), "files": len(files)}
    _record(run, package, "export.completed", details, result=result)


def _write_file(path: Path, collection: str, documents: Iterable[Document], fence: int) -> File:
    name = collection + ndjson.SUFFIX
    with replacing(path / name, attempt=fence) as file:
        count = ndjson.write(documents, file)
    if not count:
        (path / name).unlink()
    return File(name=name, collection=collection, documents=count, size_bytes=file.size_bytes, sha256=file.sha256)


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
