"""``compliance migrate``: apply, undo and list migrations."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated

import typer

from compliance.errors import ComplianceError, ExitCode
from compliance.settings import Settings
from migrations.progress import progress_of
from migrations.refused import find_abandoned
from migrations.revision import Revision
from migrations.standing import standings
from migrations.wish import Wish
from worker.alert import alert_emergency
from worker.cli.lint import lint
from worker.cli.migrate_aside import approve, retry
from worker.cli.migrate_folder import heads, new, sum_
from worker.cli.migrate_history import describe, history, list_, open_runner, show, show_standings
from worker.cli.migrate_online import app as online
from worker.cli.migrate_plan import plan, show_preview
from worker.cli.migrate_promote import attest, promote
from worker.cli.migrate_rehearse import rehearse_
from worker.cli.migrate_throttle import throttle
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json, show_table
from worker.telemetry import configure_sentry

app = typer.Typer(help="Apply, undo, list and check migrations.", epilog="Example: compliance migrate up --dry-run")
app.command(epilog="Example: compliance migrate approve contract --reason released")(approve)
app.command(epilog="Example: compliance migrate retry")(retry)
app.command(epilog="Example: compliance migrate plan --to 004")(plan)
app.command("rehearse", epilog="Example: compliance migrate rehearse --documents 5000")(rehearse_)
app.command(epilog="Example: compliance migrate throttle --max-lag 5")(throttle)
app.command(epilog="Example: compliance migrate attest --out staging.note")(attest)
app.command(epilog="Example: compliance migrate promote staging.note")(promote)
app.command("lint", epilog="Example: compliance migrate lint --since origin/main --sarif lint.sarif")(lint)
app.command("list", epilog="Example: compliance migrate list --json")(list_)
app.command("show", epilog="Example: compliance migrate show 004_post")(show)
app.command("history", epilog="Example: compliance migrate history --json")(history)
app.command("heads", epilog="Example: compliance migrate heads")(heads)
app.command("new", epilog="Example: compliance migrate new subscription_type --phase data")(new)
app.command("sum", epilog="Example: compliance migrate sum")(sum_)
app.add_typer(online, name="online", no_args_is_help=True)

TargetArgument = Annotated[str, typer.Argument(help="Stop at this migration: 004, 004_pre, a full name; or zero.")]
ToOption = Annotated[str | None, typer.Option("--to", help="Stop at this migration: 004, 004_pre or a full name.")]
OnlyOption = Annotated[str | None, typer.Option("--only", metavar="NAME", help="Apply this migration alone.")]
LateOption = Annotated[
    list[str] | None,
    typer.Option("--allow-late", metavar="NAME", help="Let this one run after one that depends on it; audited."),
]
EmergencyOption = Annotated[
    str | None, typer.Option("--emergency", metavar="REASON", help="Run what is not promoted, too; audited.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, write nothing.")]


@app.command(epilog="Example: compliance migrate up --env production --dry-run")
def up(
    ctx: typer.Context,
    to: ToOption = None,
    only: OnlyOption = None,
    allow_late: LateOption = None,
    emergency: EmergencyOption = None,
    dry_run: DryRunOption = False,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Apply what is pending, in order."""
    if to and only:
        raise typer.BadParameter("goes without --to", param_hint="--only")
    with open_runner(ctx, env) as runner:
        wish = Wish(target=to, only=only, allow_late=tuple(allow_late or ()), emergency=emergency)
        if dry_run:
            show_preview("to apply", runner.preview(wish), as_json=json)
            return
        done = replace(runner, on_emergency=partial(_alert, runtime(ctx).load(env))).up(wish=wish)
        aside = runner.count_set_aside(done)
    _show("applied", done, as_json=json)
    if aside:
        sys.stderr.write(f"{aside} documents could not be changed and were set aside: see set_aside\n")
        raise typer.Exit(int(ExitCode.PARTIAL))


