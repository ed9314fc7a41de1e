"""Everything that processes of ours do to a database, one after the other."""

from datetime import UTC, datetime
from typing import Any

from deployment import Deployment

from compliance.jobs.job import State
from worker.demo.seed import insert, seed_documents
from worker.up import provision_stack

NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)


def ordinary_load(deployment: Deployment) -> None:
    """Migrate, agree, export, import, erase, verify, look, provision again, migrate down and up."""
    deployment.migrate()
    seeded = seed_documents(3, people=20, moment=NOON)
    insert(seeded, deployment.admin)
    person, other = map(str, seeded.subjects[:2])
    agreed = {"event_id": "c-1", "subject_id": person, "type": "MARKETING", "granted": True}
    _done(deployment, "consent.update", agreed | {"occurred_at": "2026-03-31T12:00:00Z"})
    _done(deployment, "export.run", {"collection": "tracks", "package": "p-1"})
    deployment.admin.app["tracks"].delete_many({})
    _done(deployment, "import.run", {"package": "p-1", "collection": "tracks"})
    _done(deployment, "export.run", {"subject_id": other})
    _done(deployment, "erasure.request", {"subject_id": person})
    _done(deployment, "erasure.campaign", {"subject_ids": [other]})
    _done(deployment, "health.check", {"checks": ["declared_indexes", "no_residual"]})
    _done(deployment, "audit.heartbeat", {})
    _done(deployment, "audit.verify", {})
    provision_stack(deployment.settings, deployment.stack.endpoints)
    deployment.runner().down("003", drop_data=True)
    deployment.migrate()


def _done(deployment: Deployment, kind: str, values: dict[str, Any]) -> None:
    job = deployment.run(kind, values, f"ordinary-{kind}-{len(values)}")
    assert job.state is State.DONE, (kind, job.error)
