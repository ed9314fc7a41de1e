"""``compliance retention``: what is too old for every purpose of the data map, and its removal."""

import sys
from dataclasses import asdict
from typing import Any

import typer

from compliance.retention.plan import Planned, plan_retention
from worker.cli.asking import RequestIdOption, WaitOption, enqueue, finish, wait_for
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json, show_table

app = typer.Typer(
    help="See and remove what no purpose needs any more (GDPR Art. 5(1)(e)).",
    epilog="Example: compliance retention plan",
)


@app.command(epilog="Example: compliance retention plan --json")
def plan(ctx: typer.Context, env: EnvOption = None, json: JsonOption = False) -> None:
    """Show what a sweep would remove now, by collection; nothing is changed."""
    with runtime(ctx).services(profile=env) as services:
        now = services.databases.server_time()
        planned = plan_retention(services.databases, services.data_map, now=now, pseudonyms=services.pseudonyms)
    if json:
        show_json([_describe(one) for one in planned])
        return
    rows = ((one.collection, "; ".join(one.rules), one.documents, one.held, one.oldest, one.index) for one in planned)
    empty = "the data map states no retention for any collection that is there"
    show_table(("collection", "rule", "documents", "held", "oldest", "index"), rows, empty=empty)
    for problem in (problem for one in planned for problem in one.problems):
        sys.stderr.write(f"{problem}\n")


@app.command(epilog="Example: compliance retention run --wait")
def run(
    ctx: typer.Context,
    wait: WaitOption = False,
    request_id: RequestIdOption = None,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Ask for a sweep now; a worker carries it out, as it does every night."""
    with runtime(ctx).services(profile=env) as services:
        job = enqueue(services, "retention.sweep", {}, request_id=request_id)
        finish(wait_for(services, job) if wait else job, as_json=json)


def _describe(planned: Planned) -> dict[str, Any]:
    return {**asdict(planned), "problems": list(planned.problems)}
