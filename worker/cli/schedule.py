"""``compliance schedule``: what is asked for without anybody asking."""

from datetime import datetime
from typing import Any

import typer

from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json, show_table
from worker.due import Standing, find_standings, slot_request_id
from worker.schedule import Schedule, load_schedules
from worker.services import Services

app = typer.Typer(help="See the schedules.", epilog="Example: compliance schedule list")


@app.command("list", epilog="Example: compliance schedule list --json")
def list_(ctx: typer.Context, env: EnvOption = None, json: JsonOption = False) -> None:
    """List the schedules: when, the next run, and what became of the last one."""
    with runtime(ctx).services(profile=env) as services:
        schedules = load_schedules(services.settings.schedules)
        standings, now = find_standings(schedules, services.databases), services.databases.server_time()
        listed = [_describe(schedule, standings.get(schedule.name), services, now=now) for schedule in schedules]
    if json:
        show_json(listed)
        return
    rows = (
        (
            item["name"],
            item["when"],
            item["next_run"] if item["enabled"] else "disabled",
            item["last_slot"],
            item["last_job"]["state"] if item["last_job"] else "",
        )
        for item in listed
    )
    show_table(("name", "when", "next run", "last slot", "last job"), rows, empty="no schedules")


def _describe(schedule: Schedule, standing: Standing | None, services: Services, *, now: datetime) -> dict[str, Any]:
    last_slot = standing.last_slot if standing else None
    job = services.ledger.find(slot_request_id(schedule, last_slot)) if last_slot else None
    return {
        "name": schedule.name,
        "description": schedule.description,
        "when": str(schedule.when),
        "task": schedule.task,
        "priority": schedule.priority,
        "enabled": schedule.enabled,
        "next_run": schedule.when.next(now) if schedule.enabled else None,
        "last_slot": last_slot,
        "last_job": {"request_id": job.request_id, "state": job.state.value} if job else None,
    }
