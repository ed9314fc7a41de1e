"""``compliance jobs``: the ledger of jobs."""

import sys
from typing import Annotated

import typer

from compliance.audit.entry import Entry
from compliance.errors import UnknownName
from compliance.jobs.job import Job, State
from compliance.mongo import Session
from worker.cli.runtime import (
    EnvOption,
    JsonOption,
    describe,
    runtime,
    show_fields,
    show_json,
    show_table,
)
from worker.services import Services

app = typer.Typer(
    help="List jobs, look at one, try a parked one again.", epilog="Example: compliance jobs list --state parked"
)

IdArgument = Annotated[str, typer.Argument(help="The request id.")]


@app.command("list", epilog="Example: compliance jobs list --state parked")
def list_(
    ctx: typer.Context,
    state: Annotated[State | None, typer.Option(help="Only this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """List the newest jobs."""
    with runtime(ctx).services(profile=env) as services:
        found = list(services.ledger.list(state=state, limit=limit))
    if json:
        show_json([describe(job) for job in found])
        return
    rows = (
        (job.request_id, job.kind, job.state.value, job.created_at, job.error["code"] if job.error else "")
        for job in found
    )
    show_table(("request", "kind", "state", "created", "error"), rows, empty="no jobs")


@app.command(epilog="Example: compliance jobs show cli-7f3c")
def show(ctx: typer.Context, request_id: IdArgument, env: EnvOption = None, json: JsonOption = False) -> None:
    """Show one job."""
    with runtime(ctx).services(profile=env) as services:
        job = _get(services, request_id)
    if json:
        show_json(describe(job))
    else:
        show_fields(describe(job))


@app.command(epilog="Example: compliance jobs retry cli-7f3c")
def retry(ctx: typer.Context, request_id: IdArgument, env: EnvOption = None) -> None:
    """Queue a parked job again; it goes on from its checkpoint."""
    with runtime(ctx).services(profile=env) as services:
        job = _get(services, request_id)
        entry = Entry(
            event=f"{request_id}#retry#{job.fence}",
            entity_type="job",
            entity_id=request_id.replace("@", "(at)"),
            action="job.retried",
            created_at=services.clock.now(),
            performed_by="cli",
            request_id=request_id,
        )

        def effect(session: Session) -> None:
            services.ledger.retry(job.request_id, session=session)
            services.log.append(entry, session=session)

        services.databases.transact(effect)
        services.publish(job)
    sys.stdout.write(f"queued again: {request_id}\n")


def _get(services: Services, request_id: str) -> Job:
    job = services.ledger.find(request_id)
    if job is None:
        raise UnknownName(f"there is no job {request_id!r}")
    return job
