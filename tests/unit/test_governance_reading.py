"""What a script does is read from its text, as far as the text tells, and in bounded time."""

import ast
import inspect
import textwrap

import pytest

from migrations.context import Context
from migrations.governance.operation import CALLED, STEPS, UNKNOWN, Kind, Operation
from migrations.governance.reading import MOST_NODES, read_operations


def read(text: str) -> list[Operation]:
    return list(read_operations(ast.parse(textwrap.dedent(text))))


def read_up(*lines: str, top: str = "") -> list[Operation]:
    return read(f"{top}\ndef up(ctx):\n" + "\n".join(f"    {line}" for line in lines))


def told(operation: Operation) -> tuple[object, ...]:
    return (operation.name, *operation.arguments, *sorted(operation.options.items()))


def test_the_steps_that_rules_know_are_those_of_the_context() -> None:
    other = {
        "begin",
        "check",
        "commit",
        "confirm",
        "finish",
        "leave",
        "now",
        "report",
        "sleep",
        "stored_place",
        "tell",
        "expand",
        "undo",
    }
    methods = {
        name: tuple(
            parameter.name
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.name != "self"
        )
        for name, function in inspect.getmembers(Context, inspect.isfunction)
        if not name.startswith("_") and name not in other
    }

    assert methods == dict(STEPS), "tell migrations/governance/operation.py: name, arguments by position, and its kind"


@pytest.mark.parametrize(
    ("lines", "top", "expected"),
    [
        (['ctx.a("x", n=1)'], "", [("a", "x", ("n", 1))]),
        (["ctx.a(N, [*L, 2])"], 'N = "x"\nL = [1]', [("a", "x", [1, 2])]),
        (["ctx.a({**D, 'b': -2})"], "D: dict = {'a': 1}", [("a", {"a": 1, "b": -2})]),
        (["ctx.a({'x': 1} | {'y': 2})"], "", [("a", {"x": 1, "y": 2})]),
        (["for n in (1, 2): ctx.a(n)"], "", [("a", 1), ("a", 2)]),
        (["for n, (m, _) in D.items(): ctx.a(n, m)"], "D = {'x': (1, 2)}", [("a", "x", 1)]),
        (["for n in reversed(D): ctx.a(n)"], "D = {'x': 1, 'y': 2}", [("a", "y"), ("a", "x")]),
        (["for n in other(): ctx.a(n)"], "", [("a", UNKNOWN)]),
        (["for n, m in [(1,)]: ctx.a(n, m)"], "", [("a", UNKNOWN, UNKNOWN)]),
        (["ctx.a(D['x'][1], D['y'], D['x'][9])"], "D = {'x': [1, 2]}", [("a", 2, UNKNOWN, UNKNOWN)]),
        (["ctx.a(f'{1}', 1 if x else 2, x == 1)"], "", [("a", UNKNOWN, UNKNOWN, UNKNOWN)]),
        (["if x:", "    ctx.a(1)", "else:", "    ctx.a(2)"], "", [("a", 1), ("a", 2)]),
        (["try: ctx.a(1)", "except E: ctx.a(2)", "finally: ctx.a(3)"], "", [("a", 1), ("a", 2), ("a", 3)]),
        (["match x:", "    case 1:", "        ctx.a(1)"], "", [("a", 1)]),
        (["help(ctx, 'x')"], "def help(c, n, m=1): c.a(n, m)", [("a", "x", UNKNOWN)]),
        (["help(n='x', c=ctx)"], "def help(c, *, n): c.a(n)", [("a", "x")]),
        (["ctx.a(lambda: ctx.b(1))"], "", [("b", 1)]),
        (["[ctx.a(n) for n in x]", "{n: ctx.b(n) for n in x}"], "", [("a", UNKNOWN), ("b", UNKNOWN)]),
        (["print(ctx.a(1))"], "", [("a", 1)]),
        (["n = 1", "n += 1", "ctx.a(n)"], "", [("a", UNKNOWN)]),
        (["ctx.a(m := 3)", "ctx.a(m)"], "", [("a", 3), ("a", 3)]),
    ],
)  # fmt: skip
def test_values_are_followed_to_the_operation(lines: list[str], top: str, expected: list[tuple[object, ...]]) -> None:
    names = {name for name, *_ in expected}
    found = [told(operation) for operation in read_up(*lines, top=top) if operation.name in names]

    assert found == expected


