"""The alarm tells people once, and keeps what it told of when MongoDB is back."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from deployment import Deployment
from structlog.testing import capture_logs

from compliance.audit.incident import Incident, Kind
from compliance.errors import StoreUnavailable
from compliance.mongo import Databases, open_client
from compliance.roles import INCIDENTS, Role
from worker.alarm import REMEMBERED, Alarm


def some(moment: datetime, number: int, kind: Kind = Kind.MODIFIED) -> list[Incident]:
    return [Incident(kind=kind, what=f"number {n}", at=moment, event=f"e-{n}") for n in range(number)]


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


def test_people_are_told_although_mongodb_is_away_and_only_once(empty: Deployment, moment: datetime) -> None:
    patience = timedelta(milliseconds=50)
    with open_client("mongodb://127.0.0.1:9/?replicaSet=rs0", app_name="test", timeout=patience) as nowhere:
        alarm = Alarm(Databases(nowhere, empty.name))
        with capture_logs() as lines:
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    alarm.ring(some(moment, 1))
            replace(alarm, databases=empty.services(Role.SEALER).databases).ring(some(moment, 1))

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
