"""``compliance consent``: record and show consent."""

import uuid
from datetime import datetime
from typing import Annotated

import typer

from compliance.consent.ledger import CONSENT, EVENTS
from compliance.datamap.subject import parse_subject_id
from compliance.mongo import driver_errors
from worker.cli.asking import RequestIdOption, WaitOption, enqueue, finish, wait_for
from worker.cli.person import SubjectArgument, find_person
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json, show_table

app = typer.Typer(
    help="Record consent (GDPR Art. 7) and show where it stands.",
    epilog="Example: compliance consent show 65f2c0ffee0000000000abcd",
)

TypeArgument = Annotated[str, typer.Argument(help="The purpose, such as MARKETING.")]
NoticeOption = Annotated[str | None, typer.Option(help="Version of the text that was shown.")]
OccurredOption = Annotated[
    str | None, typer.Option("--occurred-at", help="When, RFC 3339 with time zone; default now.")
]


@app.command(epilog="Example: compliance consent grant 65f2c0ffee0000000000abcd MARKETING --wait")
def grant(
    ctx: typer.Context,
    subject_id: SubjectArgument,
    type_: TypeArgument,
    occurred_at: OccurredOption = None,
    notice: NoticeOption = None,
    wait: WaitOption = False,
    request_id: RequestIdOption = None,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Record that a person agrees."""
    values = {"subject_id": subject_id, "type": type_, "granted": True, "notice": notice}
    _record(ctx, values, occurred_at, request_id, wait=wait, env=env, json=json)


@app.command(epilog="Example: compliance consent withdraw 65f2c0ffee0000000000abcd MARKETING --wait")
def withdraw(
    ctx: typer.Context,
    subject_id: SubjectArgument,
    type_: TypeArgument,
    occurred_at: OccurredOption = None,
    notice: NoticeOption = None,
    wait: WaitOption = False,
    request_id: RequestIdOption = None,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Record that a person no longer agrees."""
    values = {"subject_id": subject_id, "type": type_, "granted": False, "notice": notice}
    _record(ctx, values, occurred_at, request_id, wait=wait, env=env, json=json)


@app.command(epilog="Example: compliance consent show 65f2c0ffee0000000000abcd")
def show(ctx: typer.Context, subject_id: SubjectArgument, env: EnvOption = None, json: JsonOption = False) -> None:
    """Show the current state of every purpose, and every event."""
    with runtime(ctx).services(profile=env) as services, driver_errors():
        person = find_person(services, parse_subject_id(subject_id, services.data_map))
        mine = {"user_id": {"$in": [] if person.key is None else [person.key]}}
        current = list(services.databases.app[CONSENT].find(mine, {"_id": 0, "user_id": 0}))
        query, hidden = {"subject_id": {"$in": list(person.names)}}, {"subject_id": 0}
        events = list(services.databases.compliance[EVENTS].find(query, hidden, sort={"occurred_at": 1}))
    if json:
        show_json({"current": current, "events": events})
        return
    rows = ((item["type"], "granted" if item["granted"] else "withdrawn", item["timestamp"]) for item in current)
    show_table(("purpose", "state", "since"), rows, empty="no consent is recorded")


def _record(
    ctx: typer.Context,
    values: dict[str, object],
    occurred_at: str | None,
    request_id: str | None,
    *,
    wait: bool,
    env: str | None,
    json: bool,
) -> None:
    with runtime(ctx).services(profile=env) as services:
        moment: datetime | str = occurred_at or services.clock.now()
        event_id = f"cli-{uuid.uuid4()}"
        given = {**values, "event_id": event_id, "occurred_at": moment}
        job = enqueue(services, "consent.update", given, request_id=request_id or event_id)
        finish(wait_for(services, job) if wait else job, as_json=json)