def test_the_driver_is_followed_by_index_attribute_and_name() -> None:
    operations = read_up(
        "db = ctx.databases.app",
        'db["users"].find({"a": 1}).sort("a")',
        "users = db.users",
        "users.update_many({}, {})",
    )

    assert [(found.target, found.name, found.collection) for found in operations] == [
        (("databases", "app", "users"), "find", "users"),
        (("databases", "app", "users", "find", CALLED), "sort", "users"),
        (("databases", "app", "users"), "update_many", "users"),
    ]


def test_a_parameter_of_another_name_is_the_context_all_the_same() -> None:
    (operation,) = read("def up(c):\n    c.backfill('users', where={}, update={})\n")

    assert (operation.is_step, operation.collection, operation.kind) == (True, "users", Kind.DATA)


def test_the_way_the_loops_and_the_blocks_are_told() -> None:
    up, inside, down = read(
        """
        def up(ctx):
            while ctx.more():
                ctx.atomic(lambda session: ctx.b(session))
        def down(ctx):
            ctx.c()
        """
    )[1:]

    assert [up.way, inside.way, down.way] == ["up", "up", "down"]
    assert [len(up.loops), len(inside.loops), len(down.loops)] == [1, 1, 0]
    assert [up.within, inside.within, down.within] == [(), ("atomic",), ()]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ('"collMod", "users", validator={}', ("collMod", "users")),
        ('{"update": "users", "updates": []}', ("update", "users")),
        ("name()", ("", None)),
    ],
)
def test_a_command_is_read_in_both_forms(sent: str, expected: tuple[str, str | None]) -> None:
    operation = read_up(f"ctx.databases.app.command({sent})")[0]

    assert (operation.command[0], operation.collection) == expected


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ('ctx.create_index("a", "ix", [])', Kind.EXPAND),
        ('ctx.set_schema("a", schema={}, level="moderate")', Kind.EXPAND),
        ('ctx.set_schema("a", schema={}, level="strict")', Kind.CONTRACT),
        ('ctx.set_schema("a", schema={})', Kind.CONTRACT),
        ('ctx.drop_index("a", "ix")', Kind.CONTRACT),
        ('ctx.transform("a", where={}, fields=(), function=f)', Kind.DATA),
        ('ctx.report("a")', Kind.OTHER),
        ("ctx.databases.app.a.insert_one({})", Kind.DATA),
        ("ctx.databases.app.a.find()", Kind.OTHER),
        ("ctx.databases.app.a.create_index([])", Kind.EXPAND),
        ('ctx.databases.app.a.rename("b")', Kind.CONTRACT),
        ('ctx.databases.app.command("delete", "a")', Kind.DATA),
        ('ctx.databases.app.command("createIndexes", "a")', Kind.EXPAND),
        ('ctx.databases.app.command("dropIndexes", "a")', Kind.CONTRACT),
        ('ctx.databases.app.command("collMod", "a", validator={})', Kind.CONTRACT),
        ('ctx.databases.app.command("collMod", "a", validator={}, validationLevel="moderate")', Kind.EXPAND),
        ('ctx.databases.app.command("collMod", "a", index={})', Kind.OTHER),
        ('ctx.databases.app.command("ping")', Kind.OTHER),
    ],
)
def test_an_operation_is_of_one_kind(call: str, kind: Kind) -> None:
    (operation,) = read_up(call)

    assert operation.kind is kind


@pytest.mark.parametrize(
    "text",
    [
        "def up(ctx):\n    up(ctx)\n    ctx.a()\n",
        "def f(ctx):\n" + "    f(ctx)\n" * 20 + "def up(ctx):\n    f(ctx)\n",
        "L = list(range(9))\n" + "def up(ctx):\n    for a in L:\n        ctx.a()\n",
        "L = [[0] * 9]\nM = L\n"
        + "".join(f"M{n} = [*M{n - 1 if n else ''}, *M{n - 1 if n else ''}]\n" for n in range(14))
        + "def up(ctx):\n    for a in M13:\n        for b in M13:\n            ctx.a(a, b)\n",
    ],
    ids=["itself", "itself often", "a range", "large loops"],
)
def test_a_script_that_makes_more_of_itself_is_read_in_bounded_time(text: str) -> None:
    assert len(read(text)) <= MOST_NODES


def test_a_script_without_ways_does_nothing() -> None:
    assert read("up = 1\n") == []
