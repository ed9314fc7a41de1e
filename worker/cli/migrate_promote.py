"""``compliance migrate attest`` and ``promote``: what ran and holds in staging may run in production."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from compliance.audit.entry import Cause
from compliance.audit.log import AuditLog
from compliance.audit.writer import Writer
from compliance.errors import ConfigurationError, ExitCode
from compliance.statefile import read_file
from migrations import promotion
from worker.cli.files import write_output
from worker.cli.migrate_history import open_runner
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json, show_table

OutOption = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the record there, not to stdout.")]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="What staging wrote with `attest`.")]


def attest(ctx: typer.Context, out: OutOption = None, env: EnvOption = None) -> None:
    """Make a signed record of what is applied and verified here; exit 3 when something is not as it says."""
    environment = runtime(ctx).load(env).environment
    with open_runner(ctx, env) as runner:
        writer = runner.databases.participant
        if not isinstance(writer, Writer):
            raise ConfigurationError("this process has no key to sign a record with: set COMPLIANCE_WRITER_KEY")
        made, note = promotion.attest(
            runner.databases,
            runner.verify(),
            key=writer.key,
            environment=environment,
            by=runner.actor,
            clock=runner.clock,
        )
    write_output(note, out)
    unverified = [script.name for script in made.scripts if script.problems]
    sys.stderr.write(f"{len(made.scripts)} scripts; signed by {writer.key.verifier.vkey}\n")
    if unverified:
        sys.stderr.write(f"not verified: {', '.join(unverified)}; see `compliance migrate verify`\n")
        raise typer.Exit(int(ExitCode.NOT_AS_IT_SHOULD_BE))


def promote(ctx: typer.Context, file: FileArgument, env: EnvOption = None, json: JsonOption = False) -> None:
    """Let what is applied and verified in staging run here; exit 3 when something of the record may not."""
    note = read_file(file)
    with open_runner(ctx, env) as runner:
        log = AuditLog(runner.databases, Cause(channel="cli"))
        found = promotion.promote(runner.databases, log, note, gate=runner.gate, by=runner.actor, clock=runner.clock)
    if json:
        show_json({"promoted": found.new, "known": found.known, "refused": found.refused})
    else:
        rows = [(name, "promoted") for name in found.new] + [(name, "as before") for name in found.known]
        show_table(("migration", ""), [*rows, *found.refused.items()], empty="the record names no migration")
    if found.refused:
        raise typer.Exit(int(ExitCode.NOT_AS_IT_SHOULD_BE))
