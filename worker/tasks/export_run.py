"""``compliance.export.run``: export a collection, or everything about one person (GDPR Art. 15 and 20)."""

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import StringConstraints, model_validator

from compliance.datamap.subject import parse_subject_id, to_entity_id
from compliance.erasure.stage import due_date
from compliance.jobs.run import Run
from compliance.transfer.export import collection_documents, subject_documents
from compliance.transfer.manifest import PACKAGE_NAME, default_name
from compliance.transfer.package import Package, write_package
from worker.job import ACTOR, COLLECTION_NAME, Payload, collection_lock, job, subject_lock
from worker.services import Services


class ExportData(Payload):
    """What to export: a ``collection`` or a ``subject_id``; ``package`` names the folder."""

    collection: Annotated[str, StringConstraints(pattern=COLLECTION_NAME)] | None = None
    subject_id: str | None = None
    package: Annotated[str, StringConstraints(pattern=PACKAGE_NAME)] | None = None

    @model_validator(mode="after")
    def _names_one_thing(self) -> Self:
        if (self.collection is None) == (self.subject_id is None):
            raise ValueError("give either collection or subject_id")
        return self

    def locks(self, subjects: Sequence[str]) -> tuple[str, ...]:
        """Read no person who is being erased, and no collection that is being imported."""
        return (*map(subject_lock, subjects), *map(collection_lock, filter(None, [self.collection])))


@job("export.run", ExportData, queue="compliance.bulk", due=due_date)
def export_run(payload: ExportData, run: Run, services: Services) -> None:
    """Write a package of files with a manifest."""
    name = payload.package or default_name(run.job.request_id)
    database = services.databases.app
    if payload.subject_id is not None:
        subject_id = parse_subject_id(payload.subject_id, services.data_map)
        documents = subject_documents(
            database, services.data_map, subject_id, pseudonyms=services.pseudonyms, check=run.check
        )
        notes = tuple(f"also held by {other.id}: {other.holds}" for other in services.data_map.recipients)
        package = Package(
            directory=services.transfer_dir,
            name=name,
            about="subject",
            database=database.name,
            entity_type="user",
            entity_id=to_entity_id(subject_id),
            actor=ACTOR,
            notes=notes,
        )
        write_package(run, package, documents)
        return
    collection = str(payload.collection)
    package = Package(
        directory=services.transfer_dir,
        name=name,
        about="collection",
        database=database.name,
        entity_type="collection",
        entity_id=collection,
        actor=ACTOR,
    )
    write_package(run, package, [(collection, collection_documents(database, collection))])
