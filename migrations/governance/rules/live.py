"""What the live database says about a script; these rules are silent where nobody asked it."""

from collections.abc import Iterator
from typing import Any

from migrations.governance.catalogue import Collection, Index
from migrations.governance.operation import Kind, Operation, Way
from migrations.governance.rule import Case, Fault, Severity, at, rule
from migrations.governance.sample import data, post, pre
from migrations.governance.shape import fields_of_filter, is_created_before

MOST_INDEXES = 64
BUILDS = ("create_index", "create_unique")
MANY_DOCUMENTS = 100_000

BY_ID = Index(keys=(("_id", 1),))
BY_LANG = Index(keys=(("lang", 1),))
FILL = 'ctx.backfill("albums", where={"state": {"$exists": False}}, update={"$set": {"state": "NEW"}})'
INDEX = 'ctx.create_index("albums", "ix_album_lang", [("lang", 1)])'
NO_INDEX = 'ctx.drop_index("albums", "ix_album_lang")'
CREATE = 'ctx.create_collection("albums", schema={"bsonType": "object"})'
DROP = 'ctx.drop_collection("albums")'
FROZEN = post('ctx.set_schema("albums", schema={"not": {}}, level="moderate")', number=9)
HIDDEN = post('ctx.hide_index("albums", "ix_album_lang")', number=9)
ALBUMS = {"albums": Collection(documents=10, indexes={"_id_": BY_ID})}


def _ups(case: Case) -> Iterator[Operation]:
    """Yield what ``up`` does, where there is a database to compare it with."""
    return case.script.steps(Way.UP) if case.catalogue is not None else iter(())


def _live(case: Case, operation: Operation) -> Collection | None:
    collections = case.catalogue.collections if case.catalogue else {}
    return collections.get(operation.collection or "")


@rule("MX090", bad=data(FILL).on({}), good=data(FILL).on(ALBUMS))
def unknown_collection(case: Case) -> Iterator[Fault]:
    """A collection that is not there.

    A name that is misspelt makes a backfill of nothing, which succeeds.
    """
    for operation in _ups(case):
        name = operation.collection
        changes = operation.kind is not Kind.OTHER and operation.name != "create_collection"
        is_made = is_created_before(case, name) or operation.name.startswith("drop")
        if changes and name and operation.database == "app" and _live(case, operation) is None and not is_made:
            known = ", ".join(sorted(case.catalogue.collections)) if case.catalogue else ""
            yield at(
                operation, f"{name} is not in the database and no script creates it", f"# one of: {known or 'none'}"
            )


@rule(
    "MX091",
    bad=post(DROP, CREATE).after(FROZEN).on(ALBUMS),
    good=post(DROP, CREATE).after(FROZEN).on({"albums": Collection()}),
)
def drops_documents(case: Case) -> Iterator[Fault]:
    """A drop of documents.

    They are gone for good: `down` makes the collection anew, not what was in it.
    """
    for operation in _ups(case):
        live = _live(case, operation)
        if operation.name in ("drop_collection", "drop") and live and live.documents:
            fix = f"compliance export {operation.collection}  # then remove them, then drop it"
            yield at(operation, f"{operation.collection} holds {live.documents} documents", fix)


@rule(
    "MX092",
    bad=pre(INDEX, NO_INDEX).on({"albums": Collection(indexes={"ix_lang": BY_LANG})}),
    good=pre(INDEX, NO_INDEX).on({"albums": Collection(indexes={"ix_album_lang": BY_LANG})}),
)
def conflicting_index(case: Case) -> Iterator[Fault]:
    """An index that is there otherwise.

    The same keys under another name (85), or the name with other keys (86), are refused by the server when everything
    before it is done.
    """
    for operation in _ups(case):
        live = _live(case, operation) if operation.name in BUILDS else None
        name, keys = operation.value("name"), _keys(operation)
        for other, index in live.indexes.items() if live and isinstance(name, str) else ():
            if (other == name) != (index.keys == keys) and not _drops(case, operation, other):
                said = "has other keys" if other == name else "has the same keys"
                yield at(operation, f"{operation.collection}.{other} {said}", f"# use the name and keys of {other}")


def _keys(operation: Operation) -> tuple[Any, ...]:
    keys = operation.value("keys")
    return tuple(tuple(key) if isinstance(key, list) else key for key in keys) if isinstance(keys, list) else ()


