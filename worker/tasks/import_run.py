"""``compliance.import.run``: import one collection from a package that an export wrote."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import StringConstraints

from compliance.jobs.run import Run
from compliance.transfer.import_ import Import, import_package
from compliance.transfer.manifest import PACKAGE_NAME
from worker.job import ACTOR, COLLECTION_NAME, Payload, collection_lock, job
from worker.services import Services


class ImportData(Payload):
    """Which ``collection`` of which ``package``; the data map must declare it under ``imports``."""

    package: Annotated[str, StringConstraints(pattern=PACKAGE_NAME)]
    collection: Annotated[str, StringConstraints(pattern=COLLECTION_NAME)]

    def locks(self, subjects: Sequence[str]) -> tuple[str, ...]:
        """Let one job at a time import or export a collection."""
        del subjects
        return (collection_lock(self.collection),)


@job("import.run", ImportData, queue="compliance.bulk")
def import_run(payload: ImportData, run: Run, services: Services) -> None:
    """Look at every line first, then write in batches."""
    import_package(
        Import(
            run=run,
            databases=services.databases,
            data_map=services.data_map,
            directory=services.transfer_dir,
            package=payload.package,
            collection=payload.collection,
            batch_docs=services.settings.batch_docs,
            actor=ACTOR,
            pseudonyms=services.pseudonyms,
        )
    )
