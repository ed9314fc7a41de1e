"""``compliance audit``: read and verify the audit log."""

import sys
from typing import Annotated

import typer
from bson import ObjectId

from compliance.audit.entry import EntityId
from compliance.audit.verify import verify
from compliance.errors import ExitCode, InvalidPayload
from compliance.roles import Role
from worker.cli.runtime import EnvOption, JsonOption, plain, runtime, show_json, show_table

app = typer.Typer(
    help="Read the audit log, and verify that nobody changed it.", epilog="Example: compliance audit verify"
)


@app.command(epilog="Example: compliance audit show --entity user:65f2c0ffee0000000000abcd")
def show(
    ctx: typer.Context,
    entity: Annotated[str | None, typer.Option(metavar="TYPE:ID", help="Entries about one entity.")] = None,
    request: Annotated[str | None, typer.Option(metavar="ID", help="Entries that one request caused.")] = None,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Show entries, oldest first."""
    if (entity is None) == (request is None):
        raise InvalidPayload("give either --entity TYPE:ID or --request ID")
    with runtime(ctx).services(Role.AUDITOR, profile=env) as services:
        log = services.log
        found = list(log.of_request(str(request)) if entity is None else log.about(*_entity(entity)))
    if json:
        show_json(found)
        return
    rows = ((item["created_at"], item["action"], item["outcome"], plain(item["details"])) for item in found)
    show_table(("when", "action", "outcome", "details"), rows, empty="no entries")


@app.command("verify", epilog="Example: compliance audit verify")
def verify_(ctx: typer.Context, env: EnvOption = None, json: JsonOption = False) -> None:
    """Recompute every entry; exit 4 when one is not what was recorded."""
    with runtime(ctx).services(Role.AUDITOR, profile=env) as services:
        report = verify(services.log.all(), services.trust)
    if json:
        show_json({"entries": report.entries, "findings": list(report.findings)})
    else:
        lines = (*report.findings, f"{report.entries} entries, {len(report.findings)} findings")
        sys.stdout.write("\n".join(lines) + "\n")
    if not report.is_ok:
        raise typer.Exit(int(ExitCode.INTEGRITY))


def _entity(text: str) -> tuple[str, EntityId]:
    kind, colon, name = text.partition(":")
    if not colon or not kind or not name:
        raise InvalidPayload("--entity: expected TYPE:ID, such as user:65f2c0ffee0000000000abcd")
    return kind, ObjectId(name) if ObjectId.is_valid(name) else name
