"""What the verify steps of scripts find, and which of them still count."""

from typing import Any

import pytest

from migrations.step import Kind, Step
from migrations.verification import Inspection, bounds_of, is_within


def begin(inspection: Inspection, kind: Kind, collection: str = "things") -> Step | None:
    return inspection.begin(1, kind, "a step", {"collection": collection})


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.VERIFY])
def test_steps_that_are_no_verify_steps_are_passed_by(kind: Kind) -> None:
    assert begin(Inspection(), kind) is None


def test_a_verify_step_is_looked_at() -> None:
    step = begin(Inspection(), Kind.VERIFY)

    assert step is not None
    assert (step.number, step.kind) == (1, Kind.VERIFY)


def test_a_verify_step_before_the_last_change_of_its_collection_does_not_count() -> None:
    inspection = Inspection()
    inspection.look("things", 3, none=True, count={})
    inspection.look("others", 1, none=True, count={})
    begin(inspection, Kind.BACKFILL)

    assert inspection.failed == {"others": ["1 documents of others are not as they should be"]}
    assert inspection.changed == {"things"}


@pytest.mark.parametrize(
    ("found", "count", "is_right"),
    [
        (3, {"exactly": 3}, True),
        (4, {"exactly": 3}, False),
        (2, {"exactly": 3}, False),
        (3, {"at_least": 3}, True),
        (2, {"at_least": 3}, False),
        (3, {"at_most": 3}, True),
        (4, {"at_most": 3}, False),
        (4, {"at_least": 3, "at_most": 5}, True),
    ],
)
def test_a_number_is_within_its_bounds_or_noted(found: int, count: dict[str, Any], is_right: bool) -> None:  # noqa: FBT001
    inspection = Inspection()
    inspection.look("things", found, none=False, count={"where": {}, **count})

    assert is_within(found, count) is is_right
    assert (inspection.failed == {}) is is_right


def test_bounds_are_told_in_words() -> None:
    assert bounds_of({"where": {"a": 1}, "at_least": 1, "at_most": 5}) == "at least 1, at most 5"


def test_nothing_found_is_nothing_noted() -> None:
    inspection = Inspection()
    inspection.look("things", 0, none=True, count={})

    assert inspection.failed == {}