@app.command(epilog="Example: compliance migrate down 003")
def down(
    ctx: typer.Context,
    target: TargetArgument,
    dry_run: DryRunOption = False,
    drop_data: Annotated[bool, typer.Option("--drop-data", help="Drop collections that hold documents, too.")] = False,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Undo migrations until TARGET, and what it depends on, is left."""
    with open_runner(ctx, env) as runner:
        if dry_run:
            show_preview("to undo", runner.preview_down(target, drop_data=drop_data), as_json=json)
            return
        done = runner.down(target, drop_data=drop_data)
    _show("undone", done, as_json=json)


@app.command(epilog="Example: compliance migrate status --check")
def status(
    ctx: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Exit 3 when migrations are pending.")] = False,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """List every migration with its state, and what `up` would refuse."""
    with open_runner(ctx, env) as runner:
        found = standings(runner.scripts())
        progress = progress_of(runner.databases)
        refusing = find_abandoned(runner.databases)
        refusal: ComplianceError | None = None
        pending: tuple[Revision, ...] = ()
        try:
            pending = runner.pending()
        except ComplianceError as error:
            refusal = error
    if json:
        listed = [describe(standing) for standing in found]
        refused = {"code": type(refusal).__name__, "message": str(refusal)} if refusal else None
        going = [one.fields for one in progress]
        show_json(
            {
                "pending": [one.name for one in pending],
                "refused": refused,
                "writes_refused": list(refusing),
                "progress": going,
                "migrations": listed,
            }
        )
    else:
        show_standings(found)
        for one in progress:
            sys.stdout.write(f"{one.line}\n")
        if refusing:
            sys.stdout.write(f"{', '.join(refusing)}: writes are refused since a migration ended; run `up`\n")
    if refusal:
        raise refusal
    if check and pending:
        raise typer.Exit(int(ExitCode.NOT_AS_IT_SHOULD_BE))


@app.command(epilog="Example: compliance migrate verify --json")
def verify(ctx: typer.Context, env: EnvOption = None, json: JsonOption = False) -> None:
    """Look whether the database is what the applied migrations say; exit 3 when it is not. Writes nothing."""
    with open_runner(ctx, env) as runner:
        problems = runner.verify()
    if json:
        show_json({"problems": [{"migration": one.revision, "what": one.what} for one in problems]})
    else:
        rows = [(one.revision, one.what) for one in problems]
        show_table(("migration", "what is not as it says"), rows, empty="everything is as the migrations say")
    if problems:
        raise typer.Exit(int(ExitCode.NOT_AS_IT_SHOULD_BE))


@app.command(epilog="Example: compliance migrate repair --accept v004_pre_x --reason renamed-by-hand")
def repair(
    ctx: typer.Context,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; the audit log keeps it.")],
    name: Annotated[str, typer.Option("--accept", metavar="NAME", help="A migration, edited or missing.")] = "",
    exchange: Annotated[str, typer.Option("--exchange", metavar="COLLECTION", help="One that was rebuilt.")] = "",
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Accept that an applied migration was edited, or is missing, or that an exchange cannot be settled any more."""
    if bool(name) == bool(exchange):
        raise typer.BadParameter("give --accept NAME or --exchange COLLECTION")
    with open_runner(ctx, env) as runner:
        if exchange:
            is_accepted = runner.accept_exchange(exchange, reason=reason)
            name, accepted = exchange, "exchanged" if is_accepted else "settled"
        else:
            accepted = runner.accept(name, reason=reason)
    if json:
        show_json({"name": name, "accepted": accepted})
    else:
        sys.stdout.write(f"accepted: {name} is {accepted}\n" if accepted != "nothing" else "nothing to accept\n")


def _alert(settings: Settings, migrations: Sequence[str]) -> None:
    """Tell the person on call; no other command reports anything, so only this one sets Sentry up."""
    configure_sentry(settings)
    alert_emergency(migrations, request_id="cli")


def _show(verb: str, done: tuple[Revision, ...], *, as_json: bool) -> None:
    if as_json:
        show_json({"verb": verb, "revisions": [revision.name for revision in done]})
    else:
        sys.stdout.write(f"{len(done)} {verb}\n" if done else "nothing to do\n")
