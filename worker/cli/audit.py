"""``compliance audit``: read the audit log, verify it, and hand out proofs."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from bson import ObjectId

from compliance.audit.checkpoint import parse_checkpoint
from compliance.audit.entry import EntityId
from compliance.audit.leaf import stored_bytes
from compliance.audit.note import parse_note
from compliance.audit.pruned import find_boundary
from compliance.audit.receipt import SUFFIX, make_receipt, parse_receipt, verify_receipt
from compliance.audit.seals import Seals
from compliance.audit.verification import Parallel, Report, verify_log
from compliance.audit.writer import log_name
from compliance.clock import SystemClock
from compliance.datamap.model import DataMap
from compliance.datamap.subject import parse_subject_id, to_entity_id
from compliance.errors import ExitCode, IntegrityError, InvalidPayload, UnknownName
from compliance.mongo import Databases, Document, driver_errors
from compliance.roles import AUDIT_LOG, Role
from worker.addresses import Addresses
from worker.cli.audit_files import KeyOption, export, policy_from, progress, prove_from_files, prune, verify_files
from worker.cli.audit_incidents import incidents
from worker.cli.person import read_value
from worker.cli.runtime import EnvOption, JsonOption, plain, runtime, show_json, show_table
from worker.services import Services

app = typer.Typer(
    help="Read the audit log, verify it, and hand out proofs that others can verify.",
    epilog="Example: compliance audit verify",
)

app.command("export", epilog="Example: compliance audit export audit-2026")(export)
app.command("incidents", epilog="Example: compliance audit incidents --since 2026-03-01")(incidents)
app.command("prune", epilog="Example: compliance audit prune --log NAME --below 4096 --exported audit-2025")(prune)

MANY = 100_000  # entries from which more processes are worth their start
PERSON = "user"

EntryArgument = Annotated[str, typer.Argument(metavar="ID", help="The id of the entry.")]
FileOption = Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write to this file.")]
FilesOption = Annotated[
    Path | None, typer.Option("--files", metavar="FOLDER", help="A folder of `compliance audit export`.")
]


@app.command(epilog="Example: compliance audit show --entity user:65f2c0ffee0000000000abcd")
def show(
    ctx: typer.Context,
    entity: Annotated[str | None, typer.Option(metavar="TYPE:ID", help="Entries about one entity.")] = None,
    request: Annotated[str | None, typer.Option(metavar="ID", help="Entries that one request caused.")] = None,
    person: Annotated[
        str | None,
        typer.Option(
            metavar="VALUE",
            help="Entries about the person with this id, under every pseudonym where it is personal; - reads it from "
            "stdin, so that your shell does not remember it.",
        ),
    ] = None,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Show entries, oldest first."""
    if sum(given is not None for given in (entity, request, person)) != 1:
        raise InvalidPayload("give either --entity TYPE:ID, --person VALUE or --request ID")
    with runtime(ctx).services(Role.AUDITOR, profile=env) as services:
        log = services.log
        if request is not None:
            found = list(log.of_request(request))
        elif entity is not None:
            found = list(log.about(*_entity(entity)))
        else:
            names = _person(ctx, str(person), services.data_map, env)
            found = sorted((entry for name in names for entry in log.about(PERSON, name)), key=_when)
    if json:
        show_json(found)
        return
    rows = (
        (item["created_at"], item["action"], item["outcome"], plain(item["details"]), item["_id"]) for item in found
    )
    show_table(("when", "action", "outcome", "details", "id"), rows, empty="no entries")


