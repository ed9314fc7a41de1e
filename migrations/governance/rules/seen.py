"""What a dry run on the live database says about a script; these rules are silent where nobody made one."""

from collections.abc import Iterator, Sequence

from migrations.governance.catalogue import Sighting
from migrations.governance.rule import Case, Fault, Severity, rule
from migrations.governance.sample import data, post, pre

MANY_DOCUMENTS = 1_000_000
MUCH_OPLOG = 0.1

INDEX, NO_INDEX = (
    'ctx.create_index("albums", "ix_album_lang", [("lang", 1)])',
    'ctx.drop_index("albums", "ix_album_lang")',
)
FILL = 'ctx.backfill("albums", where={"state": {"$exists": False}}, update={"$set": {"state": "NEW"}})'
STRICT = 'ctx.set_schema("albums", schema={"required": ["lang"]}, level="strict")'
MODERATE = 'ctx.set_schema("albums", schema={"bsonType": "object"}, level="moderate")'
EXPIRE = 'ctx.create_index("albums", "ttl", [("at", 1)], options={"expireAfterSeconds": 86400})'


def _steps(case: Case) -> Sequence[Sighting]:
    return case.catalogue.steps.get(case.script.file, ()) if case.catalogue is not None else ()


def _at(step: Sighting, why: str, fix: str) -> Fault:
    return Fault(step.line, step.line, why, fix)


@rule(
    "MX097",
    bad=pre(INDEX, NO_INDEX).seen(Sighting(collection="albums", builds=True, collection_documents=MANY_DOCUMENTS)),
    good=pre(INDEX, NO_INDEX).seen(Sighting(collection="albums", builds=True, collection_documents=MANY_DOCUMENTS - 1)),
    severity=Severity.WARNING,
)
def large_build(case: Case) -> Iterator[Fault]:
    """An index build over a large collection.

    No throttle holds a build back: while it runs, writes take many times as long (p99 from 18 to 378 ms, measured), and
    a secondary that is down stops it.
    """
    for step in _steps(case):
        if step.builds and step.collection_documents >= MANY_DOCUMENTS:
            fix = "compliance migrate up --only NAME  # this script alone, at a quiet time, with every member up"
            yield _at(step, f"it reads {step.collection_documents} documents of {step.collection}", fix)


@rule(
    "MX098",
    bad=post(STRICT, MODERATE).seen(Sighting(collection="albums", violators=3)),
    good=post(STRICT, MODERATE).seen(Sighting(collection="albums")),
)
def strict_with_violators(case: Case) -> Iterator[Fault]:
    """A strict validator that documents break.

    No step of this plan mends them, so the run would stop here; were it in force, nobody could update them any more.
    """
    for step in _steps(case):
        if step.violators:
            name = step.collection
            fix = f'ctx.backfill("{name}", where={{...}}, update={{...}})  # in a script of the phase data, before'
            yield _at(step, f"{step.violators} documents of {name} break it", fix)


@rule(
    "MX099",
    bad=pre(EXPIRE, 'ctx.drop_index("albums", "ttl")').seen(Sighting(collection="albums", expiring=40)),
    good=pre(EXPIRE, 'ctx.drop_index("albums", "ttl")').seen(Sighting(collection="albums")),
)
def expires_at_once(case: Case) -> Iterator[Fault]:
    """A TTL index by which documents expire at once.

    The server deletes them within a minute of the build, in bulk, without an audit entry, and no way back has them.
    """
    for step in _steps(case):
        if step.expiring:
            fix = f"compliance export {step.collection}  # then remove old documents in batches, then build the index"
            yield _at(step, f"{step.expiring} documents of {step.collection} would be deleted at once", fix)


@rule(
    "MX100",
    bad=data(FILL).seen(Sighting(collection="albums", oplog_share=MUCH_OPLOG)),
    good=data(FILL).seen(Sighting(collection="albums", oplog_share=MUCH_OPLOG / 2)),
    severity=Severity.WARNING,
)
def much_oplog(case: Case) -> Iterator[Fault]:
    """A step that writes much of the oplog.

    What it writes drops as much of the past: a secondary or a watcher that is away meanwhile may lose its place.
    """
    for step in _steps(case):
        if step.oplog_share >= MUCH_OPLOG:
            fix = (
                "rs.resizeOplog  # db.adminCommand({replSetResizeOplog: 1, size: <MB>}) on every member, before it runs"
            )
            yield _at(step, f"about {step.oplog_share:.0%} of the oplog for {step.collection}", fix)
