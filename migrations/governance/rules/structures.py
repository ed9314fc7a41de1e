"""Renaming, indexing and dropping while the application works."""

from collections.abc import Iterator
from typing import Any

from migrations.governance.operation import Operation, Way
from migrations.governance.rule import Case, Fault, Severity, at, rule
from migrations.governance.sample import post, pre
from migrations.governance.shape import is_created_before, schema_of

FAILS_LATE = frozenset({"text", "2d", "2dsphere"})
FROZEN: dict[str, Any] = {"not": {}}

INDEX = 'ctx.create_index("albums", "ix_album_lang", [("lang", 1)])'
NO_INDEX = 'ctx.drop_index("albums", "ix_album_lang")'
HIDE = 'ctx.hide_index("albums", "ix_album_lang")'
SHOW = 'ctx.unhide_index("albums", "ix_album_lang")'
CREATE = 'ctx.create_collection("albums", schema={"bsonType": "object"})'
DROP = 'ctx.drop_collection("albums")'
FREEZE = 'ctx.set_schema("albums", schema={"not": {}}, level="moderate")'
THAW = 'ctx.set_schema("albums", schema={"bsonType": "object"}, level="moderate")'
IN_PLACE = post(
    'ctx.backfill("albums", where={"name": {"$exists": True}}, update={"$rename": {"name": "title"}})',
)


def _ups(case: Case, *names: str) -> Iterator[Operation]:
    for operation in case.script.steps(Way.UP):
        name = operation.command[0] if operation.name == "command" else operation.name
        if name in names:
            yield operation


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


@rule(
    "MX070",
    bad=post(
        'ctx.databases.app["albums"].rename("albums_old")\nctx.databases.app["albums_new"].rename("albums")',
    ),
    good=IN_PLACE,
)
def two_renames(case: Case) -> Iterator[Fault]:
    """A swap in two renames.

    Between the two, a writer's insert makes the collection anew: under load it failed three times of three, with the
    new shape offline (measured).
    """
    vacated: set[str | None] = set()
    for operation in _ups(case, "rename"):
        if operation.value("new_name") in vacated:
            fix = "# change the documents in place: expand, ctx.backfill, contract"
            yield at(operation, f"{operation.value('new_name')} is not there for a moment", fix)
        vacated.add(operation.collection)


@rule(
    "MX071",
    bad=post('ctx.databases.app["albums_new"].rename("albums", dropTarget=True)'),
    good=IN_PLACE,
)
def drops_target(case: Case) -> Iterator[Fault]:
    """A rename that drops its target.

    What was acknowledged to writers of the old collection since the copy is gone: 167 of 272 writes (measured).
    """
    for operation in _ups(case, "rename", "renameCollection"):
        fields = operation.command[2] if operation.name == "command" else operation.options
        if fields.get("dropTarget"):
            fix = "# change the documents in place: expand, ctx.backfill, contract"
            yield at(operation, "acknowledged writes go with the target", fix)


@rule(
    "MX072",
    bad=pre('ctx.databases.app["albums"].create_index([("key", 1)], name="ix_key", unique=True)', NO_INDEX),
    good=pre('ctx.create_unique("albums", "ix_key", [("key", 1)])', 'ctx.drop_index("albums", "ix_key")'),
)
def unchecked_unique(case: Case) -> Iterator[Fault]:
    """A unique index that does not look for duplicates.

    The build reads the whole collection, fails at the first duplicate and leaves nothing; the step names all of them
    before anything is built.
    """
    for operation in _ups(case, "create_index", "createIndexes"):
        listed = _listed(operation.command[2].get("indexes")) if operation.name == "command" else [operation.options]
        if not operation.is_step and any(isinstance(index, dict) and index.get("unique") for index in listed):
            fix = f'ctx.create_unique("{operation.collection or "NAME"}", "ix_...", [...])'
            yield at(operation, "duplicates are found by a failed build", fix)


@rule(
    "MX073",
    bad=pre('ctx.create_index("albums", "ix_text", [("title", "text")])', 'ctx.drop_index("albums", "ix_text")'),
    good=pre('ctx.create_index("albums", "ix_text", [("title", "text")])', 'ctx.drop_index("albums", "ix_text")').after(
        pre(CREATE, DROP, number=1)
    ),
    severity=Severity.WARNING,
)
def fails_late(case: Case) -> Iterator[Fault]:
    """An index that one document can refuse at the end.

    Builds of text and geo indexes fail late on one document that does not fit; a collection that this folder created
    has had its validator from the beginning.
    """
    for operation in _ups(case, "create_index"):
        kinds = {key[1] for key in _listed(operation.value("keys")) if isinstance(key, list) and len(key) > 1}
        named = {kind for kind in kinds if isinstance(kind, str)} & FAILS_LATE
        if named and not is_created_before(case, operation.collection):
            fix = (
                f'ctx.transform("{operation.collection}", where={{"FIELD": {{"$exists": True}}}}, fields=("FIELD",), '
                "function=check)  # sets aside what does not fit"
            )
            yield at(operation, f"older documents of {operation.collection} may not fit a {named.pop()} index", fix)


@rule(
    "MX074",
    bad=post(NO_INDEX, INDEX),
    good=post(NO_INDEX, INDEX).after(post(HIDE, SHOW, number=9)),
)
def drop_unhidden(case: Case) -> Iterator[Fault]:
    """An index that goes without having been hidden.

    A query that needed it scans the collection from then on, and building it again takes as long as it takes; a hidden
    index is back at once.
    """
    for operation in _ups(case, "drop_index", "dropIndexes", "drop_indexes"):
        name = operation.value("name")
        hidden = any(_hides(other, operation.collection, name) for script in case.before for other in script.steps())
        if not hidden and operation.value("soaked") is None:
            index = name if isinstance(name, str) else "ix_..."
            fix = (
                "# in a script of the release before:\n"
                f'ctx.hide_index("{operation.collection or "NAME"}", "{index}")\n'
                f'# and here:\nctx.drop_index("{operation.collection or "NAME"}", "{index}", soaked=timedelta(days=7))'
            )
            yield at(operation, "no script before this one hides it", fix)


def _hides(operation: Operation, collection: str | None, name: Any) -> bool:
    if operation.collection != collection:
        return False
    if operation.name == "hide_index":
        return bool(operation.value("name") == name)
    index = operation.command[2].get("index") if operation.name == "command" else None
    return isinstance(index, dict) and index.get("hidden") is True and index.get("name") == name


@rule(
    "MX075",
    bad=post(DROP, CREATE),
    good=post(DROP, CREATE).after(post(FREEZE, THAW, number=9)),
)
def drop_unfrozen(case: Case) -> Iterator[Fault]:
    """A collection that goes while somebody may write to it.

    A forgotten writer makes it anew, without validator and indexes; one release with a validator that refuses every
    insert shows who that is, and takes one step to undo.
    """
    for operation in _ups(case, "drop_collection", "drop"):
        earlier = (other for script in case.before for other in script.steps(Way.UP))
        name = operation.collection
        if not any(schema_of(other) == FROZEN and other.collection == name for other in earlier):
            freeze = f'ctx.set_schema("{name}", schema={{"not": {{}}}}, level="moderate")'
            fix = f"# in a script of the release before:\n{freeze}"
            yield at(operation, f"no script before this one stops inserts into {name}", fix)
