"""A script gives the same result each time, wherever it runs: it asks ``ctx``, and nothing else."""

import ast
from collections.abc import Iterator

from migrations.discovery import ALLOWED_IMPORTS
from migrations.governance.rule import Case, Fault, Severity, at, rule
from migrations.governance.sample import data

CLOCKS = frozenset({"now", "utcnow", "today", "time", "time_ns", "monotonic", "perf_counter", "localtime", "gmtime"})
CLOCK_OWNERS = frozenset({"datetime", "date", "time", "dt"})
RANDOM = frozenset({"random", "secrets", "uuid"})
NEW_IDS = frozenset({"uuid1", "uuid4", "urandom", "token_hex", "ObjectId"})
OUTSIDE = frozenset({
        "aiohttp", "ftplib", "glob", "http", "httpx", "io", "os", "pathlib", "requests", "shutil", "smtplib", "socket",
        "ssl", "subprocess", "tempfile", "urllib",
})  # fmt: skip
DYNAMIC = frozenset({"eval", "exec", "compile", "__import__", "globals", "setattr", "delattr"})
HARMLESS = (
    ast.FunctionDef,
    ast.Import,
    ast.ImportFrom,
    ast.Assign,
    ast.AnnAssign,
    ast.ClassDef,
)

FILL = 'ctx.backfill("albums", where={"state": {"$exists": False}}, update={"$set": {"state": "NEW"}})'
GOOD = data(FILL)
STAMP = 'ctx.backfill("albums", where={"seen": {"$exists": False}}, update={"$currentDate": {"seen": True}})'
LOWER = 'ctx.transform("albums", where={"lang": {"$exists": True}}, fields=("lang",), function=lower)'


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _owner(node: ast.expr) -> str:
    return _name(node.value) if isinstance(node, ast.Attribute) else ""


def _calls(case: Case) -> Iterator[ast.Call]:
    return case.script.nodes(ast.Call)


def _imports(case: Case) -> Iterator[tuple[ast.stmt, str]]:
    for node in case.script.nodes(ast.Import, ast.ImportFrom):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        else:
            yield node, "." * node.level + (node.module or "")


@rule(
    "MX012",
    bad=data(
        'ctx.backfill("albums", where={"seen": {"$exists": False}}, update={"$set": {"seen": datetime.now(UTC)}})',
        top="from datetime import UTC, datetime",
    ),
    good=data(STAMP),
)
def wall_clock(case: Case) -> Iterator[Fault]:
    """The clock of the machine.

    A repeat, a resumed run and a rehearsal compute another value, and the clocks of two machines differ; the server's
    clock is one.
    """
    for call in _calls(case):
        if _name(call.func) in CLOCKS and _owner(call.func) in CLOCK_OWNERS:
            yield at(call, "a repeat computes another time", 'update={"$currentDate": {"FIELD": True}}')


@rule(
    "MX013",
    bad=data(
        'ctx.transform("albums", where={"key": {"$exists": False}}, fields=("key",), function=key)',
        top='from bson import ObjectId\n\n\ndef key(document):\n    return {"key": ObjectId()}',
    ),
    good=data(
        'ctx.backfill("albums", where={"key": {"$exists": False}}, update=[{"$set": {"key": "$_id"}}])',
    ),
)
def made_anew(case: Case) -> Iterator[Fault]:
    """Values that are made anew each time.

    An interrupted run that is resumed, and the digest of a rehearsal, must find the values of the first time.
    """
    fix = 'update=[{"$set": {"FIELD": "$_id"}}]  # from what the document holds'
    for node, module in _imports(case):
        if module.partition(".")[0] in RANDOM:
            yield at(node, f"{module} gives other values each time", fix)
    for call in _calls(case):
        is_id = _name(call.func) != "ObjectId" or not (call.args or call.keywords)
        if _name(call.func) in NEW_IDS and is_id:
            yield at(call, f"{_name(call.func)}() gives another value each time", fix)


@rule("MX014", bad=data(f"{FILL}\ntime.sleep(5)", top="import time"), good=GOOD)
def sleep(case: Case) -> Iterator[Fault]:
    """Sleep.

    A script that sleeps holds the lease, is not interrupted, and waits for a time where it should wait for a state.
    """
    for call in _calls(case):
        if _name(call.func) == "sleep":
            yield at(call, "waiting for a time is waiting too long or too short", "# remove it: steps pace themselves")


