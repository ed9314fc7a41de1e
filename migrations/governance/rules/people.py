"""Data of people: where it is must be known, and nobody consents, is erased or is read by way of a script."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from compliance.datamap.form import is_under
from compliance.datamap.model import DataMap
from compliance.datamap.rule import Pull, RemoveKey, Rule, Update
from migrations.governance.operation import CALLED, Kind, Operation, Way
from migrations.governance.reading import Function
from migrations.governance.rule import Case, Fault, at, rule
from migrations.governance.sample import data, pre
from migrations.governance.shape import assignments, declared_by, properties

PERSONAL = frozenset({
        "address", "birthdate", "birthday", "birthplace", "dob", "email", "emails", "ethnicity", "familyname",
        "firstname", "fullname", "gender", "givenname", "iban", "ip", "ipaddress", "lastname", "latitude", "longitude",
        "maidenname", "mobile", "msisdn", "nationality", "nickname", "passport", "phone", "phones", "postcode",
        "religion", "surname", "telephone", "useragent", "zipcode",
})  # fmt: skip
PERSONAL_PAIRS = frozenset({
        "birth_date", "card_number", "credit_card", "date_of_birth", "device_id", "driver_license", "driving_licence",
        "family_name", "first_name", "full_name", "given_name", "home_address", "id_card", "ip_address", "last_name",
        "maiden_name", "national_id", "phone_number", "postal_code", "social_security", "street_address", "tax_id",
        "user_agent", "zip_code",
})  # fmt: skip
GENERIC = frozenset({"_id", "id", "entity_id"})
CONSENT = frozenset({
        "consent", "consent_given", "consented", "granted", "has_consented", "marketing_consent", "newsletter_consent",
        "opt_in", "opted_in",
})  # fmt: skip
OURS = frozenset({"audit_log", "consent_events", "declared_schema", "migration_history", "migration_lease"})
TTL = "expireAfterSeconds"

USERS = 'ctx.set_schema("users", schema={"properties": {"phone": {"bsonType": "string"}}}, level="moderate")'
LETTERS = 'ctx.create_collection("letters", schema={"properties": {"PROPERTY": {"bsonType": "string"}}})'
NO_LETTERS = 'ctx.drop_collection("letters")'
FILL = 'ctx.backfill("consent", where={"source": {"$exists": False}}, update={"$set": {"source": "web"}})'
CHECK = 'ctx.transform("users", where={"status": {"$exists": True}}, fields=("status",), function=check)'


def _is_personal(path: str) -> bool:
    """Whether the last name of *path* says that its value is about a person."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", path.rpartition(".")[2].removesuffix("[]")).lower()
    words = name.split("_")
    return bool(PERSONAL & {*words}) or any(pair in f"_{name}_" for pair in (f"_{known}_" for known in PERSONAL_PAIRS))


def _original(collection: str, data_map: DataMap) -> str:
    return collection.removesuffix(data_map.history.suffix) if data_map.history else collection


def _is_mapped(collection: str, data_map: DataMap) -> bool:
    name = _original(collection, data_map)
    return name == data_map.subject.collection or name in data_map.collections


def _is_covered(collection: str, path: str, data_map: DataMap) -> bool:
    """Whether an erasure takes *path* away, or keeps it on a ground."""
    name = _original(collection, data_map)
    if name == data_map.subject.collection:
        return True
    for found in data_map.rules_of(name):
        touched = _touched(found)
        kept = found.kept.fields if found.kept else ()
        if touched is None or any(is_under(path, known) for known in (*touched, *kept)):
            return True
    return False


def _touched(rule: Rule) -> tuple[str, ...] | None:
    """Return the paths that the action of *rule* takes away; None where the whole document is dealt with."""
    match rule.on_erase:
        case Pull() as pull:
            return (pull.array,)
        case Update() as update:
            return update.touched
        case RemoveKey():
            return (rule.locate.path.removesuffix("{}"),)
        case _:
            return None


def _fields(case: Case) -> Iterator[tuple[Operation, str, str]]:
    """Yield each operation of ``up``, its collection, and each field that it declares or writes, once."""
    for operation in case.script.steps(Way.UP):
        name = operation.collection
        if name is not None and operation.database == "app":
            yield from ((operation, name, path) for path in dict.fromkeys(_paths(operation)))


