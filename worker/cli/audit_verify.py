"""``compliance audit verify``: recompute the log, in the database or in an exported folder."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from compliance.audit.trust import Trust
from compliance.audit.verification import Parallel, Report, verify_log
from compliance.errors import ExitCode, InvalidPayload, InvalidProof
from compliance.mongo import Databases, driver_errors
from compliance.roles import AUDIT_LOG, Role
from compliance.statefile import read_file
from worker.addresses import Addresses
from worker.cli.audit_files import FilesOption, KeyOption, progress, verify_files
from worker.cli.files import write_output
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json

MANY = 100_000  # entries from which more processes are worth their start


def verify(
    ctx: typer.Context,
    since: Annotated[
        Path | None,
        typer.Option(metavar="CHECKPOINT", help="A checkpoint up to which the log was verified before."),
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A checkpoint that was kept elsewhere; may be repeated.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="Write the last checkpoint here, for --since; may be the same file, which need not be there at first.",
        ),
    ] = None,
    files: FilesOption = None,
    key: KeyOption = None,
    begin_: Annotated[int, typer.Option("--from", metavar="N", help="With --files: the first entry.")] = 0,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Recompute the log, or an exported folder without any database; exit 4 when it is not what was sealed."""
    if files is not None:
        if since is not None or against or output is not None:
            raise InvalidPayload("--files: --since, --against and --output are for the log in the database")
        verify_files(ctx, files, key=key, begin=begin_, env=env, json=json)
        return
    if key is not None or begin_:
        raise InvalidPayload("--key and --from are for --files")
    addresses = runtime(ctx).addresses(env)
    trust = addresses.trust()
    notes = [_checkpoint(path, trust) for path in against or ()]
    begin = _begin(since, output, trust)
    with runtime(ctx).services(Role.AUDITOR, profile=env) as services, progress("verifying", json=json) as on_progress:
        report = verify_log(
            services.databases,
            services.trust,
            now=services.databases.server_time(),
            since=begin,
            against=notes,
            on_progress=on_progress,
            parallel=_parallel(addresses, services.databases),
        )
    _show(report, as_json=json)
    if not report.is_ok:
        raise typer.Exit(int(ExitCode.INTEGRITY))
    if output is not None and report.checkpoints:
        write_output(report.checkpoints[-1], output)  # of the log that was sealed last
    elif output is not None and begin is None:
        sys.stderr.write(f"nothing is signed yet: {output} is not written\n")


def _begin(since: Path | None, output: Path | None, trust: Trust) -> bytes | None:
    """Return the checkpoint to begin at, None where the whole log is to be verified."""
    if output is not None and not output.absolute().parent.is_dir():
        raise InvalidPayload(f"{output} cannot be written (no such folder)")  # not only when all was verified
    if since is None:
        return None
    if output is not None and since.absolute() == output.absolute() and not since.exists():
        sys.stderr.write(f"{since} is not there yet: the whole log is verified\n")
        return None
    return _checkpoint(since, trust)


def _checkpoint(path: Path, trust: Trust) -> bytes:
    """Return the signed checkpoint in a file, once it is known to be one of this log.

    Raises:
        InvalidPayload: When it is not: that says nothing about the log.
    """
    note = read_file(path)
    try:
        trust.open(note)
    except InvalidProof as error:
        raise InvalidPayload(f"{path} is no checkpoint of this log: {error}") from None
    return note


def _parallel(addresses: Addresses, databases: Databases) -> Parallel | None:
    """Read a long log with all processors."""
    processors = os.cpu_count() or 1
    with driver_errors():
        if processors == 1 or databases.audit[AUDIT_LOG].estimated_document_count() < MANY:
            return None
    return Parallel(addresses.mongodb_uri(Role.AUDITOR), processors)


def _show(report: Report, *, as_json: bool) -> None:
    if as_json:
        findings = [{"kind": found.fault.value, "what": found.what, "why": found.why} for found in report.findings]
        pruned = [{"log": log, "below": below} for log, below in report.pruned]
        show_json({"entries": report.entries, "pending": report.pending, "findings": findings, "pruned": pruned})
        return
    waiting = f", {report.pending} wait for their seal" if report.pending else ""
    gone = [
        f"entries of {log} below {below} were pruned; `compliance audit show --entity log:{log}` says when"
        for log, below in report.pruned
    ]
    lines = (*map(str, report.findings), *gone, f"{report.entries} entries, {len(report.findings)} findings{waiting}")
    sys.stdout.write("\n".join(lines) + "\n")