def _drops(case: Case, created: Operation, name: str) -> bool:
    """Whether a line of the folder drops the index *name* first."""
    done = (operation for script in (*case.before, case.script) for operation in script.steps(Way.UP))
    dropped = (operation for operation in done if operation.name == "drop_index")
    return any(found.collection == created.collection and found.value("name") == name for found in dropped)


@rule(
    "MX093",
    bad=pre(INDEX, NO_INDEX).on(
        {
            "albums": Collection(
                indexes={f"ix_{number}": Index(keys=((f"f{number}", 1),)) for number in range(MOST_INDEXES)}
            )
        }
    ),
    good=pre(INDEX, NO_INDEX).on(ALBUMS),
)
def too_many_indexes(case: Case) -> Iterator[Fault]:
    """One index too many.

    A collection has at most 64; each of them is written at every insert.
    """
    for operation in _ups(case):
        live = _live(case, operation) if operation.name in BUILDS else None
        if live and len(live.indexes) >= MOST_INDEXES and operation.value("name") not in live.indexes:
            unused = min(live.indexes, key=lambda name: live.indexes[name].uses)
            fix = f'ctx.drop_index("{operation.collection}", "{unused}")  # the least used; hide it a release before'
            yield at(operation, f"{operation.collection} has {len(live.indexes)} indexes", fix)


@rule(
    "MX094",
    bad=post(NO_INDEX, INDEX)
    .after(HIDDEN)
    .on({"albums": Collection(indexes={"ix_album_lang": Index(keys=(("lang", 1),), uses=7)})}),
    good=post(NO_INDEX, INDEX)
    .after(HIDDEN)
    .on({"albums": Collection(indexes={"ix_album_lang": Index(keys=(("lang", 1),), uses=7, is_hidden=True)})}),
)
def used_index(case: Case) -> Iterator[Fault]:
    """An index that queries use.

    The server counts the uses of each index; one that is used and not hidden is missed at once.
    """
    for operation in _ups(case):
        live = _live(case, operation) if operation.name == "drop_index" else None
        index = live.indexes.get(str(operation.value("name"))) if live else None
        if index and index.uses and not index.is_hidden:
            fix = f'ctx.hide_index("{operation.collection}", "{operation.value("name")}")  # a release before'
            yield at(operation, f"it was used {index.uses} times since the server started", fix)


@rule(
    "MX095",
    bad=data(FILL).on({"albums": Collection(documents=MANY_DOCUMENTS, indexes={"_id_": BY_ID})}),
    good=data(FILL).on(
        {"albums": Collection(documents=MANY_DOCUMENTS, indexes={"ix_state": Index(keys=(("state", 1),))})}
    ),
    severity=Severity.WARNING,
)
def no_index(case: Case) -> Iterator[Fault]:
    """A search through a large collection for each batch.

    Without an index for its filter, each batch of a backfill reads what the batches before it have done.
    """
    for operation in _ups(case):
        live = _live(case, operation) if operation.name == "backfill" else None
        fields = fields_of_filter(operation.where)
        indexed = (
            {index.keys[0][0].partition(".")[0] for index in live.indexes.values() if index.keys} if live else set()
        )
        if live and fields and live.documents >= MANY_DOCUMENTS and not fields & indexed:
            field, name = min(fields), operation.collection
            fix = f'ctx.create_index("{name}", "ix_{name}_{field}", [("{field}", 1)])  # in a script of the phase pre'
            yield at(operation, f"no index begins with {', '.join(sorted(fields))}; {live.documents} documents", fix)


@rule(
    "MX096",
    bad=data(FILL).on({"albums": Collection(kind="timeseries")}),
    good=data(FILL).on(ALBUMS),
)
def no_plain_collection(case: Case) -> Iterator[Fault]:
    """A change of what cannot be changed so.

    A view takes no writes, a time series no update of measurements (72) and no validator, a capped collection none
    within a transaction (263, measured).
    """
    for operation in _ups(case):
        live = _live(case, operation)
        if live and live.kind != "collection" and operation.kind in (Kind.DATA, Kind.EXPAND) and operation.is_step:
            fix = "# copy what is wanted into a plain collection that the data map names, and change that"
            yield at(operation, f"{operation.collection} is of the kind {live.kind}", fix)
