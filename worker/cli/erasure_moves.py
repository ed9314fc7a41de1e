"""``compliance erasure extend|withdraw|replan``: what an officer does with a request that is open."""

import sys
from typing import Annotated

import typer

from compliance.erasure.deadline import Reason
from compliance.erasure.extension import extend as extend_request
from compliance.erasure.progress import documents_changed
from compliance.erasure.request import Requests
from compliance.erasure.stage import BEGUN, NEXT, Stage
from compliance.errors import InvalidPayload, UnknownName
from compliance.jobs.job import Ask, Job, State
from compliance.period import ONE_MONTH
from worker import desk
from worker.cli.erasure_holds import BY_HAND
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json
from worker.services import Services

IdArgument = Annotated[str, typer.Argument(help="The id of the request.")]


def extend(
    ctx: typer.Context,
    request_id: IdArgument,
    reason: Annotated[Reason, typer.Option(help="Why, as GDPR Art. 12(3) knows it.")],
    months: Annotated[int, typer.Option(min=1, max=2, help="How many months beyond the first.")] = 2,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Extend the time for the answer, within the first month only; the person must be told, with the reasons."""
    with runtime(ctx).services(profile=env) as services:
        due = extend_request(
            services.databases,
            request_id,
            months=months,
            reason=reason,
            now=services.clock.now(),
            actor=runtime(ctx).actor(services.settings),
            log=services.log.caused_by(BY_HAND),
        )
        received = Requests(services.databases).get(request_id)["received_at"]
    told_by = ONE_MONTH.after(received)
    if json:
        show_json({"request": request_id, "due_at": due, "reason": reason.value, "tell_by": told_by})
        return
    sys.stdout.write(f"due {due:%Y-%m-%d}: {request_id}; tell the person why before {told_by:%Y-%m-%d}\n")


def withdraw(ctx: typer.Context, request_id: IdArgument, env: EnvOption = None, json: JsonOption = False) -> None:
    """Take a request back. Before it is executed nothing was touched; later, what was erased stays erased."""
    with runtime(ctx).services(profile=env) as services:
        before, job = _open_request(services, request_id)
        at_once = desk.ask(job, Ask.CANCEL, services, actor=runtime(ctx).actor(services.settings))
        after = services.ledger.find(request_id)
    done = documents_changed((after or job).checkpoint)
    if json:
        show_json({"request": request_id, "state": "withdrawn" if at_once else "asked", "documents": done})
        return
    if not at_once:
        said = f"asked; it ends at its next batch, done in part: {done} documents so far"
    elif before in BEGUN and done:
        said = f"withdrawn, done in part: {done} documents were changed, and stay so"
    else:
        said = "withdrawn; nothing was touched"
    sys.stdout.write(f"{said}: {request_id}\n")


def replan(ctx: typer.Context, request_id: IdArgument, env: EnvOption = None, json: JsonOption = False) -> None:
    """Plan a parked request anew with the data map of today, and go on."""
    with runtime(ctx).services(profile=env) as services:
        _, job = _open_request(services, request_id)
        if job.state is not State.PARKED:
            raise InvalidPayload(f"job {request_id} is {job.state.value}; a parked one is planned anew")
        services.databases.transact(
            lambda session: Requests(services.databases).ask_replan(request_id, session=session)
        )
        desk.retry(job, services, actor=runtime(ctx).actor(services.settings))
    if json:
        show_json({"request": request_id, "state": "queued"})
        return
    sys.stdout.write(f"planned anew by the next worker: {request_id}\n")


def _open_request(services: Services, request_id: str) -> tuple[Stage, Job]:
    stage, job = Stage(Requests(services.databases).get(request_id)["state"]), services.ledger.find(request_id)
    if stage not in NEXT:
        raise InvalidPayload(f"erasure request {request_id} is {stage.value}: there is nothing left to change")
    if job is None:
        raise UnknownName(f"there is no job {request_id!r}; it was removed when it was old")
    return stage, job
