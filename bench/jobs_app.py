"""The application of the workers of ``bench.jobs``: ours, and beside it a bare task with the same transaction."""

import os
from typing import Any

from celery import Celery

from compliance.consent.ledger import ConsentLedger
from compliance.mongo import Session
from compliance.roles import Role
from compliance.settings import load_settings
from worker.addresses import Addresses
from worker.application import celery_application
from worker.doorbell import publisher
from worker.services import PerProcess, build_services
from worker.tasks.consent_update import ConsentUpdate, to_event

BARE = "compliance.bench.bare"  # a worker takes tasks of our name only

app: Celery = celery_application()
addresses = Addresses(load_settings(os.environ))
services = PerProcess(lambda: build_services(addresses, Role.WORKER, publish=publisher(app)))


@app.task(name=BARE, ignore_result=True)
def bare(request_id: str, **values: Any) -> None:
    """Record a consent event in one transaction with its entry; no ledger, no lease, no validation of the sender."""
    mine = services()
    consent = ConsentLedger(mine.databases, mine.data_map, mine.log)
    event = to_event(ConsentUpdate.model_validate(values), mine.data_map)

    def effect(session: Session) -> None:
        consent.record(
            event,
            user_id=event.subject_id,
            request_id=request_id,
            actor="bench",
            now=mine.clock.now(),
            session=session,
        )

    mine.databases.transact(effect)
