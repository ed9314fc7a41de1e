"""Commands that ask for a job: make it durable, wait for it, and show what became of it."""

import sys
import uuid
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.console import Console

from compliance.errors import ComplianceError, ConfigurationError, ExitCode, LockHeld
from compliance.jobs.job import FINAL, Job, State
from worker.cli.runtime import show_fields, show_json
from worker.intake import submit
from worker.job import progress_text, seconds_left
from worker.services import Services
from worker.tasks import JOBS

POLL = timedelta(milliseconds=200)
WAIT_LIMIT = timedelta(minutes=10)
TELL_AFTER = timedelta(seconds=10)

WaitOption = Annotated[bool, typer.Option("--wait", help="Wait until the job is done.")]
RequestIdOption = Annotated[
    str | None, typer.Option("--request-id", help="Idempotency key: the same key twice is one job.")
]


def enqueue(services: Services, kind: str, values: Mapping[str, Any], *, request_id: str | None) -> Job:
    """Make a job durable, then ring the doorbell; without the broker the sweeper does."""
    given = {name: value for name, value in values.items() if value is not None}
    job = submit(JOBS[kind], given, request_id=request_id or f"cli-{uuid.uuid4()}", origin="cli", services=services)
    services.publish(job)
    return job


def wait_for(services: Services, job: Job) -> Job:
    """Wait until *job* is done, showing its progress when stderr is a terminal.

    Raises:
        ConfigurationError: When the ledger lost it.
        LockHeld: When it is not done after ten minutes; it goes on without us.
    """
    began = services.clock.now()
    is_told = False
    console = Console(stderr=True)
    with console.status(f"{job.kind}: waiting for a worker") as status:
        while True:
            found = services.ledger.find(job.request_id)
            if found is None:
                raise ConfigurationError(f"job {job.request_id} is not in the ledger of this database")
            if found.state in FINAL:
                return found
            status.update(f"{job.kind}: {progress_text(found.checkpoint) or found.state.value}")
            waited = services.clock.now() - began
            if found.state is State.QUEUED and waited > TELL_AFTER and not is_told:
                is_told = True
                sys.stderr.write(f"{job.request_id} is still waiting: no worker has taken it; is one running?\n")
            if waited > WAIT_LIMIT:
                raise LockHeld(
                    f"job {job.request_id} is {found.state.value} after {WAIT_LIMIT.total_seconds():.0f} s and goes on "
                    f"without this command; see `compliance jobs show {job.request_id}`; is a worker running?"
                )
            services.clock.sleep(POLL)


def finish(job: Job, *, as_json: bool) -> None:
    """Show *job* and end the command with the exit code of its state."""
    if as_json:
        show_json(describe(job))
    else:
        show_fields(describe(job))
    if job.state is State.DONE or job.state not in FINAL:
        return
    if job.error:
        sys.stderr.write(f"error: {job.error['message']}\n")
    raise typer.Exit(int(exit_code(job)))


def exit_code(job: Job) -> ExitCode:
    """Return the exit code that a command gives for a job that did not succeed."""
    for known in _subclasses(ComplianceError):
        if job.error and known.__name__ == job.error["code"]:
            return known.exit_code
    return ExitCode.USAGE if job.state is State.REJECTED else ExitCode.UNEXPECTED


def _subclasses(parent: type[ComplianceError]) -> Iterator[type[ComplianceError]]:
    for child in parent.__subclasses__():
        yield child
        yield from _subclasses(child)


def describe(job: Job) -> dict[str, Any]:
    """Return *job* as commands show it."""
    return {
        "request_id": job.request_id,
        "kind": job.kind,
        "state": job.state.value,
        "progress": progress_text(job.checkpoint),
        "seconds_left": seconds_left(job.checkpoint) if job.state not in FINAL else None,
        "asked": job.asked.value if job.asked else None,
        "origin": job.origin,
        "sender": job.sender,
        "trace_id": job.terms.trace_id,
        "attempts": job.attempts,
        "owner": job.owner,
        "lease_until": job.lease_until,
        "run_at": job.run_at,
        "priority": job.terms.priority,
        "deadline": job.terms.deadline,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "result": job.result,
        "result_digest": job.result_digest,
        "error": job.error,
    }