@app.command("verify", epilog="Example: compliance audit verify --against checkpoint.txt")
def verify_(
    ctx: typer.Context,
    since: Annotated[
        Path | None,
        typer.Option(metavar="CHECKPOINT", help="A checkpoint up to which the log was verified before."),
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A checkpoint that was kept elsewhere; may be repeated.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write the last checkpoint here, for --since.")
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
    notes = [_read(path) for path in against or ()]
    begin = _read(since) if since is not None else None
    with runtime(ctx).services(Role.AUDITOR, profile=env) as services, progress("verifying", json=json) as on_progress:
        report = verify_log(
            services.databases,
            services.trust,
            now=services.databases.server_time(),
            since=begin,
            against=notes,
            on_progress=on_progress,
            parallel=_parallel(runtime(ctx).addresses(env), services.databases),
        )
    _show_report(report, as_json=json)
    if not report.is_ok:
        raise typer.Exit(int(ExitCode.INTEGRITY))
    if output is not None and report.checkpoints:
        output.write_bytes(report.checkpoints[-1])


@app.command(epilog="Example: compliance audit checkpoint --output checkpoint.txt")
def checkpoint(ctx: typer.Context, env: EnvOption = None, output: FileOption = None) -> None:
    """Print the last signed checkpoint: keep it elsewhere, and verify the log against it later."""
    with runtime(ctx).services(Role.AUDITOR, profile=env) as services:
        note = _last_checkpoint(Seals(services.databases))
    _write(note, output)


@app.command(epilog="Example: compliance audit prove 4f1c6f0bd7e29c9a3c1d80a1b2c3d4e5 --output entry.tlog-proof")
def prove(
    ctx: typer.Context,
    entry_id: EntryArgument,
    files: FilesOption = None,
    env: EnvOption = None,
    output: FileOption = None,
) -> None:
    """Write a receipt: a file that proves to anybody, without our database, that an entry is in the log."""
    if files is not None:
        _write(prove_from_files(ctx, files, entry_id, env=env), output)
        return
    with runtime(ctx).services(Role.AUDITOR, profile=env) as services:
        entry, seals = _entry(services, entry_id), Seals(services.databases)
        index, log = seals.index_of(entry), entry["log"]
        note = seals.checkpoint(log)
        if note is None or parse_checkpoint(parse_note(note)[0]).size <= index:
            raise UnknownName("the entry is sealed and its checkpoint is not signed yet: try again in a second")
        size = parse_checkpoint(parse_note(note)[0]).size
        signed = seals.cosigned(log, size) or note
        file = make_receipt(stored_bytes(entry), index=index, node=seals.nodes(log, size), checkpoint=signed)
    _write(file, output)


@app.command("verify-receipt", epilog=f"Example: compliance audit verify-receipt entry{SUFFIX} --key VKEY")
def verify_receipt_(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A receipt.")],
    key: KeyOption = None,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Verify a receipt without any database; exit 4 when it proves nothing."""
    data = _read(file)
    log = parse_checkpoint(parse_note(parse_receipt(data).checkpoint)[0]).origin
    found = verify_receipt(data, policy=policy_from(ctx, key, log, env=env))
    if json:
        sys.stdout.write(found.leaf.decode() + "\n")
        return
    size = found.signed.checkpoint.size
    sys.stdout.write(f"entry {found.index} of {log} ({size} entries were signed):\n{found.leaf.decode()}\n")


@app.command(epilog="Example: compliance audit keys")
def keys(ctx: typer.Context, env: EnvOption = None, json: JsonOption = False) -> None:
    """Show whose signatures are believed, to give to whoever verifies; that of the log is named for its year."""
    trust = runtime(ctx).addresses(env).trust()
    present = trust.policy(log_name(trust.origin, SystemClock().now())).keys if trust.log_keys else ()
    found = {
        "origin": trust.origin,
        "writers": [known.vkey for known in trust.writers],
        "log": list(dict.fromkeys(known.vkey for known in present)),
    }
    if json:
        show_json(found)
        return
    rows = [("writer", vkey) for vkey in found["writers"]] + [("log", vkey) for vkey in found["log"]]
    sys.stdout.write("".join(f"{who} {vkey}\n" for who, vkey in rows) or "no keys\n")


def _entry(services: Services, entry_id: str) -> Document:
    """Return an entry; where it was pruned, say where its bytes are.

    Raises:
        UnknownName: When there is none in the database.
        IntegrityError: When it was there, and nobody pruned it.
    """
    try:
        return services.log.find(entry_id)
    except UnknownName:
        place = Seals(services.databases).place_of(entry_id)
        if place is None:
            raise
    log, index = place
    if index < find_boundary(services.databases, log, services.trust):
        raise UnknownName(
            f"entry {index} of {log} was pruned; its bytes are in the folder it was exported to: give --files FOLDER"
        )
    raise IntegrityError(f"entry {index} of {log} was sealed and is gone; see `compliance audit verify`")


def _parallel(addresses: Addresses, databases: Databases) -> Parallel | None:
    """Read a long log with all processors."""
    processors = os.cpu_count() or 1
    with driver_errors():
        if processors == 1 or databases.audit[AUDIT_LOG].estimated_document_count() < MANY:
            return None
    return Parallel(addresses.mongodb_uri(Role.AUDITOR), processors)


def _last_checkpoint(seals: Seals) -> bytes:
    for log in reversed(seals.logs()):
        note = seals.checkpoint(log)
        if note is not None:
            return seals.cosigned(log, parse_checkpoint(parse_note(note)[0]).size) or note
    raise UnknownName("nothing is sealed yet; the watcher seals the log")


def _show_report(report: Report, *, as_json: bool) -> None:
    if as_json:
        findings = [{"kind": found.fault.value, "what": found.what, "why": found.why} for found in report.findings]
        show_json({"entries": report.entries, "pending": report.pending, "findings": findings})
        return
    waiting = f", {report.pending} wait for their seal" if report.pending else ""
    lines = (*map(str, report.findings), f"{report.entries} entries, {len(report.findings)} findings{waiting}")
    sys.stdout.write("\n".join(lines) + "\n")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidPayload(f"{path} cannot be read ({error.strerror})") from None


def _write(data: bytes, output: Path | None) -> None:
    if output is None:
        sys.stdout.buffer.write(data)
        return
    try:
        output.write_bytes(data)
    except OSError as error:
        raise InvalidPayload(f"{output} cannot be written ({error.strerror})") from None


def _person(ctx: typer.Context, given: str, data_map: DataMap, env: str | None) -> list[EntityId]:
    """Return what entries call the person with the id *given*: one name for each key."""
    value, pseudonyms = read_value(given), runtime(ctx).addresses(env).pseudonyms(data_map)
    if pseudonyms is None:
        return [to_entity_id(parse_subject_id(value, data_map))]
    return [*pseudonyms.all_of(value)]


def _when(entry: Document) -> str:
    return str(entry["created_at"])  # as text, for that of an altered entry may be anything


def _entity(text: str) -> tuple[str, EntityId]:
    kind, colon, name = text.partition(":")
    if not colon or not kind or not name:
        raise InvalidPayload("--entity: expected TYPE:ID, such as user:65f2c0ffee0000000000abcd")
    return kind, ObjectId(name) if ObjectId.is_valid(name) else name
