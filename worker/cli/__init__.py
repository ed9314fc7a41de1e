"""The ``compliance`` command: one module per group."""

import typer

from worker.cli import (
    audit,
    consent,
    datamap,
    doctor,
    erasure,
    health,
    jobs,
    migrate,
    partition,
    schedule,
    stack,
    transfer,
)
from worker.cli.runtime import Runtime

__all__ = ["Runtime", "build_cli"]

EPILOG = (
    "Exit codes: 0 done or nothing to do · 1 bug · 2 wrong usage · 3 not as it should be · 4 integrity · "
    "5 done in part · "
    "69 unreachable · 75 temporary · 78 wrong configuration"
)


def build_cli() -> typer.Typer:
    """Return the command with all its groups."""
    app = typer.Typer(
        name="compliance",
        help="Compliance jobs for MongoDB: migrations, consent, erasure, export and import, with an audit log.",
        epilog=EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command("up", epilog="Example: compliance up")(stack.up)
    app.command("demo", epilog="Example: compliance demo --keep")(stack.demo)
    app.command("watcher", epilog="Example: compliance watcher")(stack.watcher)
    app.command("doctor", epilog="Example: compliance doctor --provision")(doctor.doctor)
    app.command("export", epilog="Example: compliance export --collection tracks --wait")(transfer.export)
    app.command("import", epilog="Example: compliance import export-1 --collection tracks --wait")(transfer.import_)
    for name, group in {
        "migrate": migrate.app,
        "partition": partition.app,
        "erasure": erasure.app,
        "consent": consent.app,
        "audit": audit.app,
        "health": health.app,
        "jobs": jobs.app,
        "schedule": schedule.app,
        "datamap": datamap.app,
    }.items():
        app.add_typer(group, name=name, no_args_is_help=True)
    return app
