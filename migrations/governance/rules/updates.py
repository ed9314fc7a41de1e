"""What an update does to a document: once, and where it means to."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from migrations.governance.operation import Kind, Operation
from migrations.governance.rule import Case, Fault, at, rule
from migrations.governance.sample import data
from migrations.governance.shape import (
    SETTLING,
    assignments,
    declared_by,
    fields_of_filter,
    fields_of_update,
    referred,
    root,
    walk,
)

ADDING = frozenset({"$inc", "$mul", "$push", "$pop", "$bit"})
ADDING_EXPRESSIONS = frozenset({"$add", "$subtract", "$multiply", "$divide", "$concat", "$concatArrays"})
INTO_ARRAY = re.compile(r"\[\]|\.(\d+|\$(\[.*\])?)(\.|$)")
COMPARES = frozenset({"$gt", "$gte", "$lt", "$lte"})

FILL = 'ctx.backfill("albums", where={"state": {"$exists": False}}, update={"$set": {"state": "NEW"}})'
ONCE = (
    'ctx.backfill("albums", where={"counted": {"$ne": True}}, update={"$inc": {"plays": 1}, "$set": {"counted": True}})'
)


def _changes(case: Case) -> Iterator[tuple[Operation, Any]]:
    for operation in case.script.steps():
        if operation.kind is Kind.DATA:
            yield from ((operation, update) for update in operation.updates)


@rule(
    "MX040",
    bad=data('ctx.databases.app["albums"].update_many({"state": "NEW"}, {"$inc": {"plays": 1}})'),
    good=data(ONCE),
)
def adds_each_time(case: Case) -> Iterator[Fault]:
    """An update that adds each time it runs.

    A failover in the middle left 6,018 of 600,000 documents changed (measured): a repeat adds to those a second time,
    unless the filter no longer matches them. `ctx.walk` repeats nothing.
    """
    for operation, update in _changes(case):
        if operation.is_step and operation.name == "walk":
            continue
        where = fields_of_filter(operation.where if operation.where is not None else {})
        found = assignments(update)
        if where is None or found is None:
            continue
        adding = [path for verb, path, value in found if _adds(verb, path, value)]
        settled = {root(path) for verb, path, _ in found if verb in SETTLING and path not in adding}
        if adding and not settled & where and not _starts_at_nothing(operation.where, adding):
            fix = (
                f'where={{"{root(adding[0])}_counted": {{"$ne": True}}}}, '
                f'update={{..., "$set": {{"{root(adding[0])}_counted": True}}}}'
            )
            yield at(operation, f"{adding[0]} grows again when this runs again", fix)


def _adds(verb: str, path: str, value: Any) -> bool:
    if verb in ADDING:
        return True
    makes = any(isinstance(inner, dict) and ADDING_EXPRESSIONS & inner.keys() for inner in walk(value))
    return verb == "$set" and makes and root(path) in referred(value)


def _starts_at_nothing(where: Any, paths: list[str]) -> bool:
    return isinstance(where, dict) and all(where.get(path) == {"$exists": False} for path in paths)


@rule(
    "MX041",
    bad=data('ctx.backfill("albums", where={"lang": "en"}, update={"$set": {"state": "NEW"}})'),
    good=data(
        'ctx.backfill("albums", where={"lang": "en", "state": {"$ne": "NEW"}}, update={"$set": {"state": "NEW"}})'
    ),
)
def stays_in_filter(case: Case) -> Iterator[Fault]:
    """A backfill that does not take documents out of its filter.

    A backfill is done when nothing matches; where the update does not touch what the filter asks for, it never is.
    """
    for operation in case.script.steps():
        if not (operation.is_step and operation.name == "backfill"):
            continue
        where, changed = fields_of_filter(operation.where), fields_of_update(operation.value("update"))
        if where is not None and changed and not where & changed:
            field = min(changed)
            fix = f'where={{..., "{field}": {{"$exists": False}}}}'
            yield at(operation, f"the update changes {field}, the filter does not ask for it", fix)


@rule(
    "MX042",
    bad=data(
        'ctx.backfill("albums", where={"tracks": {"$size": 1}}, update={"$rename": {"tracks.0.len": "tracks.0.ms"}})'
    ),
    good=data(
        'ctx.transform("albums", where={"tracks.len": {"$exists": True}}, fields=("tracks",), function=rename)',
        top=(
            "def rename(document):\n"
            '    return {"tracks": [{("ms" if name == "len" else name): value for name, value in track.items()}'
            ' for track in document["tracks"]]}'
        ),
    ),
)
def rename_in_array(case: Case) -> Iterator[Fault]:
    """A rename inside an array.

    `$rename` cannot enter arrays (error 28, measured).
    """
    for operation, update in _changes(case):
        for verb, path, value in assignments(update) or ():
            if verb == "$rename" and any(INTO_ARRAY.search(str(end)) for end in (path, value)):
                field = root(path)
                fix = f'ctx.transform("{operation.collection}", where=..., fields=("{field}",), function=rename)'
                yield at(operation, f"{path} lies in an array", fix)


@rule(
    "MX043",
    bad=data('ctx.backfill("albums", where={"key": {"$exists": False}}, update={"$rename": {"_id": "key"}})'),
    good=data('ctx.backfill("albums", where={"key": {"$exists": False}}, update=[{"$set": {"key": "$_id"}}])'),
)
def change_of_id(case: Case) -> Iterator[Fault]:
    """A change of _id.

    `_id` cannot change; who wants another one inserts another document, and everything that refers to the old one is
    lost.
    """
    fix = 'update=[{"$set": {"NEW_KEY": "$_id"}}]  # another field, and an index on it'
    for operation, update in _changes(case):
        if "_id" in (fields_of_update(update) or ()):
            yield at(operation, "it assigns _id", fix)
    for operation in case.script.steps():
        listed = operation.value("fields") if operation.name == "transform" else None
        if isinstance(listed, list) and "_id" in listed:
            yield at(operation, "it assigns _id", fix)


@rule(
    "MX044",
    bad=data('ctx.backfill("albums", where={"meta": {"$exists": False}}, update={"$set": {"meta": {"a.b": 1}}})'),
    good=data('ctx.backfill("albums", where={"meta": {"$exists": False}}, update={"$set": {"meta": {"a": {"b": 1}}}})'),
)
def dotted_name(case: Case) -> Iterator[Fault]:
    """A name with a dot.

    A field whose name holds a dot is not reached by `$set` or `$unset` of that name: they make or miss a nested twin
    (measured). A validator with such a property checks nothing.
    """
    for operation in case.script.steps():
        for name in _dotted(operation):
            outer, _, inner = name.partition(".")
            yield at(operation, f"{name} is one name with a dot in it", f'{{"{outer}": {{"{inner}": ...}}}}')


def _dotted(operation: Operation) -> Iterator[str]:
    values: list[Any] = [operation.value(name) for name in ("document", "documents", "replacement")]
    for update in operation.updates if operation.kind is Kind.DATA else ():
        if isinstance(update, dict):
            values += [value for _, _, value in assignments(update) or ()]
    names = (name for value in values for inner in walk(value) if isinstance(inner, dict) for name in inner)
    yield from (name for name in names if isinstance(name, str) and "." in name)
    given = (inner for schema in declared_by(operation) for inner in walk(schema))
    listed = [inner.get("properties") for inner in given if isinstance(inner, dict)]
    yield from (name for inner in listed if isinstance(inner, dict) for name in inner if "." in str(name))


@rule(
    "MX045",
    bad=data(
        "last = None\n"
        'while batch := list(ctx.databases.app["albums"].find({"_id": {"$gt": last}}).limit(100)):\n'
        '    last = batch[-1]["_id"]'
    ),
    good=data(
        'ctx.transform("albums", where={"lang": {"$exists": True}}, fields=("lang",), function=lower)',
        top='def lower(document):\n    return {"lang": document["lang"].lower()}',
    ),
)
def paging_by_id(case: Case) -> Iterator[Fault]:
    """Paging that stays within one type of _id.

    A comparison in a filter stays within the BSON type of its value: on a collection with 14 types of `_id` it visited
    5 and reported that it was done (measured).
    """
    for node in case.script.nodes(ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "_id" and _compares(value):
                fix = '{"$expr": {"$gt": ["$_id", {"$literal": last}]}}  # or ctx.transform, which pages by itself'
                yield at(value, "this comparison sees one type of _id only", fix)


def _compares(node: ast.expr) -> bool:
    """Whether *node* compares with what a run has come to; a constant is a choice."""
    if not isinstance(node, ast.Dict):
        return False
    pairs = zip(node.keys, node.values, strict=True)
    return any(
        isinstance(key, ast.Constant) and key.value in COMPARES and isinstance(value, ast.Name | ast.Subscript)
        for key, value in pairs
    )
