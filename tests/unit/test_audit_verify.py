"""Verification names the entries that are not as they were recorded."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.audit.entry import Entry, to_document
from compliance.audit.verify import verify


def log_of(length: int, moment: datetime) -> list[dict[str, Any]]:
    return [
        to_document(
            Entry(
                event=f"e-{number}",
                entity_type="job",
                entity_id=f"j-{number}",
                action="job.done",
                created_at=moment + timedelta(seconds=number),
                performed_by="worker",
                details={"documents": number},
            )
        )
        for number in range(length)
    ]


MOMENT = datetime.fromisoformat("2026-03-31T12:00:00.123+00:00")


@given(length=st.integers(0, 30))
def test_an_untouched_log_has_no_findings(length: int) -> None:
    report = verify(log_of(length, MOMENT))

    assert (report.entries, report.findings, report.is_ok) == (length, (), True)


@given(length=st.integers(1, 30), data=st.data())
def test_the_changed_entries_are_named_and_no_others(length: int, data: st.DataObject) -> None:
    log = log_of(length, MOMENT)
    changed = data.draw(st.sets(st.integers(0, length - 1), min_size=1))
    for number in changed:
        log[number] |= data.draw(
            st.sampled_from([{"outcome": "denied"}, {"details": {}}, {"h": "0" * 64}, {"note": 1}, {"action": "a.b"}])
        )

    report = verify(log)

    assert [finding.split()[1].rstrip(":") for finding in report.findings] == [log[n]["_id"] for n in sorted(changed)]
    assert not report.is_ok


@pytest.mark.parametrize("value", [1.5, b"x", {"$oid": "0" * 24}, datetime(2026, 1, 1)])  # noqa: DTZ001 - naive on purpose
def test_a_value_that_no_entry_can_hold_is_a_finding_not_a_crash(value: Any) -> None:
    log = log_of(2, MOMENT)
    log[0]["details"] = {"v": value}

    assert verify(log).findings == (f"MODIFIED {log[0]['_id']}: holds a value that no entry can hold",)


def test_an_entry_without_its_hash_is_a_finding() -> None:
    (document,) = log_of(1, MOMENT)
    del document["h"]

    assert verify([document]).findings == (f"MODIFIED {document['_id']}: its bytes are not those that were recorded",)


def test_findings_are_bounded_and_entries_are_not() -> None:
    report = verify({"_id": str(number), "h": ""} for number in range(1500))

    assert (report.entries, len(report.findings)) == (1500, 1000)