def _paths(operation: Operation) -> Iterator[str]:
    for schema in declared_by(operation):
        yield from (path for path, _ in properties(schema))
    for shape in (operation.value("old"), operation.value("new")) if operation.is_shape else ():
        yield from (path for path in (shape if isinstance(shape, list) else ()) if isinstance(path, str))
    for update in operation.updates if operation.kind is Kind.DATA else ():
        for verb, path, value in assignments(update) or ():
            if verb != "$unset":
                yield str(value if verb == "$rename" else path)


@rule(
    "MX080",
    bad=pre(LETTERS.replace("PROPERTY", "phone_number"), NO_LETTERS),
    good=pre(USERS, USERS.replace('"phone": {"bsonType": "string"}', "")),
)
def unmapped_field(case: Case) -> Iterator[Fault]:
    """Data of people that no erasure finds.

    What the data map does not name is not erased, not exported and not in the record of processing (GDPR Art. 17, 15
    and 30).
    """
    if case.data_map is None:
        return
    for operation, collection, path in _fields(case):
        if _is_personal(path) and not _is_covered(collection, path, case.data_map):
            key = case.data_map.subject.key
            fix = (
                "# in the data map, below collections:\n"
                f"{collection}:\n  - locate: {{path: {key}, key: {key}}}\n    on_erase: {{action: delete}}"
                f"\n    # or: on_erase: {{action: update, set: {{{key}: ...}}, unset: [{path}]}}"
            )
            yield at(operation, f"the data map does not cover {collection}.{path}", fix)


@rule(
    "MX081",
    bad=pre(LETTERS.replace("PROPERTY", "user_id"), NO_LETTERS),
    good=pre(LETTERS.replace("PROPERTY", "title"), NO_LETTERS),
)
def unmapped_reference(case: Case) -> Iterator[Fault]:
    """A collection that refers to people and is not in the data map.

    Documents that refer to a person are about that person; a collection that the map does not name makes every later
    erasure end with `residual_found`.
    """
    if case.data_map is None:
        return
    known = _references(case.data_map)
    for operation, collection, path in _fields(case):
        name = path.rpartition(".")[2].removesuffix("[]")
        if name in known and not _is_mapped(collection, case.data_map):
            fix = (
                "# in the data map, below collections:\n"
                f"{collection}:\n  - locate: {{path: {path}, key: {case.data_map.subject.key}}}\n"
                "    on_erase: {action: delete}"
            )
            yield at(operation, f"{collection}.{path} refers to people, the data map does not name it", fix)


def _references(data_map: DataMap) -> set[str]:
    paths = [found.locate.path for _, found in data_map.rules() if found.locate.key is not None]
    names = {path.rpartition(".")[2].removesuffix("[]") for path in [*paths, *data_map.subject.keys]}
    return {name for name in names if name not in GENERIC and not _is_personal(name)}


@rule(
    "MX082",

    bad=pre('ctx.databases.app["analytics"].create_index([("timestamp", 1)], name="ix_ttl", expireAfterSeconds=60)',
            'ctx.drop_index("analytics", "ix_ttl")'),
    good=pre('ctx.create_index("analytics", "ix_timestamp", [("timestamp", 1)])',
             'ctx.drop_index("analytics", "ix_timestamp")'),
)  # fmt: skip
def expires(case: Case) -> Iterator[Fault]:
    """Data of people that expires by itself.

    A TTL index deletes everything that is old at once when it is made, without audit entry and without asking for legal
    holds (GDPR Art. 17(3)(e)).
    """
    for operation in case.script.steps(Way.UP):
        name = operation.collection
        is_personal = name is not None and case.data_map is not None and _is_mapped(name, case.data_map)
        if is_personal and _expiry(operation):
            fix = (
                f'ctx.create_index("{name}", "ix_timestamp", [("timestamp", 1)])  # and an erasure job that looks at it'
            )
            yield at(operation, f"documents of {name} vanish without a trace", fix)


def _expiry(operation: Operation) -> bool:
    given: list[Any] = [operation.options, *operation.command[2].values()] if operation.name == "command" else []
    if not operation.options.get("expires_because"):
        given.append(operation.options.get("options"))
    given += [operation.options, *[inner for value in given if isinstance(value, list) for inner in value]]
    return any(isinstance(found, dict) and {TTL, "expire_after"} & found.keys() for found in given)


