"""A script as a document: its name, who answers for it, what it says, and its way back."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from migrations.governance import blank
from migrations.governance.allowance import FEWEST_WORDS
from migrations.governance.operation import Kind, Operation, Way
from migrations.governance.rule import RULES, Case, Fault, Severity, at, rule
from migrations.governance.sample import data, pre

MOST_STEPS = 20
CREATE = 'ctx.create_collection("albums", schema={"bsonType": "object"})'
DROP = 'ctx.drop_collection("albums")'
FILL = 'ctx.backfill("albums", where={"state": {"$exists": False}}, update={"$set": {"state": "NEW"}})'
GOOD = data(FILL)


def _without(line: str) -> Any:
    return replace(GOOD, source=GOOD.source.replace(line, ""))


@rule("MX000", bad=data(f"{FILL}  # allow: MX040"), good=GOOD)
def allowance(case: Case) -> Iterator[Fault]:
    """An allowance that does not count.

    What is allowed is recorded in the audit log, so it names one rule that there is and says why in three words or
    more.
    """
    for found in case.script.allowances:
        if found.rule not in RULES or not found.has_reason:
            code = found.rule if found.rule in RULES else "MX040"
            why = f"this allows nothing: it needs the code of a rule and a reason of {FEWEST_WORDS} words or more"
            yield Fault(found.line, found.line, why, f"# allow: {code} because the reason stands here")


@rule("MX001", bad=replace(GOOD, source="def up(ctx)\n"), good=GOOD)
def unreadable(case: Case) -> Iterator[Fault]:
    """No Python.

    A script that cannot be read cannot run, and no rule can look at it.
    """
    if case.script.fault:
        yield at(None, case.script.fault, f"python -m py_compile {case.script.file}")


@rule("MX002", bad=replace(GOOD, file="fill_albums.py"), good=GOOD)
def file_name(case: Case) -> Iterator[Fault]:
    """A name that tells neither place nor phase.

    The name is the place in the order and the phase: before the application is deployed, beside it, or after it.
    """
    if case.script.phase is None:
        number = 1 + max((found.number or 0 for found in case.before), default=0)
        slug = re.sub(r"[^a-z0-9]+", "_", case.script.name.lower()).strip("_0123456789") or "change"
        better = f"git mv {case.script.file} v{number:03d}_data_{slug}.py"
        yield at(None, "the name is not vNNN_<pre|data|post>_<slug>.py in lower case", better)


@rule("MX003", bad=_without('"""Change what this example is about."""'), good=GOOD)
def docstring(case: Case) -> Iterator[Fault]:
    """No sentence that says what changes.

    The first line is what `status`, the plan and the audit show to people who decide.
    """
    said = (ast.get_docstring(case.script.tree) or "").strip().partition("\n")[0]
    is_short = len(said.split()) < FEWEST_WORDS or not said.endswith((".", ":", "?", "!"))
    if is_short or blank.is_blank_summary(said):
        place = case.script.tree.body[0] if case.script.tree.body else None
        why = f"the docstring does not begin with a sentence of {FEWEST_WORDS} words or more that says what changes"
        yield Fault(1, getattr(place, "lineno", 1), why, f'"""Say what {case.script.name} {blank.SENTENCE}"""')


@rule("MX004", bad=_without("def up(ctx):\n    " + FILL), good=GOOD)
def way_up(case: Case) -> Iterator[Fault]:
    """No way up.

    A script without `up(ctx)` changes nothing, unless it declares an online change.
    """
    function = case.script.function("up")
    if case.script.is_online:
        return
    if function is None or len(function.args.posonlyargs + function.args.args) != 1:
        yield at(function, "there is no up(ctx)", "def up(ctx: Context) -> None:\n    ...")


@rule("MX005", bad=_without('OWNER = "catalogue"'), good=GOOD)
def owner(case: Case) -> Iterator[Fault]:
    """No owner.

    Somebody answers for what a script does to data (GDPR Art. 5(2)), also when it fails at night.
    """
    if not _said(case, "OWNER"):
        yield _missing(case, "OWNER", "which team answers for it")


@rule("MX006", bad=_without('REVIEWED_BY = "platform"'), good=GOOD)
def reviewer(case: Case) -> Iterator[Fault]:
    """No second pair of eyes.

    A change of production data is looked at by somebody other than its author (ISO 27001 A.8.32).
    """
    reviewed = _said(case, "REVIEWED_BY")
    if not reviewed or reviewed == _said(case, "OWNER"):
        yield _missing(case, "REVIEWED_BY", "who looked at it and is not its owner")


def _said(case: Case, name: str) -> str:
    found = case.script.constant(name)
    said = found[1].strip() if found and isinstance(found[1], str) else ""
    return "" if blank.is_blank(said) else said


def _missing(case: Case, name: str, what: str) -> Fault:
    found = case.script.constant(name)
    return at(found[0] if found else None, f"it does not say {what}: {name}", f'{name} = "{blank.TEAM}"')


@rule("MX007", bad=_without('def down(ctx):\n    ctx.report("values stay as they are")'), good=GOOD)
def way_back(case: Case) -> Iterator[Fault]:
    """No way back.

    What cannot be undone is decided before it runs, not when it went wrong.
    """
    down, declared = case.script.function("down"), case.script.constant("IRREVERSIBLE")
    if down is None and declared is None and not case.script.is_online:
        fix = 'def down(ctx: Context) -> None:\n    """Undo it."""\n    ...\n\n# or, where there is no way back:\n'
        yield at(None, "there is neither down(ctx) nor IRREVERSIBLE", f'{fix}IRREVERSIBLE = "{blank.IRREVERSIBLE}"')
    if down is not None and declared is not None:
        yield at(down, "it has down(ctx) and IRREVERSIBLE", "# remove the one that is not true")


_ONE_WAY = GOOD.source.partition("def down")[0]


@rule(
    "MX008",
    bad=replace(GOOD, source=f'{_ONE_WAY}IRREVERSIBLE = "yes"\n'),
    good=replace(GOOD, source=f'{_ONE_WAY}IRREVERSIBLE = "states that were filled cannot be told from others"\n'),
)
def irreversible(case: Case) -> Iterator[Fault]:
    """Irreversible without a reason.

    Who is on call reads this sentence when `down` is refused.
    """
    found = case.script.constant("IRREVERSIBLE")
    if found and len(_said(case, "IRREVERSIBLE").split()) < FEWEST_WORDS:
        yield at(found[0], "it does not say why", f'IRREVERSIBLE = "{blank.LOSS}"')


@rule("MX009", bad=data(FILL, "pass"), good=GOOD, severity=Severity.WARNING)
def silent_down(case: Case) -> Iterator[Fault]:
    """A way back that does nothing in silence.

    Who goes down believes that the database is as it was before, unless the script says what stays.
    """
    down = case.script.function("down")
    if down is None or _is_unwritten(down):
        return
    if not any(case.script.steps(Way.DOWN)) and any(case.script.steps(Way.UP)):
        yield at(down, "down(ctx) does nothing and does not say so", 'ctx.report("what stays as it is")')


@rule("MX010", bad=pre(CREATE), good=pre(CREATE, DROP))
def left_behind(case: Case) -> Iterator[Fault]:
    """A way back that leaves what was created.

    What `down` leaves there meets the next `up`, and nobody expects it.
    """
    if case.script.function("down") is None:
        return
    gone = {_thing(operation) for operation in case.script.steps(Way.DOWN) if operation.kind is Kind.CONTRACT}
    if any(collection is None for collection, _ in gone):
        return
    for operation in case.script.steps(Way.UP):
        created = operation.is_step and operation.name in ("create_collection", "create_index", "create_unique")
        collection, index = _thing(operation)
        if created and collection and not gone & {(collection, index), (collection, None)}:
            undone = f'ctx.drop_index("{collection}", "{index}")' if index else f'ctx.drop_collection("{collection}")'
            yield at(operation, f"down(ctx) leaves {collection}{f'.{index}' if index else ''} there", undone)


def _thing(operation: Operation) -> tuple[str | None, str | None]:
    index = operation.value("name") if operation.name in ("create_index", "create_unique", "drop_index") else None
    return operation.collection, index if isinstance(index, str) else None


@rule(
    "MX011",
    bad=data("\n".join(FILL.replace("state", f"state_{number}") for number in range(MOST_STEPS + 1))),
    good=GOOD,
    severity=Severity.WARNING,
)
def many_steps(case: Case) -> Iterator[Fault]:
    """More steps than one script should have.

    A script is applied, undone and reviewed as one; a small one fails small.
    """
    steps = [operation for operation in case.script.steps(Way.UP) if operation.kind is not Kind.OTHER]
    if len(steps) > MOST_STEPS:
        fix = f"# v{1 + (case.script.number or 0):03d}_<phase>_<slug>.py: the steps from here on"
        yield at(steps[MOST_STEPS], f"up(ctx) has {len(steps)} steps, more than {MOST_STEPS}", fix)


@rule("MX022", bad=replace(GOOD, file="v010_data_other.py").after(GOOD), good=GOOD)
def same_place(case: Case) -> Iterator[Fault]:
    """Two scripts in one place.

    Two branches that each took the next number would run in an order that nobody chose.
    """
    script = case.script
    for other in case.before:
        if script.phase is not None and (other.number, other.phase) == (script.number, script.phase):
            slug = script.name.split("_", 2)[2]
            better = f"git mv {script.file} v{1 + (script.number or 0):03d}_{script.phase.name.lower()}_{slug}.py"
            yield at(None, f"{other.name} has the same number and phase", better)


@rule("MX023", bad=data("raise NotImplementedError"), good=GOOD)
def unwritten(case: Case) -> Iterator[Fault]:
    """A function that nobody has written yet.

    `migrate new` leaves them so: the script fails when it runs, and one without a way back is found out when somebody
    needs it.
    """
    for function in case.script.nodes(ast.FunctionDef):
        if _is_unwritten(function):
            fix = f"def {function.name}({ast.unparse(function.args)}):\n    # the steps, such as ctx.backfill(...)"
            yield at(function, f"{function.name} is not written yet", fix)


def _is_unwritten(function: ast.FunctionDef) -> bool:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    is_way = function.name in ("up", "down")
    return bool(body) and all(_raises_unwritten(one) or (is_way and _is_ellipsis(one)) for one in body)


def _raises_unwritten(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.Raise):
        return False
    raised = statement.exc.func if isinstance(statement.exc, ast.Call) else statement.exc
    return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"


def _is_ellipsis(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and value.value is ...
