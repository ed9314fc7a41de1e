"""The driver below ``ctx``: what it does without fence, audit entry and dry run, and where it is wrong on its own."""

import ast
from collections.abc import Iterator
from typing import Any

from migrations.governance.operation import CALLED, WRITE_COMMANDS, Kind, Operation
from migrations.governance.rule import Case, Fault, Severity, at, rule
from migrations.governance.sample import data, pre
from migrations.governance.shape import is_known

WEAK = (0, 1, "0", "1")
INSTEAD = {
    "create_collection": 'ctx.create_collection("{name}", schema=..., level="moderate")',
    "create_index": 'ctx.create_index("{name}", "ix_...", [("FIELD", 1)])',
    "create_indexes": 'ctx.create_index("{name}", "ix_...", [("FIELD", 1)])',
    "drop": 'ctx.drop_collection("{name}")',
    "drop_collection": 'ctx.drop_collection("{name}")',
    "drop_index": 'ctx.drop_index("{name}", "ix_...")',
    "update_many": 'ctx.backfill("{name}", where=..., update=...)',
    "update_one": 'ctx.backfill("{name}", where=..., update=...)',
    "replace_one": 'ctx.transform("{name}", where=..., fields=("FIELD",), function=...)',
    "find_one_and_replace": 'ctx.transform("{name}", where=..., fields=("FIELD",), function=...)',
    "find_one_and_update": 'ctx.backfill("{name}", where=..., update=...)',
    "bulk_write": 'ctx.transform("{name}", where=..., fields=("FIELD",), function=...)',
    "collMod": 'ctx.set_schema("{name}", schema=..., level="moderate")',
    "update": 'ctx.backfill("{name}", where=..., update=...)',
}

FILL = 'ctx.backfill("albums", where={"state": {"$exists": False}}, update={"$set": {"state": "NEW"}})'
LOWER = 'ctx.transform("albums", where={"lang": {"$exists": True}}, fields=("lang",), function=lower)'
LOWERING = data(LOWER, top='def lower(document):\n    return {"lang": document["lang"].lower()}')
ALBUMS = 'ctx.databases.app["albums"]'


def _calls(case: Case) -> Iterator[Operation]:
    return (operation for operation in case.script.steps() if not operation.is_step)


@rule(
    "MX050",
    bad=data(f'{ALBUMS}.update_many({{"state": None}}, {{"$set": {{"state": "NEW"}}}})'),
    good=data(FILL),
)
def unbounded_write(case: Case) -> Iterator[Fault]:
    """One write for the whole collection.

    It runs for as long as the collection is large, cannot pause, is not retried by the driver, and one document that
    does not take it ends it half-way (measured).
    """
    for operation in _calls(case):
        if operation.name in ("update_many", "delete_many"):
            fix = f'ctx.backfill("{operation.collection or "NAME"}", where=..., update=...)'
            yield at(operation, f"{operation.name} has no batches, no pause and no resume", fix)


@rule(
    "MX051",
    bad=data(
        f'for album in {ALBUMS}.find():\n    {ALBUMS}.replace_one({{"_id": album["_id"]}}, album | {{"state": "NEW"}})'
    ),
    good=LOWERING,
)
def write_back(case: Case) -> Iterator[Fault]:
    """Documents that are read, changed and written back.

    What the application wrote in between is lost, and so are fields that the reader does not know; replacing wrote 63
    times the oplog of `$set` (measured).
    """
    for operation in _calls(case):
        replaces = operation.name in ("replace_one", "find_one_and_replace", "save")
        if replaces or (operation.loops and operation.name in ("update_one", "bulk_write", "find_one_and_update")):
            fix = f'ctx.transform("{operation.collection or "NAME"}", where=..., fields=("FIELD",), function=compute)'
            yield at(operation, "it overwrites what changed since the document was read", fix)


@rule(
    "MX052",
    bad=data(
        f'for album in {ALBUMS}.find().sort("plays"):\n'
        f'    {ALBUMS}.update_one({{"_id": album["_id"]}}, {{"$set": {{"plays": 0}}}})'
    ),
    good=data('ctx.backfill("albums", where={"plays": {"$ne": 0}}, update={"$set": {"plays": 0}})'),
)
def mutable_walk(case: Case) -> Iterator[Fault]:
    """A walk over what the walk changes.

    A document that moves in the index is met again: 1,000 documents were visited 20,001 times (measured). `_id` does
    not move.
    """
    for operation in _calls(case):
        if operation.name not in ("sort", "hint") or CALLED not in operation.target or _is_by_id(operation):
            continue
        loop = _loop_over(case, operation)
        if loop and any(loop in other.loops and other.kind is Kind.DATA for other in _calls(case)):
            yield at(operation, "the order of the walk can change under it", '.sort("_id")')


