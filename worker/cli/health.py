"""``compliance health``: run checks and read what they found."""

from typing import Annotated

import typer

from compliance.errors import ExitCode
from compliance.health import CHECKS, Status
from compliance.health.report import HEALTH_CHECKS
from compliance.mongo import Document, driver_errors
from worker.cli.asking import RequestIdOption, enqueue, finish, wait_for
from worker.cli.runtime import EnvOption, JsonOption, plain, runtime, show_json, show_table
from worker.services import Services

INTEGRITY_CHECKS = {"audit_log_intact", "no_residual"}

app = typer.Typer(
    help="Check that what was promised is true.", epilog="Example: compliance health run declared_indexes"
)


@app.command(epilog="Example: compliance health run no_residual --subject 65f2c0ffee0000000000abcd")
def run(
    ctx: typer.Context,
    checks: Annotated[
        list[str] | None, typer.Argument(help=f"Which checks; all when none: {', '.join(CHECKS)}.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Look at one person only.")] = None,
    request_id: RequestIdOption = None,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Run checks on a worker and wait; exit 3 when one finds something, 4 when integrity is at stake."""
    for name in checks or ():
        CHECKS[name]
    with runtime(ctx).services(profile=env) as services:
        values = {"checks": checks or [], "subject_id": subject}
        job = wait_for(services, enqueue(services, "health.check", values, request_id=request_id))
        if job.result is None:
            finish(job, as_json=json)
        found = _found(services, {"request_id": job.request_id}, limit=100)
    _show(found, as_json=json)
    wrong = {item["check"] for item in found if item["status"] != Status.OK.value}
    if wrong:
        code = ExitCode.INTEGRITY if wrong & INTEGRITY_CHECKS else ExitCode.NOT_AS_IT_SHOULD_BE
        raise typer.Exit(int(code))


@app.command("list", epilog="Example: compliance health list --limit 5")
def list_(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """List the newest results."""
    with runtime(ctx).services(profile=env) as services:
        found = _found(services, {}, limit=limit)
    _show(found, as_json=json)


def _found(services: Services, query: Document, *, limit: int) -> list[Document]:
    with driver_errors():
        return list(services.databases.compliance[HEALTH_CHECKS].find(query, sort={"checked_at": -1}, limit=limit))


def _show(found: list[Document], *, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    rows = (
        (item["checked_at"], item["check"], item["status"], item["cause"], plain(item["problems"])) for item in found
    )
    show_table(("when", "check", "status", "cause", "problems"), rows, empty="no check has run yet")
