"""A process that writes audit entries, each in a transaction with an effect, until it is killed or wrote enough."""

import os
import sys

from bson import ObjectId

from compliance.audit.entry import Entry
from compliance.audit.log import AuditLog
from compliance.clock import SystemClock
from compliance.mongo import Session
from compliance.roles import Role
from compliance.settings import load_settings
from worker.addresses import Addresses
from worker.services import connect


def main() -> None:
    """Write as many entries as the first argument says."""
    settings = load_settings(os.environ)  # noqa: TID251 - the composition root of this process
    databases = connect(Addresses(settings), Role.WORKER, app_name=Role.WORKER.value)
    clock, log = SystemClock(), AuditLog(databases)
    for _ in range(int(sys.argv[1])):
        person = ObjectId()

        def write(session: Session, person: ObjectId = person) -> None:
            now = clock.now()
            databases.app["consent"].insert_one(
                {"user_id": person, "type": "TERMS", "granted": True, "timestamp": now}, session=session
            )
            entry = Entry(
                event=str(person),
                entity_type="user",
                entity_id=person,
                action="consent.granted",
                created_at=now,
                performed_by="test",
            )
            log.append(entry, session=session)

        databases.transact(write)


if __name__ == "__main__":
    main()
