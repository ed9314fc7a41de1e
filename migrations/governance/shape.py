"""What filters, updates and schemas name; None stands for what only a run knows."""

from collections.abc import Iterator, Mapping
from typing import Any

from migrations.governance.operation import UNKNOWN, Operation
from migrations.governance.rule import Case

SETTLING = frozenset({"$set", "$unset", "$rename", "$currentDate", "$setOnInsert"})
STAGES = frozenset({"$set", "$addFields"})


def walk(value: Any) -> Iterator[Any]:
    """Yield *value* and everything inside it."""
    yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for element in inner:
        yield from walk(element)


def is_known(value: Any) -> bool:
    """Whether nothing of *value* waits for a run."""
    return not any(found is UNKNOWN or (isinstance(found, dict) and UNKNOWN in found) for found in walk(value))


def root(path: Any) -> str:
    """Return the field that the dotted *path* begins with."""
    return str(path).removeprefix("$").partition(".")[0]


def fields_of_filter(where: Any) -> set[str] | None:
    """Return the top-level fields that the filter *where* asks for."""
    if not isinstance(where, dict):
        return None
    found: set[str] = set()
    for name, value in where.items():
        if name is UNKNOWN:
            return None
        if name == "$expr":
            found |= referred(value)
        elif str(name).startswith("$"):
            inner = [fields_of_filter(part) for part in value] if isinstance(value, list) else [None]
            if any(part is None for part in inner):
                return None
            found = found.union(*(part for part in inner if part is not None))
        else:
            found.add(root(name))
    return found


def referred(expression: Any) -> set[str]:
    """Return the top-level fields that an aggregation *expression* reads."""
    texts = (found for found in walk(expression) if isinstance(found, str))
    return {root(text) for text in texts if text.startswith("$") and not text.startswith("$$")}


def assignments(update: Any) -> list[tuple[str, str, Any]] | None:
    """Return operator, path and value of everything that *update*, a document or a pipeline, assigns."""
    if isinstance(update, list):
        return _assigned_by_stages(update)
    if not isinstance(update, dict) or any(not isinstance(fields, dict) for fields in update.values()):
        return None
    found = [(str(verb), path, value) for verb, fields in update.items() for path, value in fields.items()]
    return None if any(path is UNKNOWN for _, path, _ in found) else found


def _assigned_by_stages(stages: list[Any]) -> list[tuple[str, str, Any]] | None:
    found: list[tuple[str, str, Any]] = []
    for stage in stages:
        verb, value = next(iter(stage.items())) if isinstance(stage, dict) and stage else (None, None)
        if verb in STAGES and isinstance(value, dict):
            found += [("$set", path, inner) for path, inner in value.items()]
        elif verb == "$unset":
            found += [("$unset", str(path), "") for path in (value if isinstance(value, list) else [value])]
        else:
            return None
    return None if any(path is UNKNOWN for _, path, _ in found) else found


def fields_of_update(update: Any) -> set[str] | None:
    """Return the top-level fields that *update* changes."""
    found = assignments(update)
    if found is None:
        return None
    renamed = {root(value) for verb, _, value in found if verb == "$rename" and isinstance(value, str)}
    return renamed | {root(path) for _, path, _ in found}


def schema_of(operation: Operation) -> Mapping[str, Any] | None:
    """Return the ``$jsonSchema`` that *operation* gives to its collection."""
    schema = operation.value("schema") if operation.is_step else _sent_schema(operation)
    return schema if isinstance(schema, dict) else None


def _sent_schema(operation: Operation) -> Any:
    fields = operation.command[2] if operation.name == "command" else operation.options
    validator = fields.get("validator")
    return validator.get("$jsonSchema") if isinstance(validator, dict) else None


def declared_by(operation: Operation) -> list[Mapping[str, Any]]:
    """Return every ``$jsonSchema`` that *operation* gives, also during and after an online change."""
    given = [schema_of(operation)]
    if operation.is_shape:
        given += [operation.value("schema_during"), operation.value("schema_after")]
    return [schema for schema in given if isinstance(schema, dict)]


def schemas(case: Case) -> Iterator[tuple[Operation, Mapping[str, Any], Mapping[str, Any] | None]]:
    """Yield each operation of ``up`` that gives a schema, the schema, and the one before it in the folder."""
    last: dict[str, Mapping[str, Any]] = {}
    for script in (*case.before, case.script):
        for operation in script.steps():
            schema, collection = schema_of(operation), operation.collection
            if operation.way != "up" or schema is None or collection is None:
                continue
            if script is case.script:
                yield operation, schema, last.get(collection)
            last[collection] = schema


def required(schema: Mapping[str, Any] | None) -> set[str]:
    """Return the fields that *schema* requires, as far as the text tells."""
    found = (schema or {}).get("required")
    return {name for name in found if isinstance(name, str)} if isinstance(found, list) else set()


def properties(schema: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path of every property of *schema*, also within objects and arrays, with its schema."""
    inner = schema.get("properties")
    for name, below in inner.items() if isinstance(inner, dict) else ():
        if isinstance(name, str):
            yield f"{prefix}{name}", below
            if isinstance(below, dict):
                yield from properties(below, f"{prefix}{name}.")
                items = below.get("items")
                yield from properties(items, f"{prefix}{name}[].") if isinstance(items, dict) else ()


def is_created_before(case: Case, collection: str | None) -> bool:
    """Whether a script of the folder, or an earlier line of this one, creates *collection*."""
    made = (operation for script in (*case.before, case.script) for operation in script.steps())
    return any(operation.name == "create_collection" and operation.collection == collection for operation in made)
