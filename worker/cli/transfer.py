"""``compliance export`` and ``compliance import``."""

from typing import Annotated

import typer

from worker.cli.asking import RequestIdOption, WaitOption, enqueue, finish, wait_for
from worker.cli.runtime import EnvOption, JsonOption, runtime


def export(
    ctx: typer.Context,
    collection: Annotated[str | None, typer.Option(help="A whole collection.")] = None,
    subject: Annotated[str | None, typer.Option(help="Everything about this person (access package).")] = None,
    package: Annotated[str | None, typer.Option(help="Name of the folder to write.")] = None,
    wait: WaitOption = False,
    request_id: RequestIdOption = None,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Export a collection, or everything about one person, to files in COMPLIANCE_TRANSFER_DIR."""
    values = {"collection": collection, "subject_id": subject, "package": package}
    with runtime(ctx).services(profile=env) as services:
        job = enqueue(services, "export.run", values, request_id=request_id)
        finish(wait_for(services, job) if wait else job, as_json=json)


def import_(
    ctx: typer.Context,
    package: Annotated[str, typer.Argument(help="A folder of COMPLIANCE_TRANSFER_DIR that an export wrote.")],
    collection: Annotated[str, typer.Option(help="Which collection of the package.")],
    wait: WaitOption = False,
    request_id: RequestIdOption = None,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Import one collection of a package; looks at every line before it writes the first."""
    with runtime(ctx).services(profile=env) as services:
        job = enqueue(services, "import.run", {"package": package, "collection": collection}, request_id=request_id)
        finish(wait_for(services, job) if wait else job, as_json=json)