def _is_by_id(operation: Operation) -> bool:
    keys = operation.value("keys")
    return keys in ("_id", "_id_", [["_id", 1]], [["_id", -1]])


def _loop_over(case: Case, operation: Operation) -> ast.For | None:
    loops = (node for node in case.script.nodes(ast.For) if operation.node in ast.walk(node.iter))
    return next(loops, None)


@rule(
    "MX053",
    bad=data(f"for page in range(100):\n    list({ALBUMS}.find().skip(page * 100).limit(100))"),
    good=LOWERING,
    severity=Severity.WARNING,
)
def skipping(case: Case) -> Iterator[Fault]:
    """Paging by skip.

    Each page reads all those before it, and a document that is inserted or removed meanwhile shifts the rest: some are
    met twice, some never.
    """
    for operation in _calls(case):
        skips = any(isinstance(stage, dict) and "$skip" in stage for stage in _pipeline(operation))
        if (operation.name == "skip" and CALLED in operation.target) or skips:
            fix = '.find({"$expr": {"$gt": ["$_id", {"$literal": last}]}}).sort("_id").limit(100)'
            yield at(operation, "pages shift while others write", fix)


def _pipeline(operation: Operation) -> list[Any]:
    found = operation.value("pipeline") if operation.name == "aggregate" else None
    return found if isinstance(found, list) else []


@rule(
    "MX054",
    bad=data(f"for album in {ALBUMS}.find(no_cursor_timeout=True):\n    ctx.report(str(album['_id']))"),
    good=LOWERING,
)
def endless_cursor(case: Case) -> Iterator[Fault]:
    """A cursor without timeout.

    It is lost with its session after 30 minutes all the same (43, measured), and stays on the server when its process
    dies. Short cursors from a kept place do neither.
    """
    for operation in _calls(case):
        fields = operation.command[2] if operation.name == "command" else {}
        if operation.value("no_cursor_timeout") or fields.get("noCursorTimeout"):
            yield at(operation, "the cursor outlives its process", "# remove it; ctx.transform pages and resumes")


@rule(
    "MX055",
    bad=data(
        'albums = ctx.databases.app["albums"].with_options(write_concern=WriteConcern(w=1))\n'
        'albums.update_one({"_id": "first"}, {"$set": {"state": "NEW"}})',
        top="from pymongo.write_concern import WriteConcern",
    ),
    good=data('ctx.backfill("albums", where={"_id": "first", "state": None}, update={"$set": {"state": "NEW"}})'),
)
def weak_write(case: Case) -> Iterator[Fault]:
    """A write concern below majority.

    What one member acknowledged vanishes when another becomes primary (measured), and the history says applied.
    """
    for node in case.script.nodes(ast.Call, ast.Dict):
        if any(isinstance(value, ast.Constant) and value.value in WEAK for value in _concerns(node)):
            yield at(node, "an acknowledged write can be lost", 'WriteConcern(w="majority")  # or leave it out')


def _concerns(node: ast.Call | ast.Dict) -> Iterator[ast.expr]:
    if isinstance(node, ast.Call):
        if getattr(node.func, "id", getattr(node.func, "attr", "")) == "WriteConcern":
            yield from (keyword.value for keyword in node.keywords if keyword.arg == "w")
            yield from node.args[:1]
        return
    for key, value in zip(node.keys, node.values, strict=True):
        if isinstance(key, ast.Constant) and key.value == "writeConcern" and isinstance(value, ast.Dict):
            yield from value.values


@rule(
    "MX056",
    bad=data(f'{ALBUMS}.aggregate([{{"$set": {{"state": "NEW"}}}}, {{"$out": "albums"}}])'),
    good=data(FILL),
)
def onto_itself(case: Case) -> Iterator[Fault]:
    """An aggregation that writes onto what it reads.

    `$out` replaces the collection: what is written while it runs is lost, and so are change streams; `$merge` onto
    itself can meet what it just wrote.
    """
    for operation in _calls(case):
        for stage in _pipeline(operation)[-1:]:
            if operation.collection is not None and operation.collection == _target(stage):
                fix = f'ctx.backfill("{operation.collection}", where=..., update=[{{"$set": ...}}])'
                yield at(operation, f"it replaces {operation.collection} while others write to it", fix)


