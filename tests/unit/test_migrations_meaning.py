"""A function of a script is known by its text, by what of the script it uses, and by the values it carries."""

import ast
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from migrations.discovery import read_script
from migrations.meaning import meaning_of, reached

SCRIPT = '''
"""Change."""

from functools import cache, partial

from bson import Decimal128

TEN: int = 10
UNUSED = 1
TABLE = {"a": 1}
TABLE["b"] = 2
for key in ("c",):
    TABLE[key] = 3


class Counter:
    """Counts."""

    def __init__(self, step):
        self.step = step

    def __call__(self, document):
        return self.add(document)

    def add(self, document):
        return document["n"] + self.step * TEN


def plus(number):
    return number + TEN


def looked_up(document):
    return TABLE[document["k"]]


def count(document):
    return plus(document["n"])


@cache
def kept(number):
    return plus(number)


def around(number):
    return number if number < 0 else around(number - 1)


def other(document):
    return UNUSED


def up(ctx):
    size = 5

    def inner(document, by=2):
        return plus(document["n"]) * size + by

    def closed(document):
        return ctx and inner(document)

    ctx.take(
        count=count, looked_up=looked_up, inner=inner, closed=closed, kept=kept, around=around, decimal=Decimal128,
        counter=Counter(2), method=Counter(2).add, part=partial(count, more=2), short=lambda document: plus(document),
    )


def down(ctx):
    """Nothing."""
'''


class Taking:
    """Takes what a script gives to a step."""

    def __init__(self) -> None:
        self.taken: dict[str, Callable[..., Any]] = {}

    def take(self, **given: Callable[..., Any]) -> None:
        self.taken = given


def meanings(*changes: tuple[str, str]) -> dict[str, str]:
    """What each function of the script means, with these changes of its text."""
    text = SCRIPT
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    ctx: Any = Taking()
    read_script("v001_data_it.py", text.encode(), place=f"v001_data_it.py of {len(changes)} {hash(text)}").up(ctx)
    return {name: meaning_of(function) for name, function in ctx.taken.items()}


SAME = meanings()
WITH_PLUS = {"count", "inner", "closed", "kept", "part", "short"}
WITH_TEN = {*WITH_PLUS, "counter", "method"}


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("number + TEN", "number - TEN", WITH_PLUS),
        ("TEN: int = 10", "TEN: int = 11", WITH_TEN),
        ("UNUSED = 1", "UNUSED = 2", set()),
        ("return UNUSED", "return UNUSED + 1", set()),
        ('TABLE = {"a": 1}', 'TABLE = {"a": 2}', {"looked_up"}),
        ('TABLE["b"] = 2', 'TABLE["b"] = 3', {"looked_up"}),
        ("TABLE[key] = 3", "TABLE[key] = 4", {"looked_up"}),
        ("size = 5", "size = 6", {"inner", "closed"}),
        ("by=2", "by=3", {"inner", "closed"}),
        ("counter=Counter(2)", "counter=Counter(3)", {"counter"}),
        ("method=Counter(2)", "method=Counter(3)", {"method"}),
        ("self.step * TEN", "self.step", {"counter", "method"}),
        ("more=2", "more=3", {"part"}),
        ("partial(count, more=2)", "partial(count, less=2)", {"part"}),
        ("else around(number - 1)", "else around(number - 2)", {"around"}),
        ("decimal=Decimal128", "decimal=len", {"decimal"}),
        ("lambda document: plus(document)", "lambda document: plus(-document)", {"short"}),
    ],
)
def test_what_a_function_uses_is_what_it_means(before: str, after: str, changed: set[str]) -> None:
    found = meanings((before, after))

    assert {name for name in SAME if found[name] != SAME[name]} == changed


def test_comments_and_formatting_are_free_and_so_is_another_process() -> None:
    assert meanings(("TEN: int = 10", "TEN: int = (\n    10  # ten\n)")) == SAME
    assert meanings() == SAME


@pytest.mark.parametrize(
    ("one", "another"),
    [
        (partial(int, base=2), partial(int, base=8)),
        (partial(max, {1, 2}), partial(max, {1, 3})),
        (partial(max, timedelta(1)), partial(max, timedelta(2))),
        (str.lower, str.upper),
    ],
)
def test_values_that_a_function_carries_are_what_it_means(one: Any, another: Any) -> None:
    assert meaning_of(one) == meaning_of(one)
    assert meaning_of(one) != meaning_of(another)


def test_what_is_no_plain_data_counts_by_its_type() -> None:
    assert meaning_of(partial(max, object())) == meaning_of(partial(max, object()))


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("a = 1\nb = a\nc = 2", {"b"}, ["a = 1", "b = a"]),
        ("a = 1\nb = a\nc = 2", {"a"}, ["a = 1"]),
        ("import a.x as y\nimport a.x\nfrom a import z", {"a"}, ["import a.x"]),
        ("import a.x as y\nimport a.x\nfrom a import z", {"y", "z"}, ["import a.x as y", "from a import z"]),
        ("a = []\na.append(1)\nb = a.pop()", {"a"}, ["a = []", "a.append(1)"]),
        ("a, b = 1, 2\nc = 3", {"a"}, ["a, b = (1, 2)"]),
        ("if True:\n    def f(): pass\nelse:\n    def g(): pass", {"g"}, ["if True"]),
        ("a = 1\ndef f():\n    global a\n    a = 2", {"a"}, ["a = 1"]),
        ("def f(): return g()\ndef g(): return f()\ndef h(): return f()", {"f"}, ["def f", "def g"]),
        ("class A: x = b\nb = 1", {"A"}, ["class A", "b = 1"]),
    ],
)
def test_the_statements_that_decide_what_names_stand_for(text: str, names: set[str], expected: list[str]) -> None:
    statements = ast.parse(text).body
    found = [ast.unparse(one) for one in reached(statements, frozenset(names))]

    assert [one.partition(":")[0].partition("()")[0] for one in found] == expected
