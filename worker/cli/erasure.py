"""``compliance erasure``: ask for erasures, follow them, and hold them back."""

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from compliance.datamap.subject import parse_subject_id, to_text
from compliance.erasure.request import Requests
from compliance.erasure.stage import REQUESTS, Stage
from compliance.errors import UnknownName
from compliance.jobs.job import HIGHEST_PRIORITY
from compliance.mongo import driver_errors
from worker.cli.asking import RequestIdOption, WaitOption, enqueue, finish, wait_for
from worker.cli.erasure_certificate import certificate, verify_certificate_
from worker.cli.erasure_holds import hold, release
from worker.cli.erasure_moves import extend, replan, withdraw
from worker.cli.person import SubjectArgument
from worker.cli.recipients import acknowledge, recipients
from worker.cli.runtime import EnvOption, JsonOption, plain, runtime, show_fields, show_json, show_table

app = typer.Typer(
    help="Erase data subjects (GDPR Art. 17), follow requests, place and release legal holds.",
    epilog="Example: compliance erasure list",
)

app.command(epilog="Example: compliance erasure certificate cli-7f3c --out cli-7f3c.json")(certificate)
app.command("verify-certificate", epilog="Example: compliance erasure verify-certificate cli-7f3c.json --key VKEY")(
    verify_certificate_
)
app.command(epilog="Example: compliance erasure extend cli-7f3c --months 2 --reason complexity")(extend)
app.command(epilog="Example: compliance erasure withdraw cli-7f3c")(withdraw)
app.command(epilog="Example: compliance erasure replan cli-7f3c")(replan)
app.command(epilog="Example: compliance erasure hold 65f2c0ffee0000000000abcd --case C-2026-17 --until 2027-06-30")(
    hold
)
app.command(epilog="Example: compliance erasure release 65f2c0ffee0000000000abcd --case C-17")(release)


@app.command(epilog="Example: compliance erasure request 65f2c0ffee0000000000abcd --dry-run --wait")
def request(
    ctx: typer.Context,
    subject_id: SubjectArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, erase nothing.")] = False,
    priority: Annotated[
        int | None, typer.Option(min=0, max=HIGHEST_PRIORITY, help="A higher one goes first; 5 where absent.")
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When it should be done, RFC 3339 with time zone; else in a calendar month."),
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option(metavar="PERIOD", help="How long to wait after the plan, such as P3D; else the setting."),
    ] = None,
    wait: WaitOption = False,
    request_id: RequestIdOption = None,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Ask for the erasure of one person; a worker carries it out."""
    with runtime(ctx).services(profile=env) as services:
        parse_subject_id(subject_id, services.data_map)
        values: dict[str, Any] = {"subject_id": subject_id, "dry_run": dry_run, "grace": grace}
        values |= {"priority": priority, "deadline": deadline}
        job = enqueue(services, "erasure.request", values, request_id=request_id)
        finish(wait_for(services, job) if wait else job, as_json=json)


@app.command(epilog="Example: compliance erasure show cli-7f3c")
def show(
    ctx: typer.Context,
    request_id: Annotated[str, typer.Argument(help="The id of the request.")],
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Show a request: its plan, what was done, what was kept and why, and its deadline."""
    with runtime(ctx).services(profile=env) as services, driver_errors():
        found = services.databases.compliance[REQUESTS].find_one({"_id": request_id})
        job, data_map = services.ledger.find(request_id), services.data_map
    if found is None:
        why = f"; its job is {job.state.value}: {job.error['message']}" if job and job.error else ""
        raise UnknownName(f"no erasure request {request_id!r} was accepted{why}")
    if json:
        show_json(found)
        return
    found["subject_id"] = to_text(found["subject_id"])
    shown = ("_id", "subject_id", "state", "received_at", "due_at", "completed_at", "residual", "reason")
    more = ("grace_until", "extension", "earlier", "rest", "rest_of")
    show_fields(
        {name.strip("_"): found.get(name) for name in shown} | {name: found[name] for name in more if name in found}
    )
    sys.stdout.write("\n")
    steps = ((step["collection"], step["action"], step["documents"]) for step in found["plan"])
    show_table(("collection", "action", "planned"), steps, empty="nothing planned")
    for kept in found["kept"]:
        sys.stdout.write(f"kept in {kept['collection']}: {plain(kept['fields'])} ({kept['ground']}: {kept['why']})\n")
    for held in found.get("held", ()):
        sys.stdout.write(f"held: {_held(held)}\n")
    for elsewhere in data_map.kept_elsewhere:
        sys.stdout.write(f"kept beside them: {plain(elsewhere.fields)} ({elsewhere.ground}: {elsewhere.why})\n")
    for recipient in data_map.recipients:
        sys.stdout.write(f"to be told: {recipient.id}, which holds {recipient.holds}\n")
    for notice in found.get("notices", ()):
        sys.stdout.write(f"recipient {notice['recipient']}: {notice['state']}\n")


def _held(held: Mapping[str, Any]) -> str:
    what = ".".join(name for name in (held["collection"], held["field"]) if name) or "everything"
    until = f"until {held['until']:%Y-%m-%d}" if held["until"] else "until it is released"
    return f"{what} by case {held['case']} {until}; the rest goes on by itself then"


@app.command("list", epilog="Example: compliance erasure list --overdue")
def list_(
    ctx: typer.Context,
    state: Annotated[Stage | None, typer.Option(help="Only this state.")] = None,
    overdue: Annotated[
        bool, typer.Option("--overdue", help="Only open ones past their due date, first due first.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """List the newest requests with their deadlines."""
    with runtime(ctx).services(profile=env) as services:
        found = Requests(services.databases).listed(state=state, overdue=overdue, limit=limit)
    if json:
        show_json(found)
        return
    rows = ((item["_id"], to_text(item["subject_id"]), item["state"], item["due_at"]) for item in found)
    show_table(("request", "subject", "state", "due"), rows, empty="no erasure was requested")


app.command(epilog="Example: compliance erasure recipients cli-7f3c")(recipients)
app.command(epilog="Example: compliance erasure acknowledge cli-7f3c crm --reference CRM-1234")(acknowledge)
