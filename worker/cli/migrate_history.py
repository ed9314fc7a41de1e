"""``compliance migrate list``, ``history`` and ``show``: what there is, and what became of it; nothing is changed."""

import ast
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from compliance.mongo import Document
from compliance.roles import Role
from migrations.migrate import build_runner
from migrations.plan import find_one
from migrations.revision import parse
from migrations.runner import Runner
from migrations.standing import Standing, standings
from worker.cli.following import followed
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_fields, show_json, show_table

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A migration: 001, 004_pre or a full name.")]


@contextmanager
def open_runner(ctx: typer.Context, profile: str | None) -> Iterator[Runner]:
    """Open the runner of the settings, as the migrator, for the block."""
    with runtime(ctx).services(Role.MIGRATOR, profile=profile) as services, followed() as follow:
        yield build_runner(
            services.settings,
            services.databases,
            actor=runtime(ctx).actor(services.settings),
            report=_report,
            follow=follow,
            pseudonyms=services.pseudonyms,
        )


def list_(ctx: typer.Context, env: EnvOption = None, json: JsonOption = False) -> None:
    """List every migration, in the order in which they run, with its state and who ran it last."""
    with open_runner(ctx, env) as runner:
        found = standings(runner.scripts())
    if json:
        show_json([describe(standing) for standing in found])
    else:
        show_standings(found)


def history(ctx: typer.Context, env: EnvOption = None, json: JsonOption = False) -> None:
    """List every event of the history, oldest first."""
    with open_runner(ctx, env) as runner:
        events = runner.history.events()
    if json:
        show_json([{name: value for name, value in event.items() if name != "_id"} for event in events])
        return
    rows = ((event["at"], event["event"], event["revision"], event["by"], event.get("reason")) for event in events)
    show_table(("at", "event", "migration", "by", "reason"), rows, empty="no migration was ever run")


def show(ctx: typer.Context, name: NameArgument, env: EnvOption = None, json: JsonOption = False) -> None:
    """Show one migration: what it says of itself, its state, its events and the steps that were carried out."""
    with open_runner(ctx, env) as runner:
        scripts = runner.scripts()
        wanted = find_one(scripts.graph(), name).name
        (standing,) = (one for one in standings(scripts) if one.revision.name == wanted)
        events = [event for event in runner.history.events() if event["revision"] == wanted]
        steps = runner.history.steps(wanted)
    told = describe(standing) | {
        "docstring": _docstring(standing),
        "irreversible": standing.revision.irreversible,
        "events": [{name: event[name] for name in ("event", "by", "at")} for event in events],
        "steps": [_describe_step(step) for step in steps],
    }
    if json:
        show_json(told)
        return
    show_fields(
        {name: value for name, value in told.items() if name not in ("summary", "docstring", "events", "steps")}
    )
    sys.stdout.write(f"\n{told['docstring']}\n\n")
    show_table(
        ("at", "event", "by"), [(one["at"], one["event"], one["by"]) for one in events], empty="it was never run"
    )
    rows = [(step["number"], step["kind"], step["what"], step["at"]) for step in told["steps"]]
    if rows:
        sys.stdout.write("\n")
        show_table(("step", "kind", "what", "at"), rows, empty="")


def describe(standing: Standing) -> dict[str, Any]:
    """Return *standing* as commands show it."""
    revision = standing.revision
    return {
        "name": revision.name,
        "state": standing.state.value,
        "phase": revision.phase.name.lower(),
        "summary": revision.summary,
        "depends_on": list(standing.depends_on),
        "checksum": revision.checksum,
        "by": standing.by,
        "at": standing.at,
    }


def show_standings(found: list[Standing]) -> None:
    """Print a table of migrations."""
    rows = [(one.revision.name, one.state.value, one.by, one.at, one.revision.summary) for one in found]
    show_table(("migration", "state", "by", "at", "what it does"), rows, empty="the migrations folder is empty")


def _docstring(standing: Standing) -> str:
    text = ast.get_docstring(parse(standing.revision.source.decode())) if standing.revision.source else None
    return inspect.cleandoc(text or "its text is not known")


def _describe_step(step: Document) -> dict[str, Any]:
    return {"number": step["_id"]["number"]} | {name: step[name] for name in ("kind", "what", "by", "at")}


def _report(line: str) -> None:
    sys.stderr.write(f"{line}\n")
