"""``compliance migrate online``: a change of shape while two versions of an application write."""

import sys
from typing import Annotated, Any

import typer

from compliance.errors import ExitCode, UnknownName
from compliance.mongo import Databases
from migrations.online import state
from migrations.online.follow import ask_to_settle, wait_until_settled
from migrations.online.shape import Shape, Side
from migrations.online.verify import find_disagreeing
from migrations.plan import find_one, find_open
from migrations.revision import Revision
from migrations.runner import Runner
from migrations.standing import State, standings
from migrations.wish import Wish
from worker.cli.migrate_history import open_runner
from worker.cli.runtime import EnvOption, JsonOption, show_fields, show_json

app = typer.Typer(
    help="Change the shape of documents while the old and the new application write.",
    epilog="Example: compliance migrate online start 007",
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="An online change: 007, 007_data or a full name.")]
KeepOption = Annotated[Side, typer.Option("--keep", help="The shape that counts.")]


@app.command(epilog="Example: compliance migrate online start 007")
def start(ctx: typer.Context, name: NameArgument, env: EnvOption = None, json: JsonOption = False) -> None:
    """Let both shapes be there, fill the new one, and keep them in step; the new application may come then."""
    with open_runner(ctx, env) as runner:
        revision = _get_online(runner, name)
        runner.up(wish=Wish(only=revision.name))
        _show(runner, revision, as_json=json)


@app.command(epilog="Example: compliance migrate online status 007")
def status(ctx: typer.Context, name: NameArgument, env: EnvOption = None, json: JsonOption = False) -> None:
    """Show how far the change is, and who keeps the shapes in step; exit 3 when nobody does, or documents disagree."""
    with open_runner(ctx, env) as runner:
        is_well = _show(runner, _get_online(runner, name), as_json=json)
    if not is_well:
        raise typer.Exit(int(ExitCode.NOT_AS_IT_SHOULD_BE))


@app.command(epilog="Example: compliance migrate online complete 007")
def complete(ctx: typer.Context, name: NameArgument, env: EnvOption = None, json: JsonOption = False) -> None:
    """Remove the old shape, once both agree on every document; the old application must be gone."""
    with open_runner(ctx, env) as runner:
        revision = runner.complete(name)
        _show(runner, revision, as_json=json)


@app.command(epilog="Example: compliance migrate online rollback 007")
def rollback(ctx: typer.Context, name: NameArgument, env: EnvOption = None, json: JsonOption = False) -> None:
    """Remove the new shape; what the new application wrote is in the old one. Until `complete` only."""
    with open_runner(ctx, env) as runner:
        revision = _get_online(runner, name)
        runner.rollback(revision.name)
        _show(runner, revision, as_json=json)


@app.command(epilog="Example: compliance migrate online settle 007 --keep new")
def settle(ctx: typer.Context, name: NameArgument, keep: KeepOption, env: EnvOption = None) -> None:
    """Say which shape counts where nobody knows which was written last; what is written meanwhile counts more."""
    with open_runner(ctx, env) as runner:
        revision = find_open(runner.scripts(), name)
        request = ask_to_settle(runner.databases, revision.name, keep=keep, by=runner.actor, clock=runner.clock)
        with runner.following(revision):
            wait_until_settled(runner.databases, revision.name, request, clock=runner.clock)
    sys.stdout.write(f"settled: the {keep} shape counts where both were there and did not agree\n")


def _get_online(runner: Runner, name: str) -> Revision:
    revision = find_one(runner.scripts().graph(), name)
    if not revision.is_online:
        raise UnknownName(f"{revision.name} is no online change: it declares no CHANGE")
    return revision


def _show(runner: Runner, revision: Revision, *, as_json: bool) -> bool:
    """Print how *revision* stands; return whether that is well."""
    (standing,) = (one for one in standings(runner.scripts()) if one.revision.name == revision.name)
    change = revision.load().change
    is_open = revision.name in runner.history.past().open
    told: dict[str, Any] = {"name": revision.name, "state": standing.state.value}
    if is_open and change is not None:
        is_leaving = standing.state in (State.COMPLETING, State.REVERTING)
        told |= _follow_up(runner.databases, revision.name, change, is_leaving=is_leaving)
    if as_json:
        show_json(told)
    else:
        show_fields({name: str(value) if value == 0 else value for name, value in told.items()})
    return not is_open or bool(
        told["kept_in_step_by"] and told["doing"] != state.Doing.AWAITING and not told["disagree"]
    )


def _follow_up(databases: Databases, name: str, change: Shape, *, is_leaving: bool) -> dict[str, Any]:
    found = state.standing_of(databases, name)
    disagreeing = find_disagreeing(databases, change, is_leaving=is_leaving)
    return {
        "collection": change.collection,
        "old": list(change.old),
        "new": list(change.new),
        "kept_in_step_by": found.owner,
        "doing": found.doing.value,
        "behind_seconds": round(found.lag.total_seconds(), 1) if found.lag is not None else None,
        "writes": found.writes,
        "history_lost": found.lost,
        "disagree": disagreeing.number if disagreeing else 0,
    }
