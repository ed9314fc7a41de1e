"""An incident is kept once, by who may add to them and change none."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from deployment import Deployment

from compliance.audit.incident import Incident, Kind, find_newest, record, record_all
from compliance.errors import ConfigurationError
from compliance.roles import INCIDENTS, Role


@pytest.fixture
def incident(moment: datetime) -> Incident:
    return Incident(kind=Kind.MODIFIED, what="audit_log: an entry was updated", at=moment, event="token-1")


def kept(deployment: Deployment) -> list[dict[str, object]]:
    return list(deployment.admin.audit[INCIDENTS].find(sort=[("_id", 1)]))


def test_the_same_event_read_twice_is_one_incident(empty: Deployment, incident: Incident) -> None:
    sealer = empty.services(Role.SEALER).databases

    assert record(sealer, incident) is True
    assert record(sealer, replace(incident, what="another sentence")) is False
    assert kept(empty) == [
        {"_id": incident.id, "kind": "MODIFIED", "what": "audit_log: an entry was updated", "at": incident.at}
    ]


@pytest.mark.parametrize("other", [{"event": "token-2"}, {"kind": Kind.DELETED}])
def test_another_event_or_kind_is_another_incident(
    empty: Deployment, incident: Incident, other: dict[str, object]
) -> None:
    sealer = empty.services(Role.SEALER).databases
    record(sealer, incident)

    assert record(sealer, replace(incident, **other)) is True  # type: ignore[arg-type]  # one field of another value
    assert len(kept(empty)) == 2


@pytest.mark.parametrize("kind", Kind)
def test_the_validator_takes_every_kind(empty: Deployment, incident: Incident, kind: Kind) -> None:
    assert record(empty.services(Role.SEALER).databases, replace(incident, kind=kind))


@pytest.mark.parametrize("name", ["a@example.org", "x" * 1000])
def test_no_name_keeps_an_incident_from_being_kept(empty: Deployment, incident: Incident, name: str) -> None:
    record(empty.services(Role.SEALER).databases, replace(incident, what=f"{name} was dropped"))

    (found,) = kept(empty)
    assert str(found["what"]).startswith(name[:1])
    assert "@" not in str(found["what"])


def test_who_may_not_add_incidents_is_told(empty: Deployment, incident: Incident) -> None:
    with pytest.raises(ConfigurationError, match="lacks a privilege"):
        record(empty.worker, incident)


def test_the_newest_incidents_are_read_oldest_first_by_who_may_only_read(empty: Deployment, incident: Incident) -> None:
    hours = [replace(incident, event=f"e-{n}", what=f"hour {n}", at=incident.at + timedelta(hours=n)) for n in range(4)]
    record_all(empty.services(Role.SEALER).databases, hours[::-1])
    auditor = empty.services(Role.AUDITOR).databases
    since = hours[1].at

    assert [found["what"] for found in find_newest(auditor, limit=9)] == ["hour 0", "hour 1", "hour 2", "hour 3"]
    assert [found["what"] for found in find_newest(auditor, limit=2)] == ["hour 2", "hour 3"]
    assert [found["what"] for found in find_newest(auditor, since=since, limit=9)] == ["hour 1", "hour 2", "hour 3"]


def test_an_incident_that_somebody_broke_does_not_hide_the_others(empty: Deployment, incident: Incident) -> None:
    record(empty.services(Role.SEALER).databases, incident)
    empty.admin.audit[INCIDENTS].insert_one({"_id": 7, "what": "nothing else"}, bypass_document_validation=True)

    found = find_newest(empty.services(Role.AUDITOR).databases, limit=9)

    assert [one["what"] for one in found] == ["nothing else", incident.what]
