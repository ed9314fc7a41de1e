"""The history is folded event by event; nothing of it is ever taken out."""

from datetime import UTC, datetime, timedelta
from typing import Any

from migrations.past import Mark, fold

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def events(*told: str, **fields: Any) -> list[dict[str, Any]]:
    return [
        {"revision": "v001_pre_a", "event": event, "checksum": "c", "by": f"person {n}", "at": NOON + timedelta(n)}
        | (fields if event == "repaired" else {"source": "s"} if event == "started" else {})
        for n, event in enumerate(told)
    ]


def test_a_script_is_applied_from_its_last_event_on() -> None:
    assert fold(events("started")).applied == {}
    assert fold(events("started", "applied")).applied == {"v001_pre_a": "c"}
    assert fold(events("started", "applied", "reverting")).applied == {}
    assert fold(events("started", "applied", "reverting", "reverted")).applied == {}
    assert fold(events("started", "applied", "reverting", "reverted", "started", "applied")).applied


def test_a_script_is_begun_until_it_is_undone() -> None:
    for told in (["started"], ["started", "applied"], ["started", "applied", "reverting"]):
        assert fold(events(*told)).begun == {"v001_pre_a"}
    assert fold(events("started", "applied", "reverting", "reverted")).begun == set()
    assert fold([]).begun == set()


def test_each_script_has_its_own_trace() -> None:
    other = {**events("started")[0], "revision": "v002_pre_b"}

    assert fold([*events("started", "applied"), other]).applied == {"v001_pre_a": "c"}
    assert fold([other, *events("started", "applied")]).begun == {"v001_pre_a", "v002_pre_b"}


def test_the_source_stays_with_the_events_that_follow() -> None:
    trace = fold(events("started", "applied", "reverting")).traces["v001_pre_a"]

    assert (trace.source, trace.mark, trace.by, trace.at) == ("s", Mark.REVERTING, "person 2", NOON + timedelta(2))
    assert fold(events("applied")).traces["v001_pre_a"].source is None


def test_an_accepted_edit_changes_the_checksum_and_who_applied_it_stays() -> None:
    (trace,) = fold(events("started", "applied", "repaired", fault="edited", checksum="d", source="t")).traces.values()

    assert (trace.mark, trace.checksum, trace.source, trace.is_missed) == (Mark.APPLIED, "d", "t", False)
    assert trace.by == "person 1"


def test_a_script_that_is_accepted_as_missing_stays_applied_until_it_is_run_again() -> None:
    told = ("started", "applied", "repaired")
    (trace,) = fold(events(*told, fault="missing")).traces.values()
    (again,) = fold(events(*told, "reverting", fault="missing")).traces.values()

    assert (trace.mark, trace.checksum, trace.source, trace.is_missed) == (Mark.APPLIED, "c", "s", True)
    assert again.is_missed is False


def test_a_repair_of_nothing_is_nothing() -> None:
    assert fold(events("repaired", fault="edited")).traces == {}
