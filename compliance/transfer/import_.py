"""Import a package: look at every line first, then write in batches, each one transaction with entry and checkpoint.

A document that is there already with the same content is skipped, one with other content stops the import before
anything is written. Documents of erased people are refused.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import bson
from pymongo.errors import BulkWriteError

from compliance.audit.entry import Detail, Entry
from compliance.datamap.model import DataMap
from compliance.datamap.pseudonym import Pseudonyms
from compliance.erasure.erased import Erased
from compliance.errors import InvalidPayload, RejectedError, StepRefused, UnknownName
from compliance.jobs.run import Outcome, Run
from compliance.mongo import DOCUMENT_VALIDATION_FAILED, Databases, Document, Session, driver_errors
from compliance.transfer.formats import ndjson
from compliance.transfer.manifest import File, check_file, package_path, read_manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One import in progress."""

    run: Run
    databases: Databases
    data_map: DataMap
    directory: Path
    package: str
    collection: str
    batch_docs: int
    actor: str
    pseudonyms: Pseudonyms | None = None

    def entry(self, action: str, details: dict[str, Detail], *, line: int) -> Entry:
        """Return an entry about the collection."""
        return Entry(
            event=f"{self.run.job.request_id}#{line}",
            entity_type="collection",
            entity_id=self.collection,
            action=action,
            created_at=self.run.clock.now(),
            performed_by=self.actor,
            request_id=self.run.job.request_id,
            details={"package": self.package, **details},
        )


def import_package(importing: Import) -> None:
    """Import the file of one collection from a package and end the job.

    Raises:
        UnknownName: When the data map does not declare the collection as an import target, or the package lacks it.
        ManifestMismatch: When the file is not the one that was exported.
        InvalidPayload: Naming the first line that is wrong; nothing was written.
        ConfigurationError: When a person who was erased is named by a key that this process has not.
    """
    path = package_path(importing.directory, importing.package)
    file = _find_file(importing, path)
    check_file(path, file)
    if not importing.run.job.checkpoint:
        with (path / file.name).open("rb") as stream:
            _look_first(importing, stream)
        started = importing.entry("import.started", {"documents": file.documents, "sha256": file.sha256}, line=0)
        importing.run.commit(lambda _: Outcome(entries=(started,), checkpoint={"line": 0, "offset": 0, "inserted": 0}))
    with (path / file.name).open("rb") as stream:
        _write(importing, stream, dict(importing.run.job.checkpoint) or {"line": 0, "offset": 0, "inserted": 0})


def _find_file(importing: Import, path: Path) -> File:
    if importing.collection not in importing.data_map.imports:
        declared = ", ".join(importing.data_map.imports) or "none"
        raise UnknownName(f"the data map does not declare this collection under imports; declared: {declared}")
    for file in read_manifest(path).files:
        if file.collection == importing.collection:
            return file
    raise UnknownName(f"package {importing.package} holds no file of that collection")


def _look_first(importing: Import, stream: BinaryIO) -> None:
    people = Erased(databases=importing.databases, pseudonyms=importing.pseudonyms)
    people.require_keys()
    line = 0
    for batch in _batches(ndjson.read(stream), importing.batch_docs):
        importing.run.check()
        encoded = [bson.encode(document) for document in batch]
        erased = people.among(encoded)
        for number, raw in enumerate(encoded, line + 1):
            if erased.found_in(raw):
                raise RejectedError(f"line {number} holds the id of an erased person; take such lines out")
        _missing(importing, batch, first_line=line + 1, session=None)
        line += len(batch)


def _write(importing: Import, stream: BinaryIO, checkpoint: Document) -> None:
    stream.seek(checkpoint["offset"])
    line, inserted = checkpoint["line"], checkpoint["inserted"]
    while lines := list(islice(stream, importing.batch_docs)):
        batch = list(ndjson.read(lines, first_line=line + 1))
        after = {"line": line + len(batch), "offset": checkpoint["offset"] + sum(map(len, lines))}
        inserted = _commit_batch(importing, batch, after, inserted=inserted)
        line, checkpoint = after["line"], after
    done = importing.entry("import.completed", {"lines": line, "inserted": inserted}, line=line)
    result = {"collection": importing.collection, "lines": line, "inserted": inserted}
    importing.run.commit(lambda _: Outcome(entries=(done,), result=result))


def _commit_batch(importing: Import, batch: list[Document], after: Document, *, inserted: int) -> int:
    first_line = after["line"] - len(batch) + 1

    def effect(session: Session) -> Outcome:
        missing = _missing(importing, batch, first_line=first_line, session=session)
        if missing:
            _insert(importing, missing, session)
        details: dict[str, Detail] = {"inserted": len(missing), "skipped": len(batch) - len(missing)}
        return Outcome(
            entries=(importing.entry("import.batch", details, line=after["line"]),),
            checkpoint=after | {"inserted": inserted + len(missing)},
        )

    outcome = importing.run.commit(effect)
    return int((outcome.checkpoint or {})["inserted"])


def _insert(importing: Import, missing: dict[int, Document], session: Session) -> None:
    try:
        importing.databases.app[importing.collection].insert_many(missing.values(), session=session)
    except BulkWriteError as error:
        refused = error.details["writeErrors"][0]
        if refused["code"] != DOCUMENT_VALIDATION_FAILED:
            raise
        line = list(missing)[refused["index"]]
        raise StepRefused(
            f"line {line}: the validator of the collection does not allow this document (code 121); "
            "nothing of its batch was written"
        ) from None


def _missing(
    importing: Import, batch: list[Document], *, first_line: int, session: Session | None
) -> dict[int, Document]:
    """Return the documents of *batch* that are not there yet, by line.

    Raises:
        InvalidPayload: When one is there with other content, or twice in the batch with different content.
    """
    query = {"_id": {"$in": [document["_id"] for document in batch]}}
    collection = ndjson.as_stored(importing.databases.app, importing.collection)
    with driver_errors(session):
        known = {_key(document): document.raw for document in collection.find(query, session=session)}
    missing: dict[int, Document] = {}
    for number, document in enumerate(batch, first_line):
        key, raw = _key(document), bson.encode(document)
        if key not in known:
            known[key] = raw
            missing[number] = document
        elif known[key] != raw:
            raise InvalidPayload(f"line {number}: a document with this _id is there already with other content")
    return missing


def _key(document: Mapping[str, Any]) -> bytes:
    return bson.encode({"_id": document["_id"]})


def _batches(documents: Iterable[Document], size: int) -> Iterator[list[Document]]:
    iterator = iter(documents)
    while batch := list(islice(iterator, size)):
        yield batch
