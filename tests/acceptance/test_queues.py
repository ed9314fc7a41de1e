"""One worker for each group of queues, started by the commands of docs/operations.md."""

from typing import Any

from documented import worker_arguments
from system import System

from worker.processes import Child, run_processes

ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "compliance.audit.verify": ("compliance.audit", {}),
    "compliance.health.check": ("compliance.health", {"checks": ["declared_indexes"]}),
    "compliance.export.run": ("compliance.bulk", {"collection": "users"}),
    "compliance.migration.run": ("compliance.migration", {"dry_run": True}),
}


def start(system: System, arguments: list[str]) -> Child:
    processes = run_processes(("worker",), environ=system.environ, logs=system.home, extra={"worker": arguments})
    (child,) = system.cleanup.enter_context(processes).children
    return child


def test_the_documented_workers_together_do_every_kind_of_work(system: System) -> None:
    subject = str(system.seeded.subjects[0])
    consent = {"event_id": "e-1", "subject_id": subject, "type": "MARKETING", "granted": True}
    asked = ASKED | {
        "compliance.consent.update": ("compliance.consent", consent | {"occurred_at": "2026-05-01T12:00:00Z"}),
        "compliance.erasure.request": ("compliance.erasure", {"subject_id": str(system.seeded.subjects[1])}),
    }
    workers = [start(system, arguments) for arguments in worker_arguments()]
    service = system.service()
    for task, (queue, values) in asked.items():
        service.send_task(task, kwargs={**values, "request_id": task}, queue=queue)
    system.wait_for(
        lambda: all(system.job(task).get("state") == "done" for task in asked), "every kind of work is done"
    )
    for worker in workers:
        worker.process.terminate()  # all at once; each waits for itself
    log = (system.home / "worker.log").read_text()

    assert [name for name in ("consent@", "erasure@", "bulk@", "migration@") if name not in log] == []
