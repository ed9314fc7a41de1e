"""A step is known again by what it does, not by how it is written."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import ObjectId

from migrations.journal import passage_of
from migrations.ops.reason import reason_of
from migrations.step import Kind, digest

MOMENT = datetime(2026, 5, 1, tzinfo=UTC)


def once(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return one more."""
    return {"n": document["n"] + 1}


def twice(document: Mapping[str, Any]) -> dict[str, Any]:
    return {"n": document["n"] + 2}


def test_the_same_step_has_the_same_digest() -> None:
    arguments = {"where": {"_id": ObjectId("0" * 24), "at": MOMENT, "n": 1}, "fields": ("n",), "function": once}

    assert digest(Kind.BACKFILL, arguments) == digest(Kind.BACKFILL, dict(reversed(arguments.items())))


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        (Kind.DDL, {}),
        (Kind.BACKFILL, {"where": {"n": 2}}),
        (Kind.BACKFILL, {"where": {"n": 1.0}}),
        (Kind.BACKFILL, {"where": {"n": "1"}}),
        (Kind.BACKFILL, {"function": twice}),
        (Kind.BACKFILL, {"more": None}),
    ],
)
def test_another_step_has_another_digest(kind: Kind, changed: dict[str, Any]) -> None:
    arguments = {"where": {"n": 1}, "function": once}

    assert digest(kind, arguments | changed) != digest(Kind.BACKFILL, arguments)


@pytest.mark.parametrize("text", ["lambda d: {'x': 2}", "lambda d: {'y': 1}", "lambda d: d in {1, 3}", "lambda d: d.x"])
def test_a_function_whose_text_is_not_found_is_known_by_its_names_and_values(text: str) -> None:
    """Such as a lambda on a line that is no statement by itself."""
    before = digest(Kind.BACKFILL, {"function": eval("lambda d: {'x': 1}")})

    assert digest(Kind.BACKFILL, {"function": eval(text)}) != before
    assert digest(Kind.BACKFILL, {"function": eval(text)}) == digest(Kind.BACKFILL, {"function": eval(text)})


def number(text: str) -> int:
    return int(text)


def refuse(text: str) -> None:
    raise ValueError("it is no number")


@pytest.mark.parametrize(
    ("function", "kept"),
    [(refuse, "it is no number"), (number, "ValueError; a reason that the script raises as a plain text is kept")],
)
def test_a_reason_is_kept_where_it_stands_in_the_script(function: Any, kept: str) -> None:
    with pytest.raises(ValueError, match=r"number|int") as refused:
        function("ann.lee@example.org")
    assert reason_of(refused.value) == kept


def events(*names: str) -> list[dict[str, Any]]:
    return [{"_id": ObjectId(f"{number:024x}"), "event": name} for number, name in enumerate(names)]


@pytest.mark.parametrize(
    ("names", "begin", "expected"),
    [
        ((), "started", None),
        (("started",), "started", 0),
        (("started", "started"), "started", 0),
        (("started", "applied"), "started", None),
        (("started", "applied"), "reverting", None),
        (("started", "applied", "reverting"), "reverting", 2),
        (("started", "applied", "reverting", "reverted", "started"), "started", 4),
        (("started", "reverting"), "started", None),
        (("started", "reverting", "started"), "started", 2),
        (("started", "noted", "started"), "started", 0),
    ],
)
def test_a_passage_begins_anew_behind_an_end_and_where_the_way_turns(
    names: tuple[str, ...], begin: str, expected: int | None
) -> None:
    found = events(*names)

    assert passage_of(found, begin) == (None if expected is None else found[expected]["_id"])
