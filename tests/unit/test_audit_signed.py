"""An entry by itself: is it what a known writer signed?"""

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signing import TRUST, a_writer, signed

from compliance.audit.entry import Entry
from compliance.audit.keys import SigningKey
from compliance.audit.signed import find_fault

MOMENT = datetime.fromisoformat("2026-03-31T12:00:00.123+00:00")
STRANGER = SigningKey.from_seed("writer", bytes(32))


def log_of(length: int, key: SigningKey | None = None) -> list[dict[str, Any]]:
    entries = (
        Entry(
            event=f"e-{number}",
            entity_type="job",
            entity_id=f"j-{number}",
            action="job.parked",
            created_at=MOMENT + timedelta(seconds=number),
            performed_by="worker",
            details={"documents": number},
        )
        for number in range(length)
    )
    return signed(*entries, writer=a_writer(key) if key else None)


def kinds(log: list[dict[str, Any]]) -> list[str]:
    return [(find_fault(document, TRUST) or "").split(" ")[0] for document in log]


@given(length=st.integers(1, 20), data=st.data())
def test_the_changed_entries_are_named_and_no_others(length: int, data: st.DataObject) -> None:
    log = log_of(length)
    changed = data.draw(st.sets(st.integers(0, length - 1)))
    for number in changed:
        log[number] |= data.draw(
            st.sampled_from([{"outcome": "denied"}, {"details": {}}, {"sig": "0" * 88}, {"note": 1}, {"action": "a.b"}])
        )

    assert kinds(log) == ["MODIFIED" if number in changed else "" for number in range(length)]


@pytest.mark.parametrize("value", [1.5, b"x", {"$oid": "0" * 24}, datetime(2026, 1, 1)])  # noqa: DTZ001 - naive on purpose
def test_a_value_that_no_entry_can_hold_is_a_fault_and_no_error(value: Any) -> None:
    log = log_of(2)
    log[0]["details"] = {"v": value}

    assert kinds(log) == ["MODIFIED", ""]


@pytest.mark.parametrize("taken", ["sig", "details"])
def test_an_entry_without_a_field_is_a_fault(taken: str) -> None:
    (document,) = log_of(1)
    del document[taken]

    assert find_fault(document, TRUST) == "MODIFIED its bytes are not those that were signed"


def test_an_entry_that_no_known_writer_signed_is_forged() -> None:
    (stranger,) = log_of(1, STRANGER)
    (renamed,) = log_of(1, STRANGER)
    renamed["writer"]["key"] = log_of(1)[0]["writer"]["key"]

    assert kinds([stranger, renamed, {"_id": "x"}]) == ["FORGED", "MODIFIED", "FORGED"]