def _target(stage: Any) -> str | None:
    found = stage.get("$out", stage.get("$merge")) if isinstance(stage, dict) else None
    if isinstance(found, dict):
        found = found.get("coll", found.get("into"))
    return found if isinstance(found, str) else None


@rule(
    "MX057",
    bad=data(f'list({ALBUMS}.aggregate([{{"$group": {{"_id": "$lang"}}}}]))'),
    good=data(f'list({ALBUMS}.aggregate([{{"$group": {{"_id": "$lang"}}}}], allowDiskUse=True))'),
    severity=Severity.WARNING,
)
def memory_only(case: Case) -> Iterator[Fault]:
    """A sort or group that may not use the disk.

    Before MongoDB 6.0, and where the server is set so, it fails above 100 MB: in production, not on the test data.
    """
    for operation in _calls(case):
        stages = {name for stage in _pipeline(operation) if isinstance(stage, dict) for name in stage}
        if stages & {"$group", "$sort", "$bucket", "$setWindowFields"} and operation.value("allowDiskUse") is None:
            yield at(operation, "it fails above 100 MB", "allowDiskUse=True")


@rule(
    "MX058",
    bad=data('ctx.databases.app.command("insert", "albums", documents=[{"_id": 1}])'),
    good=data(
        'reply = ctx.databases.app.command("insert", "albums", documents=[{"_id": 1}])\n'
        'if reply.get("writeErrors"):\n'
        '    raise ValueError("documents were refused")'
    ),
)
def unread_errors(case: Case) -> Iterator[Fault]:
    """A command whose errors nobody reads.

    A write command answers `ok: 1` with `writeErrors` inside (measured): the driver raises nothing.
    """
    reads = any(node.value == "writeErrors" for node in case.script.nodes(ast.Constant))
    for operation in _calls(case):
        if operation.name == "command" and operation.command[0] in WRITE_COMMANDS and not reads:
            fix = 'if reply.get("writeErrors"):\n    raise ValueError("not all was written")'
            yield at(operation, f"{operation.command[0]} fails in silence", fix)


@rule(
    "MX059",
    bad=pre(f'{ALBUMS}.create_index([("lang", 1)], name="ix_lang")', 'ctx.drop_index("albums", "ix_lang")'),
    good=pre('ctx.create_index("albums", "ix_lang", [("lang", 1)])', 'ctx.drop_index("albums", "ix_lang")'),
)
def below_ctx(case: Case) -> Iterator[Fault]:
    """The driver where ctx has a step.

    A call of the driver has no fence, so a paused process that wakes up writes; no audit entry; no place to resume
    from; and it writes in a dry run, too.
    """
    for operation in _calls(case):
        name = operation.command[0] if operation.name == "command" else operation.name
        if name == "collMod" and "validator" not in operation.command[2]:
            continue
        if operation.kind is not Kind.OTHER and name in INSTEAD and operation.database == "app":
            yield at(operation, f"{name} passes by ctx", INSTEAD[name].format(name=operation.collection or "NAME"))


@rule(
    "MX060",
    bad=data(f'if {ALBUMS}.estimated_document_count():\n    ctx.report("there are albums")'),
    good=data(f'if {ALBUMS}.count_documents({{}}, limit=1):\n    ctx.report("there are albums")'),
    severity=Severity.WARNING,
)
def estimate(case: Case) -> Iterator[Fault]:
    """An estimate that decides.

    It comes from metadata, which can be wrong after an unclean stop and counts orphans: good for progress, not for a
    decision.
    """
    for operation in _calls(case):
        if operation.name == "estimated_document_count":
            yield at(operation, "the number can be wrong", "count_documents({}, limit=1)")


@rule(
    "MX061",
    bad=data(f'{ALBUMS}.insert_one({{"title": "Unknown"}})'),
    good=data(f'{ALBUMS}.insert_one({{"_id": "unknown", "title": "Unknown"}})'),
)
def insert_twice(case: Case) -> Iterator[Fault]:
    """An insert that a repeat makes twice.

    Without an `_id` each attempt inserts another document; with one, the second attempt is refused.
    """
    for operation in _calls(case):
        if operation.name not in ("insert_one", "insert_many"):
            continue
        given = operation.value("document", operation.value("documents"))
        documents = given if isinstance(given, list) else [given]
        if any(isinstance(found, dict) and is_known(list(found)) and "_id" not in found for found in documents):
            yield at(operation, "it inserts again when it runs again", '{"_id": "a value that stays the same", ...}')
