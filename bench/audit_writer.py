"""Write transactions for ``bench.audit``, one kind at a time as told on stdin; print how many committed, as JSON lines.

Each line of stdin is ``<kind> <seconds> <entries per second, 0 for as many as possible>``.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from bson import ObjectId

from compliance.audit.entry import Entry, to_document
from compliance.audit.log import AuditLog
from compliance.mongo import Databases, Document, Session, open_client
from compliance.roles import AUDIT_LOG
from compliance.settings import load_settings
from worker.addresses import Addresses

PLAIN, SEALED = "plain", "sealed"
PLAIN_DATABASE = "bench_plain"


def an_entry() -> Entry:
    """Return an entry of the usual size."""
    return Entry(
        event=str(ObjectId()),
        entity_type="user",
        entity_id=ObjectId(),
        action="consent.granted",
        created_at=datetime.now(UTC),
        performed_by="worker",
        request_id=str(ObjectId()),
        details={"type": "MARKETING", "is_current": True},
    )


def a_plain_document() -> Document:
    """Return what an audit log without seals would insert for the same event, as large as an entry is."""
    return to_document(an_entry()) | {"source": {"host": "h" * 12, "process": "p" * 12}, "filling": "x" * 206}


def transaction(databases: Databases, kind: str) -> Callable[[], None]:
    """Return what writes one effect, and beside it a signed entry or a plain document of the same event."""
    log, plain = AuditLog(databases), databases.client[PLAIN_DATABASE][AUDIT_LOG]

    def work(session: Session) -> None:
        databases.app["effects"].insert_one({"at": datetime.now(UTC)}, session=session)
        if kind == SEALED:
            log.append(an_entry(), session=session)
        else:
            plain.insert_one(a_plain_document(), session=session)

    return lambda: databases.transact(work)


def run(databases: Databases, kind: str, lasting: float, rate: float, threads: int) -> int:
    """Commit transactions for *lasting* seconds and return how many."""
    done = [0] * threads
    end = time.monotonic() + lasting

    def repeat(number: int) -> None:
        commit = transaction(databases, kind)
        due = time.monotonic()
        while time.monotonic() < end:
            commit()
            done[number] += 1
            if rate:
                due += threads / rate
                time.sleep(max(0.0, due - time.monotonic()))

    workers = [threading.Thread(target=repeat, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(done)


def main() -> None:
    """Serve until stdin ends."""
    threads = int(sys.argv[1])
    settings = load_settings(os.environ)
    writer = Addresses(settings).writer("bench")
    with open_client(os.environ["BENCH_ADMIN_URI"], app_name="bench") as client:
        databases = Databases(client, settings.mongodb_database, writer)
        for line in sys.stdin:
            kind, lasting, rate = line.split()
            print(json.dumps(run(databases, kind, float(lasting), float(rate), threads)), flush=True)


if __name__ == "__main__":
    main()