@rule(
    "MX083",
    bad=data('ctx.backfill("consent", where={"granted": {"$exists": False}}, update={"$set": {"granted": True}})'),
    good=data(FILL),
)
def granted(case: Case) -> Iterator[Fault]:
    """Consent that nobody gave.

    Consent is what a person said (GDPR Art. 4(11)); silence and a script are none. Who must show it shows the event.
    """
    for operation in case.script.steps():
        written = [*_inserted(operation)]
        for update in operation.updates if operation.kind is Kind.DATA else ():
            written += [(path, value) for _, path, value in assignments(update) or ()]
        if any(str(path).rpartition(".")[2] in CONSENT and value is True for path, value in written):
            yield at(
                operation, "a script grants consent", '"granted": False  # or compliance.consent.update per person'
            )
        function = operation.value("function")
        if isinstance(function, Function):
            yield from _returns_consent(function.node)


def _inserted(operation: Operation) -> Iterator[tuple[str, Any]]:
    given = operation.value("document", operation.value("documents", operation.value("replacement")))
    for document in given if isinstance(given, list) else [given]:
        yield from document.items() if isinstance(document, dict) else ()


def _returns_consent(function: ast.AST) -> Iterator[Fault]:
    for node in (inner for inner in ast.walk(function) if isinstance(inner, ast.Dict)):
        for key, value in zip(node.keys, node.values, strict=True):
            names_it = isinstance(key, ast.Constant) and key.value in CONSENT
            if names_it and isinstance(value, ast.Constant) and value.value is True:
                yield at(
                    node, "a script grants consent", '{"granted": False}  # or compliance.consent.update per person'
                )


@rule(
    "MX084",
    bad=data('ctx.databases.audit["audit_log"].delete_many({"action": "migration.step"})'),
    good=data('ctx.report("the audit log is pruned by compliance audit prune")'),
)
def our_own(case: Case) -> Iterator[Fault]:
    """A hand on the audit log or on our own databases.

    The audit log is evidence, and jobs, holds and history are what the guarantees rest on; the tamper alarm calls this
    an incident.
    """
    for operation in case.script.steps():
        if operation.database in ("audit", "compliance") or _leaves_by_the_client(operation):
            yield at(operation, "it leaves the application database", 'ctx.databases.app["NAME"]')
        elif operation.collection in OURS:
            yield at(operation, f"{operation.collection} is one of ours", "# another name, or nothing at all")


def _leaves_by_the_client(operation: Operation) -> bool:
    return operation.database == "client" and len(operation.target) > 2 and CALLED not in operation.target  # noqa: PLR2004


@rule(
    "MX085",
    bad=data('ctx.databases.app["analytics"].aggregate([{"$out": "analytics_backup"}])'),
    good=data('ctx.databases.app["analytics"].aggregate([{"$merge": {"into": "analytics_history"}}])'),
)
def copies(case: Case) -> Iterator[Fault]:
    """A copy of people that no erasure finds.

    A backup beside the collection keeps people whom an erasure removes from it, and a way back from it brings them
    back.
    """
    data_map = case.data_map
    for operation in case.script.steps() if data_map is not None else ():
        source, copy = operation.collection, _copy(operation)
        if source and copy and data_map and _is_mapped(source, data_map) and not _is_mapped(copy, data_map):
            fix = f"# in the data map, below collections:\n{copy}:\n  # the rules of {source}"
            yield at(operation, f"{copy} holds people of {source}, the data map does not name it", fix)


def _copy(operation: Operation) -> str | None:
    if operation.name == "rename":
        found = operation.value("new_name")
    else:
        pipeline = operation.value("pipeline") if operation.name == "aggregate" else None
        stage = pipeline[-1] if isinstance(pipeline, list) and pipeline else None
        found = stage.get("$out", stage.get("$merge")) if isinstance(stage, dict) else None
    found = found.get("coll", found.get("into")) if isinstance(found, dict) else found
    return found if isinstance(found, str) else None


@rule(
    "MX086",
    bad=data(CHECK, top="def check(document):\n    raise ValueError(f\"unknown status {document['status']}\")"),
    good=data(CHECK, top='def check(document):\n    raise ValueError("unknown status")'),
)
def quotes(case: Case) -> Iterator[Fault]:
    """An error that repeats what a document says.

    The reason for which a document is set aside is kept in our own collections and shown to people; a value from the
    document is data of a person there that no erasure finds.
    """
    for operation in case.script.steps():
        function = operation.value("function")
        for node in ast.walk(function.node) if isinstance(function, Function) else ():
            if isinstance(node, ast.Raise) and any(_is_made_up(inner) for inner in ast.walk(node)):
                yield at(node, "the message holds a value of the document", 'raise ValueError("FIELD is not a ...")')


def _is_made_up(node: ast.AST) -> bool:
    is_format = isinstance(node, ast.Attribute) and node.attr == "format"
    return (
        isinstance(node, ast.FormattedValue)
        or is_format
        or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod))
    )