@rule(
    "MX015",
    bad=data('names = open("names.txt").read()\n' + FILL),
    good=data(FILL, top='NAMES = ("NEW", "OLD")  # the values are part of the script'),
)
def outside(case: Case) -> Iterator[Fault]:
    """Files, network or other programs.

    What lies outside is not in the checksum, not in the history, and not there when somebody goes down.
    """
    fix = "VALUES = {...}  # write the values into the script"
    for node, module in _imports(case):
        if module.partition(".")[0] in OUTSIDE:
            yield at(node, f"{module} leads out of the database", fix)
    for call in _calls(case):
        if isinstance(call.func, ast.Name) and call.func.id == "open":
            yield at(call, "a file is no part of the script", fix)


@rule("MX016", bad=data(f'{FILL}\nprint("done")'), good=data(f'{FILL}\nctx.report("done")'))
def terminal(case: Case) -> Iterator[Fault]:
    """Print or input.

    Scripts run in workers, too: what is printed is lost, and standard output belongs to the command.
    """
    for call in _calls(case):
        if isinstance(call.func, ast.Name) and call.func.id in ("print", "input"):
            yield at(call, f"{call.func.id}() has no terminal in a worker", 'ctx.report("what happens")')


@rule(
    "MX017",
    bad=data(FILL, top="from application.models import Album"),
    good=data(FILL, top="from migrations.context import Context"),
)
def foreign_import(case: Case) -> Iterator[Fault]:
    """An import that changes.

    History must not change when the application does: next year its models are others, and the script is the same.
    """
    for node, module in _imports(case):
        if not any(module == known or module.startswith(f"{known}.") for known in ALLOWED_IMPORTS):
            fix = "from migrations.context import Context  # and write out the values that the script needs"
            yield at(node, f"{module} is not part of the migration interface", fix)


@rule("MX018", bad=data(f'exec("pass")\n{FILL}'), good=GOOD)
def dynamic(case: Case) -> Iterator[Fault]:
    """Code that is made at run time.

    No reviewer and no rule can read it, and the checksum does not cover it.
    """
    for call in _calls(case):
        if isinstance(call.func, ast.Name) and call.func.id in DYNAMIC:
            yield at(call, f"{call.func.id}() hides what runs", "# write the steps out")


@rule("MX019", bad=data(FILL, top='for name in ("a", "b"):\n    name.upper()'), good=GOOD)
def work_at_load(case: Case) -> Iterator[Fault]:
    """Work at load.

    A script is loaded before anything is decided: for a dry run, too, and by somebody who holds no lease.
    """
    for node in case.script.tree.body:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_for_types = isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING"
        if not isinstance(node, HARMLESS) and not is_text and not is_for_types:
            yield at(node, "this runs whenever the folder is read", "def up(ctx: Context) -> None:\n    ...  # here")


@rule(
    "MX020",
    bad=data(f"try:\n    {FILL}\nexcept Exception:\n    pass"),
    good=GOOD,
)
def swallowed(case: Case) -> Iterator[Fault]:
    """A swallowed error.

    A denied write inside a transaction does not end it (error 13, measured), and a lost lease must end the script: who
    catches everything goes on over both.
    """
    for node in case.script.nodes(ast.ExceptHandler):
        catches_all = node.type is None or _name(node.type) in ("Exception", "BaseException", "PyMongoError")
        if catches_all and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
            yield at(node.body[0], "it goes on after any error", "raise")


@rule(
    "MX021",
    bad=data(
        LOWER,
        top=(
            "SEEN = 0\n\n\ndef lower(document):\n    global SEEN\n    SEEN += 1\n"
            '    return {"lang": document["lang"].lower()}'
        ),
    ),
    good=data(LOWER, top='def lower(document):\n    return {"lang": document["lang"].lower()}'),
    severity=Severity.WARNING,
)
def state(case: Case) -> Iterator[Fault]:
    """State between steps.

    A run that died is resumed by another process, which has only what was committed.
    """
    for node in case.script.nodes(ast.Global, ast.Nonlocal):
        yield at(node, "this value is lost when another process goes on", "# compute it from the documents")
