"""A copy of the application database: every collection with its options and indexes, and a sample of its documents.

It holds data of people. It stands beside the original, on the same servers, and only the migrator may look at it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError

from compliance.audit.writer import Writer
from compliance.errors import ConfigurationError
from compliance.foundation import ensure_own
from compliance.mongo import DUPLICATE_KEY, Databases, Db, driver_errors
from compliance.provision import ensure_audit_log
from compliance.roles import REHEARSAL

LONGEST_NAME = 63 - len("_compliance")  # of a database, in bytes
KEPT = ("migration_history", "migration_steps", "migration_sources", "declared_schema", "holds")
RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
INSERTED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What was copied of one collection: so many documents of so many."""

    documents: int
    of: int

    @property
    def ratio(self) -> float:
        """How many times larger the original is."""
        return self.of / self.documents if self.documents else 1.0


def clone_of(databases: Databases) -> Databases:
    """Return the databases in which *databases* are rehearsed; what they log is of another log, and cannot be moved.

    Raises:
        ConfigurationError: When the name of the application database is too long for another one beside it.
    """
    name = f"{databases.name}{REHEARSAL}"
    if len(name) > LONGEST_NAME:
        most = LONGEST_NAME - len(REHEARSAL)
        raise ConfigurationError(f"the name of the database is too long to be rehearsed: at most {most} characters")
    writer = databases.participant
    if isinstance(writer, Writer):
        writer = Writer(origin=f"{writer.origin}{REHEARSAL}", key=writer.key, process=writer.process)
    return Databases(databases.client, name, writer)


def drop(clone: Databases) -> None:
    """Drop the copy, or what is left of one."""
    for database in (clone.app, clone.audit, clone.compliance):
        with driver_errors():
            clone.client.drop_database(database.name)


def copy(source: Databases, clone: Databases, *, documents: int) -> dict[str, Copied]:
    """Copy *source*, at most so many documents of each collection; return what was copied, by collection."""
    with driver_errors():
        ensure_audit_log(clone)
        ensure_own(clone)
        for name in KEPT:
            _insert(clone.compliance, name, _raw(source.compliance, name).find({}))
        listed = [info for info in source.app.list_collections() if not info["name"].startswith("system.")]
        for info in sorted(listed, key=lambda info: (info["type"] == "view", info["name"])):
            clone.app.command({"create": info["name"], **info.get("options", {})})
        filled = [info for info in listed if info["type"] != "view"]
        return {info["name"]: _copy(source.app, clone.app, info, documents) for info in filled}


def _copy(source: Db, target: Db, info: Mapping[str, Any], documents: int) -> Copied:
    name = info["name"]
    total = source[name].estimated_document_count()
    found = _raw(source, name)
    sample: Iterable[RawBSONDocument]
    sample = found.find({}) if total <= documents else found.aggregate([{"$sample": {"size": documents}}])
    copied = _insert(target, name, islice(sample, documents))
    specs = [{key: value for key, value in spec.items() if key != "ns"} for spec in source[name].list_indexes()]
    wanted = [spec for spec in specs if spec["name"] != "_id_" and not spec.get("clustered")]
    if wanted and info["type"] == "collection":
        target.command({"createIndexes": name, "indexes": wanted})
    return Copied(documents=copied, of=max(total, copied))


def _raw(database: Db, name: str) -> Any:
    return database.get_collection(name, codec_options=RAW)


def _insert(database: Db, name: str, documents: Iterable[RawBSONDocument]) -> int:
    inserted = 0
    for part in _parts(iter(documents)):
        try:
            database[name].insert_many(part, ordered=False, bypass_document_validation=True)
            inserted += len(part)
        except BulkWriteError as error:  # a sample may hold a document twice
            refused = (error.details or {}).get("writeErrors", [])
            if any(one["code"] != DUPLICATE_KEY for one in refused):
                raise
            inserted += len(part) - len(refused)
    return inserted


def _parts(documents: Iterator[RawBSONDocument]) -> Iterator[list[Any]]:
    while part := list(islice(documents, INSERTED_AT_ONCE)):
        yield part
