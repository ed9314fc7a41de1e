"""``compliance erasure recipients | acknowledge``: who was told of an erasure, and what they answered."""

import sys
from typing import Annotated

import typer

from compliance.audit.entry import Cause
from compliance.erasure.notices import Notices, Standing, check_reference
from compliance.errors import UnknownName
from compliance.mongo import Session
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json, show_table

RequestArgument = Annotated[str, typer.Argument(help="The id of the request.")]


def recipients(
    ctx: typer.Context, request_id: RequestArgument, env: EnvOption = None, json: JsonOption = False
) -> None:
    """Show who was told of a completed erasure (GDPR Art. 19), and who has erased the person, too."""
    with runtime(ctx).services(profile=env) as services:
        found = services.databases.compliance["erasure_requests"].find_one({"_id": request_id}, {"notices": 1})
    if found is None:
        raise UnknownName(f"no erasure request {request_id!r} was accepted")
    notices = found.get("notices", [])
    if json:
        show_json(notices)
        return
    columns = ("recipient", "protocol", "state", "told_at", "acknowledged_at", "by", "reference")
    rows = (tuple(notice[name] for name in columns) for notice in notices)
    show_table(columns, rows, empty="nobody is to be told, or the erasure is not completed")


def acknowledge(
    ctx: typer.Context,
    request_id: RequestArgument,
    recipient: Annotated[str, typer.Argument(help="Its id in the data map.")],
    reference: Annotated[str | None, typer.Option(help="The id of the case or ticket with its answer.")] = None,
    env: EnvOption = None,
) -> None:
    """Note that a recipient has erased the person, where it says so to a person and not to a process."""
    said = check_reference(reference) if reference is not None else None
    with runtime(ctx).services(profile=env) as services:
        notices, actor = Notices(services.databases), runtime(ctx).actor(services.settings)
        request, _ = notices.find(request_id, recipient)
        log = services.log.caused_by(Cause(channel="cli"))

        def transaction(session: Session) -> bool:
            entry = notices.move(
                request,
                recipient,
                Standing.ACKNOWLEDGED,
                by=actor,
                now=services.clock.now(),
                session=session,
                reference=said,
            )
            if entry is not None:
                log.append(entry, session=session)
            return entry is not None

        is_new = services.databases.transact(transaction)
    sys.stdout.write(f"{recipient}: {'acknowledged' if is_new else 'was acknowledged before; nothing was changed'}\n")
