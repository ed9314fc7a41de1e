"""``compliance jobs``: the ledger of jobs."""

import sys
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from compliance.errors import UnknownName
from compliance.jobs.desk import Desk
from compliance.jobs.job import Ask, Job, State
from worker import desk
from worker.cli.asking import describe
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_fields, show_json, show_table
from worker.job import progress_text
from worker.refusal import UNKNOWN
from worker.services import Services
from worker.tasks import JOBS

app = typer.Typer(
    help="List and count jobs, look at one, cancel, park, try again.",
    epilog="Example: compliance jobs list --state parked",
)

IdArgument = Annotated[str, typer.Argument(help="The request id.")]


@app.command("list", epilog="Example: compliance jobs list --state parked")
def list_(
    ctx: typer.Context,
    state: Annotated[State | None, typer.Option(help="Only this state.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind, such as erasure.request.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """List the newest jobs."""
    if kind is not None and kind != UNKNOWN:
        kind = JOBS[kind].name  # refuses one that does not exist
    with runtime(ctx).services(profile=env) as services:
        found = list(Desk(services.ledger).newest(state=state, kind=kind, limit=limit))
    if json:
        show_json([describe(job) for job in found])
        return
    rows = (
        (job.request_id, job.kind, _standing(job), job.created_at, job.error["code"] if job.error else "")
        for job in found
    )
    show_table(("request", "kind", "state", "created", "error"), rows, empty="no jobs")


def _standing(job: Job) -> str:
    """Return the state of *job*, and of a running one how far it is and what a person asked of it."""
    if job.state is not State.RUNNING:
        return job.state.value
    asked = f"asked to {job.asked.value}" if job.asked else None
    return ", ".join(filter(None, (job.state.value, progress_text(job.checkpoint), asked)))


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
def retry(ctx: typer.Context, request_id: IdArgument, env: EnvOption = None, json: JsonOption = False) -> None:
    """Queue a parked job again; it goes on from its checkpoint."""
    with runtime(ctx).services(profile=env) as services:
        desk.retry(_get(services, request_id), services, actor=runtime(ctx).actor(services.settings))
        _say("queued again", _get(services, request_id), as_json=json)


@app.command(epilog="Example: compliance jobs cancel cli-7f3c")
def cancel(ctx: typer.Context, request_id: IdArgument, env: EnvOption = None, json: JsonOption = False) -> None:
    """End a job for good; what it has committed stays. A running one ends at its next batch."""
    _ask(ctx, request_id, Ask.CANCEL, env, as_json=json)


@app.command(epilog="Example: compliance jobs park cli-7f3c")
def park(ctx: typer.Context, request_id: IdArgument, env: EnvOption = None, json: JsonOption = False) -> None:
    """Pause a job until `compliance jobs retry`. A running one pauses at its next batch."""
    _ask(ctx, request_id, Ask.PARK, env, as_json=json)


@app.command(epilog="Example: compliance jobs stats")
def stats(
    ctx: typer.Context,
    hours: Annotated[int, typer.Option(min=1, max=8760, help="Finished within how many hours.")] = 24,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Count jobs by kind and state: all unfinished ones, and those that were finished lately."""
    with runtime(ctx).services(profile=env) as services:
        counted = Desk(services.ledger).stats(within=timedelta(hours=hours))
    if json:
        show_json([asdict(count) for count in counted])
        return
    rows = ((count.kind, count.state, count.jobs, count.oldest, count.deadline or "") for count in counted)
    show_table(("kind", "state", "jobs", "oldest", "first deadline"), rows, empty="no jobs")


def _ask(ctx: typer.Context, request_id: str, what: Ask, env: str | None, *, as_json: bool) -> None:
    with runtime(ctx).services(profile=env) as services:
        at_once = desk.ask(_get(services, request_id), what, services, actor=runtime(ctx).actor(services.settings))
        said = what.leads_to.value if at_once else f"asked to {what.value} at its next batch"
        _say(said, _get(services, request_id), as_json=as_json)


def _say(said: str, job: Job, *, as_json: bool) -> None:
    if as_json:
        show_json(describe(job))
    else:
        sys.stdout.write(f"{said}: {job.request_id}\n")


def _get(services: Services, request_id: str) -> Job:
    job = services.ledger.find(request_id)
    if job is None:
        raise UnknownName(f"there is no job {request_id!r}")
    return job
