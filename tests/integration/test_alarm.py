"""The alarm tells people once, and keeps what it told of when MongoDB is back."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from deployment import Deployment
from structlog.testing import capture_logs

import worker.alarm
from compliance.audit.incident import Incident, Kind
from compliance.errors import StoreUnavailable
from compliance.mongo import Databases, open_client
from compliance.roles import INCIDENTS, Role
from worker.alarm import QUIET, REMEMBERED, Alarm


def some(moment: datetime, number: int, kind: Kind = Kind.MODIFIED) -> list[Incident]:
    return [Incident(kind=kind, what=f"number {n}", at=moment, event=f"e-{n}") for n in range(number)]


def a_fork(at: datetime) -> Incident:
    return Incident(kind=Kind.FORK, what="the last checkpoint is not ours", at=at)


def kept(deployment: Deployment) -> int:
    return deployment.admin.audit[INCIDENTS].count_documents({})


def test_one_line_tells_of_all_of_a_kind(empty: Deployment, moment: datetime) -> None:
    alarm = Alarm(empty.services(Role.SEALER).databases)
    with capture_logs() as lines:
        alarm.ring([*some(moment, 3), *some(moment, 2, Kind.DELETED)])

    assert [(line["log_level"], line["event"], line["kind"], line["incidents"]) for line in lines] == [
        ("critical", "audit.incident", "DELETED", 2),
        ("critical", "audit.incident", "MODIFIED", 3),
    ]
    assert kept(empty) == 5


@pytest.mark.parametrize("event", ["e-0", ""], ids=["an event", "a state"])
def test_people_are_told_although_mongodb_is_away_and_only_once(
    empty: Deployment, moment: datetime, event: str
) -> None:
    happened = [Incident(kind=Kind.FORK, what="a fork", at=moment, event=event)]
    patience = timedelta(milliseconds=50)
    with open_client("mongodb://127.0.0.1:9/?replicaSet=rs0", app_name="test", timeout=patience) as nowhere:
        alarm = Alarm(Databases(nowhere, empty.name))
        with capture_logs() as lines:
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    alarm.ring(happened)
            replace(alarm, databases=empty.services(Role.SEALER).databases).ring(happened)

    assert [line["event"] for line in lines] == ["audit.incident"]
    assert kept(empty) == 1


def test_incidents_that_were_removed_are_kept_again(empty: Deployment, moment: datetime) -> None:
    alarm = Alarm(empty.services(Role.SEALER).databases)
    alarm.ring(some(moment, 2))
    empty.admin.audit[INCIDENTS].delete_many({})

    alarm.ring(some(moment, 1, Kind.DELETED))

    assert kept(empty) == 3


def test_what_is_remembered_is_bounded(empty: Deployment, moment: datetime) -> None:
    alarm = Alarm(empty.services(Role.SEALER).databases)
    alarm.ring(some(moment, REMEMBERED + 5))

    assert len(alarm._told) == REMEMBERED
    assert kept(empty) == REMEMBERED + 5


def test_a_state_that_lasts_is_one_incident_and_told_once(empty: Deployment, moment: datetime) -> None:
    alarm = Alarm(empty.services(Role.SEALER).databases)
    with capture_logs() as lines:
        for number in range(4):  # three hours, and never quiet for longer than one
            alarm.ring([a_fork(moment + number * QUIET)])

    assert [line["what"] for line in lines] == ["the last checkpoint is not ours"]
    assert [found["at"] for found in empty.admin.audit[INCIDENTS].find()] == [moment]


def test_a_state_that_had_stopped_for_an_hour_is_told_and_kept_again(empty: Deployment, moment: datetime) -> None:
    alarm = Alarm(empty.services(Role.SEALER).databases)
    again = moment + QUIET + timedelta(milliseconds=1)
    with capture_logs() as lines:
        for at in (moment, again, again + timedelta(seconds=5)):
            alarm.ring([a_fork(at)])

    assert len(lines) == 2
    assert [found["at"] for found in empty.admin.audit[INCIDENTS].find(sort={"at": 1})] == [moment, again]


@pytest.mark.parametrize(("away", "incidents"), [(QUIET - timedelta(milliseconds=1), 1), (QUIET, 2)])
def test_a_watcher_that_was_started_again_goes_on_with_what_began_lately(
    empty: Deployment, moment: datetime, away: timedelta, incidents: int
) -> None:
    databases = empty.services(Role.SEALER).databases
    with capture_logs() as lines:
        Alarm(databases).ring([a_fork(moment)])
        Alarm(databases).ring([a_fork(moment + away)])

    assert len(lines) == 2
    assert kept(empty) == incidents


def test_states_that_are_remembered_are_bounded(
    empty: Deployment, moment: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.alarm, "REMEMBERED", 3)
    alarm = Alarm(empty.services(Role.SEALER).databases)
    for number in (0, 1, 2, 0, 3):
        alarm.ring([replace(a_fork(moment), what=f"fork {number}")])

    assert list(alarm._episodes) == [replace(a_fork(moment), what=f"fork {number}").id for number in (2, 0, 3)]


def test_states_of_two_sentences_or_kinds_are_two(empty: Deployment, moment: datetime) -> None:
    fork = a_fork(moment)
    alarm = Alarm(empty.services(Role.SEALER).databases)
    alarm.ring([fork, replace(fork, what="another"), replace(fork, kind=Kind.ROLLBACK), replace(fork, event=fork.what)])

    assert kept(empty) == 3
