"""The indexes of a collection as they are; a read-only operation."""

from dataclasses import dataclass
from typing import Any

from pymongo.errors import OperationFailure

from compliance.mongo import CODEC, Db, Document, driver_errors

NAMESPACE_NOT_FOUND = 26


@dataclass(frozen=True, slots=True)
class Observed:
    """One index.

    Attributes:
        spec: What it is, as ``listIndexes`` shows it.
        is_building: Whether the server still builds it; a plain ``listIndexes`` shows it as if it were there.
    """

    spec: Document
    is_building: bool


def observed_indexes(database: Db, collection: str) -> dict[str, Observed]:
    """Return every index of *collection* by name, those that are being built too; none where it does not exist."""
    with driver_errors():
        try:
            answer = database.command("listIndexes", collection, includeBuildUUIDs=True, codec_options=CODEC)
        except OperationFailure as error:
            if error.code == NAMESPACE_NOT_FOUND:
                return {}
            raise
    listed = [_observed(index) for index in answer["cursor"]["firstBatch"]]  # 64 at most
    return {index.spec["name"]: index for index in listed}


def _observed(index: dict[str, Any]) -> Observed:
    is_building = "buildUUID" in index
    return Observed(index["spec"] if is_building else index, is_building)
