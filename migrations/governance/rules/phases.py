"""What each phase may do: ``pre`` adds, ``data`` fills, ``post`` takes away; the application runs all the time."""

from collections.abc import Iterator

from migrations.governance.operation import IN_TRANSACTION, Kind, Operation, Way
from migrations.governance.rule import Case, Fault, Severity, at, rule
from migrations.governance.sample import data, post, pre
from migrations.governance.shape import fields_of_filter, fields_of_update, required, root, schema_of, schemas
from migrations.revision import Phase

FILL = 'ctx.backfill("albums", where={"state": {"$exists": False}}, update={"$set": {"state": "NEW"}})'
FREE = 'ctx.set_schema("albums", schema={"required": ["title"]}, level="moderate")'
DEMAND = 'ctx.set_schema("albums", schema={"required": ["title", "state"]}, level="strict")'
INDEX = 'ctx.create_index("albums", "ix_album_state", [("state", 1)])'
NO_INDEX = 'ctx.drop_index("albums", "ix_album_state")'
CREATE = 'ctx.create_collection("albums", schema={"required": ["title"]}, level="moderate")'
CREATED = pre(CREATE, 'ctx.drop_collection("albums")', number=1)


def _ups(case: Case, *kinds: Kind) -> Iterator[Operation]:
    return (operation for operation in case.script.steps(Way.UP) if operation.kind in kinds)


def _file(case: Case, phase: Phase) -> str:
    slug = case.script.name.split("_", 2)[-1]
    return f"# v{case.script.number or 0:03d}_{phase.name.lower()}_{slug}.py: this step belongs there"


@rule("MX030", bad=pre(FILL), good=data(FILL))
def pre_only_adds(case: Case) -> Iterator[Fault]:
    """A script before the deployment that does more than add.

    The application of today runs on after `pre`: what is changed or taken away breaks it, and a long backfill keeps the
    deployment waiting.
    """
    if case.script.phase is not Phase.PRE:
        return
    for operation in _ups(case, Kind.DATA, Kind.CONTRACT):
        if schema_of(operation) is None:
            better = Phase.DATA if operation.kind is Kind.DATA else Phase.POST
            yield at(operation, f"{operation.name} is no addition", _file(case, better))


@rule("MX031", bad=data(f"{FILL}\n{INDEX}"), good=data(FILL))
def data_only_fills(case: Case) -> Iterator[Fault]:
    """A change of structure among documents.

    Structure is changed by one command that cannot be in the transaction of a batch; in a script of its own it is
    applied, undone and looked at by itself.
    """
    if case.script.phase is not Phase.DATA:
        return
    for operation in _ups(case, Kind.EXPAND, Kind.CONTRACT):
        better = Phase.PRE if operation.kind is Kind.EXPAND else Phase.POST
        yield at(operation, f"{operation.name} changes structure in a script of the phase data", _file(case, better))


@rule(
    "MX032",
    bad=post(INDEX, NO_INDEX),
    good=pre(INDEX, NO_INDEX),
    severity=Severity.WARNING,
)
def post_adds_nothing(case: Case) -> Iterator[Fault]:
    """An addition after the deployment.

    What the new application needs must be there before it, and what nobody needs yet belongs to the next change.
    """
    if case.script.phase is not Phase.POST:
        return
    for operation in _ups(case, Kind.EXPAND):
        demands = operation.name == "create_unique" or operation.value("unique") is True
        if operation.name.startswith("create") and not demands:
            yield at(operation, f"{operation.name} comes after what needs it", _file(case, Phase.PRE))


@rule(
    "MX033",
    bad=pre(
        "with ctx.databases.client.start_session() as session, session.start_transaction():\n"
        '    ctx.databases.app["albums"].create_index([("state", 1)], name="ix_album_state", session=session)',
        NO_INDEX,
    ),
    good=pre(INDEX, NO_INDEX),
)
def structure_in_transaction(case: Case) -> Iterator[Fault]:
    """A change of structure in a transaction.

    The server refuses it (263), or it holds every other change of structure up until the transaction ends (measured).
    """
    for operation in _ups(case, Kind.EXPAND, Kind.CONTRACT):
        is_inside = IN_TRANSACTION & {*operation.within} or operation.value("session") is not None
        if is_inside:
            yield at(operation, f"{operation.name} stands in a transaction", "# a step of its own, outside of it")


@rule(
    "MX034",
    bad=pre(DEMAND.replace(', "state"', ""), FREE),
    good=pre(FREE, FREE),
)
def strict_too_early(case: Case) -> Iterator[Fault]:
    """A strict validator before the documents fit.

    Under `strict`, an unrelated update of an old document that does not fit fails (121, measured): the application
    breaks until the backfill is done. `moderate` lets it through.
    """
    if case.script.phase is Phase.POST:
        return
    for operation in _ups(case, Kind.CONTRACT):
        if schema_of(operation) is not None:
            fix = f'ctx.set_schema("{operation.collection}", schema=..., level="moderate")  # strict in post'
            yield at(operation, "the validator is strict before the backfill", fix)


@rule(
    "MX035",
    bad=pre(FREE.replace('"title"', '"title", "state"'), FREE).after(CREATED),
    good=pre(FREE, FREE).after(CREATED),
)
def required_too_early(case: Case) -> Iterator[Fault]:
    """A field required before every writer has it.

    The application of today does not write the new field, so each of its inserts is refused from here on, also under
    `moderate`.
    """
    if case.script.phase is Phase.POST:
        return
    for operation, schema, before in schemas(case):
        new = sorted(required(schema) - required(before))
        if before is not None and new:
            fix = f"# not in required here; in v{case.script.number or 0:03d}_post_...: required=[..., {new[0]!r}]"
            yield at(operation, f"{operation.collection} requires {', '.join(new)}, which nobody writes yet", fix)


@rule(
    "MX036",
    bad=post(DEMAND, FREE).after(CREATED),
    good=post(f"{FILL}\n{DEMAND}", FREE).after(CREATED),
)
def required_but_not_filled(case: Case) -> Iterator[Fault]:
    """A field required that nothing filled.

    Documents that were written before the field was known do not have it, so the step that requires it fails, or nobody
    can update them any more.
    """
    for operation, schema, before in schemas(case) if case.script.phase is Phase.POST else ():
        filled = _filled(case, operation.collection)
        missing = sorted(required(schema) - required(before) - filled) if before is not None else []
        if missing and "*" not in filled:
            field, name = missing[0], operation.collection
            where, update = f'{{"{field}": {{"$exists": False}}}}', f'{{"$set": {{"{field}": ...}}}}'
            fix = f'ctx.backfill("{name}", where={where}, update={update})'
            yield at(operation, f"nothing fills {', '.join(missing)} of {name}", fix)


def _filled(case: Case, collection: str | None) -> set[str]:
    """Return the fields of *collection* that some step fills; ``*`` where the text does not tell."""
    found: set[str] = set()
    for operation in (step for script in (*case.before, case.script) for step in script.steps(Way.UP)):
        if operation.kind is not Kind.DATA or operation.collection not in (collection, None):
            continue
        if operation.name == "transform":
            listed = operation.value("fields")
            found |= {root(field) for field in listed} if isinstance(listed, list) else {"*"}
        for update in operation.updates:
            changed = fields_of_update(update)
            found |= {"*"} if changed is None else changed | (fields_of_filter(operation.where) or set())
    return found
