"""Following a database for the block of a test, and what was kept of it."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployment import Deployment
from waiting import wait_until

from compliance.audit.entry import Entry
from compliance.mongo import Databases, Document
from compliance.roles import INCIDENTS, Role
from worker.lookout import Lookout, places_file
from worker.oplog import OPLOG, PLACE_ID, OplogWatch
from worker.services import Services
from worker.tamper import AUDIT, TamperWatch
from worker.watcher import persevere

MARK = "mark_"


Watch = type[TamperWatch | OplogWatch]


def lookout(services: Services, watch: Watch, *, file: Path | None = None, **more: Any) -> Lookout:
    """What *watch* is made with."""
    stream, place_id = (AUDIT, services.databases.audit.name) if watch is TamperWatch else (OPLOG, PLACE_ID)
    return Lookout(services=services, stream=stream, place_id=place_id, file=places_file(file), **more)


@contextmanager
def following(deployment: Deployment, watch: Watch, *, file: Path | None = None) -> Iterator[None]:
    """Let *watch* follow for the block, as a thread of the watcher does; *file* remembers how far it looked."""
    stop, reads = threading.Event(), Counter[str]()
    services = deployment.services(Role.SEALER)
    found = lookout(services, watch, file=file, should_stop=stop.is_set, on_read=lambda: reads.update(["read"]))
    watching = watch(found)
    thread = threading.Thread(target=persevere, args=("audit", watching.follow, services.clock, stop.is_set))
    thread.start()
    try:
        wait_until(lambda: reads["read"] > 0, timeout=20, what="the stream is read")
        yield
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


def incidents(deployment: Deployment) -> list[Document]:
    """What was kept, without marks."""
    return list(deployment.admin.audit[INCIDENTS].find({"what": {"$not": {"$regex": MARK}}}))


def kinds(deployment: Deployment) -> list[str]:
    return sorted(found["kind"] for found in incidents(deployment))


def sentences(deployment: Deployment) -> set[str]:
    return {found["what"] for found in incidents(deployment)}


def wait_for_mark(deployment: Deployment, name: str) -> None:
    kept = deployment.admin.audit[INCIDENTS]
    wait_until(lambda: kept.find_one({"what": {"$regex": name}}) is not None, timeout=20, what="the mark is seen")


def entry(event: str, databases: Databases) -> Entry:
    return Entry(
        event=event,
        entity_type="user",
        entity_id="somebody",
        action="consent.granted",
        created_at=databases.server_time(),
        performed_by="test",
    )


def an_entry(deployment: Deployment, event: str = "e-0") -> str:
    """Record something as a worker does; return the id of the entry."""
    log, recorded = deployment.services().log, entry(event, deployment.worker)
    return deployment.worker.transact(lambda session: log.append(recorded, session=session))
