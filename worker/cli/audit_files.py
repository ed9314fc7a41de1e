"""``compliance audit export`` and what else concerns a log in files: verify it, and prove entries from it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from compliance.audit.checkpoint import Policy
from compliance.audit.export import export_log
from compliance.audit.prune import Pruning, plan_pruning
from compliance.audit.receipt import make_receipt, verify_receipt
from compliance.audit.segment import SegmentReport, open_segment, summed, verify_segment
from compliance.audit.trust import parse_keys, policy_of
from compliance.errors import ExitCode, InvalidPayload, InvalidProof
from compliance.roles import Role
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json

FilesOption = Annotated[
    Path | None, typer.Option("--files", metavar="FOLDER", help="A folder of `compliance audit export`.")
]
KeyOption = Annotated[
    str | None, typer.Option("--key", metavar="VKEY", help="The verifier key of the log; else that of the settings.")
]
LogOption = Annotated[str | None, typer.Option("--log", metavar="NAME", help="Another log than that of this year.")]
BeginOption = Annotated[
    int | None, typer.Option("--from", metavar="N", help="The first entry; else the first that was not pruned.")
]


def export(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to make.")],
    log: LogOption = None,
    begin: BeginOption = None,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Write the sealed log as a folder that verifies without any database; exit 4 when it is not what was sealed."""
    with (
        runtime(ctx).services(Role.AUDITOR, profile=env) as services,
        progress("exporting", json=json) as on_progress,
    ):
        found = export_log(
            services.databases, services.trust, path=folder, log=log, begin=begin, on_progress=on_progress
        )
    origin, size = found.checkpoint.origin, found.checkpoint.size
    if json:
        show_json({"log": origin, "begin": found.begin, "size": size, "folder": str(folder)})
        return
    sys.stdout.write(f"entries {found.begin} to {size - 1} of {origin} are in {folder}\n")


def verify_files(ctx: typer.Context, folder: Path, *, key: str | None, begin: int, env: str | None, json: bool) -> None:
    """Verify an exported folder, show what was found, and exit 4 when that is anything."""
    segment = open_segment(folder)
    policy, total = policy_from(ctx, key, segment.tree.origin, env=env), segment.tree.size - begin
    with progress("verifying", json=json) as on_progress:
        report = verify_segment(folder, policy=policy, begin=begin, on_progress=summed(on_progress, total))
    _show(report, segment.tree.origin, as_json=json)
    if report.is_ok:
        return
    first = segment.begin()
    if begin < first < segment.tree.size:
        sys.stderr.write(f"the folder begins with entry {first}; if the log was pruned below, give --from {first}\n")
    raise typer.Exit(int(ExitCode.INTEGRITY))


def prove_from_files(ctx: typer.Context, folder: Path, entry_id: str, *, env: str | None) -> bytes:
    """Return the receipt of an entry that an exported folder holds."""
    segment = open_segment(folder)
    index, leaf = segment.find(entry_id)
    receipt = make_receipt(leaf, index=index, node=segment.nodes(), checkpoint=segment.note)
    verify_receipt(receipt, policy=policy_from(ctx, None, segment.tree.origin, env=env))
    return receipt


def policy_from(ctx: typer.Context, key: str | None, log: str, *, env: str | None) -> Policy:
    """Return whom to believe about *log*: the *key* that was given, else the keys of the settings.

    Raises:
        InvalidProof: When *log* is not one that the settings are about.
    """
    if key is not None:
        return policy_of(parse_keys(key, what="--key"), log)
    trust = runtime(ctx).addresses(env).trust()
    if not trust.names(log):
        raise InvalidProof(f"it is of the log {log}, not of {trust.origin}; for a log of others give --key")
    return trust.policy(log)


def prune(
    ctx: typer.Context,
    log: Annotated[str, typer.Option("--log", metavar="NAME", help="The log of one year.")],
    below: Annotated[int, typer.Option("--below", metavar="N", help="The first entry that stays.")],
    exported: Annotated[Path, typer.Option("--exported", metavar="FOLDER", help="Where the entries are.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Remove old entries that an exported folder holds from the database; their proofs keep working."""
    with runtime(ctx).services(Role.ARCHIVER, profile=env) as services:
        actor = runtime(ctx).actor(services.settings)
        retention = timedelta(days=services.settings.audit_retention_days)
        with progress("verifying", json=json) as on_progress:
            plan = plan_pruning(
                services.databases,
                services.trust,
                log=log,
                below=below,
                path=exported,
                older_than=services.databases.server_time() - retention,
                on_progress=on_progress,
            )
        removed = 0
        if plan.begin < plan.below and not dry_run:
            _confirm(plan, is_sure=yes)
            with progress("removing", json=json) as on_progress:
                removed = replace(plan, by=actor).run(services.clock, on_progress=on_progress)
    if json:
        show_json({"log": log, "begin": plan.begin, "below": plan.below, "entries": plan.entries, "removed": removed})
        return
    if plan.begin >= plan.below:
        sys.stdout.write(f"nothing to remove: {log} begins at {plan.begin} already\n")
        return
    done = f"{plan.entries} entries would go" if dry_run else f"{removed} entries removed"
    sys.stdout.write(f"{done}: {log} from {plan.begin} to {plan.below - 1}\n")


def _confirm(plan: Pruning, *, is_sure: bool) -> None:
    """Ask a person; where there is none, the command has to say that it is meant.

    Raises:
        InvalidPayload: When it does not.
    """
    if is_sure:
        return
    if not sys.stdin.isatty():
        raise InvalidPayload("give --yes to remove entries without being asked")
    question = f"Remove {plan.entries} entries of {plan.tree.origin}, from {plan.begin} to {plan.below - 1}?"
    typer.confirm(question, abort=True, err=True)


@contextmanager
def progress(what: str, *, json: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while entries are read, when a person watches."""
    console = Console(stderr=True)
    if json or not console.is_terminal:
        yield lambda _done, _total: None
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show(report: SegmentReport, log: str, *, as_json: bool) -> None:
    if as_json:
        findings = [
            {"kind": found.fault.value, "what": found.path, "entry": found.index, "why": found.why}
            for found in report.findings
        ]
        show_json({"log": log, "begin": report.begin, "entries": report.entries, "findings": findings})
        return
    lines = (*map(str, report.findings), f"{report.entries} entries of {log}, {report.found} findings")
    sys.stdout.write("\n".join(lines) + "\n")
