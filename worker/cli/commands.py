"""The commands by name. A command waits for its own imports only, not for those of all others."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module, metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

EPILOG = (
    "Exit codes: 0 done or nothing to do · 1 bug · 2 wrong usage · 3 not as it should be · 4 integrity · "
    "5 done in part · "
    "69 unreachable · 75 temporary · 78 wrong configuration"
)
# Its module and what it is called there; a command that is not a group has an example, too.
PLACES = {
    "up": ("stack", "up", "Example: compliance up"),
    "demo": ("stack", "demo", "Example: compliance demo --keep"),
    "watcher": ("stack", "watcher", "Example: compliance watcher"),
    "reconciler": ("stack", "reconciler", "Example: compliance reconciler"),
    "doctor": ("doctor", "doctor", "Example: compliance doctor --provision"),
    "export": ("transfer", "export", "Example: compliance export --collection tracks --wait"),
    "import": ("transfer", "import_", "Example: compliance import export-1 --collection tracks --wait"),
    "migrate": ("migrate", "app", None),
    "partition": ("partition", "app", None),
    "erasure": ("erasure", "app", None),
    "retention": ("retention", "app", None),
    "consent": ("consent", "app", None),
    "audit": ("audit", "app", None),
    "health": ("health", "app", None),
    "jobs": ("jobs", "app", None),
    "schedule": ("schedule", "app", None),
    "datamap": ("datamap", "app", None),
}


class Commands(Mapping[str, Any]):
    """Each command under its name, made at the first use."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """Return the command *name*."""
        if name not in self._made:
            self._made[name] = _make(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names in the order of the help."""
        return iter(PLACES)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(PLACES)


class Group(TyperGroup):
    """The command with the groups of ``PLACES``."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = Commands()


def build_cli() -> typer.Typer:
    """Return the command with all its groups."""
    app = typer.Typer(
        name="compliance",
        cls=Group,
        help="Compliance jobs for MongoDB: migrations, consent, erasure, export and import, with an audit log.",
        epilog=EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    return app


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"compliance-worker {metadata.version('compliance-worker')}")
        raise typer.Exit


def _options(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version."),
    ] = False,
    operator: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="Who gives the command, for the audit log; else the login."),
    ] = None,
) -> None:
    del version
    if operator is not None:
        ctx.obj = replace(ctx.obj, operator=operator)


def _make(name: str) -> Any:
    module, attribute, example = PLACES[name]
    found = getattr(import_module(f"worker.cli.{module}"), attribute)
    parent = typer.Typer()
    if isinstance(found, typer.Typer):
        parent.add_typer(found, name=name, no_args_is_help=True)
    else:
        parent.command(name, epilog=example)(found)
    return get_group(parent).commands[name]
