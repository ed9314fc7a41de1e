"""``compliance audit``: read the audit log, verify it, and hand out proofs."""

import sys
from typing import Annotated

import typer
from bson import ObjectId

from compliance.audit.entry import EntityId
from compliance.audit.receipt import SUFFIX
from compliance.audit.seals import Seals
from compliance.audit.writer import log_name
from compliance.clock import SystemClock
from compliance.datamap.model import DataMap
from compliance.datamap.subject import parse_subject_id, to_entity_id
from compliance.errors import InvalidPayload
from compliance.mongo import Document
from compliance.roles import Role
from worker.cli.audit_files import export, prune
from worker.cli.audit_incidents import incidents
from worker.cli.audit_receipts import last_checkpoint, prove, verify_receipt_
from worker.cli.audit_verify import verify
from worker.cli.files import OutputOption, write_output
from worker.cli.person import read_value
from worker.cli.runtime import EnvOption, JsonOption, plain, runtime, show_json, show_table

AN_ID = "4f1c6f0bd7e29c9a3c1d80a1b2c3d4e5"

app = typer.Typer(
    help="Read the audit log, verify it, and hand out proofs that others can verify.",
    epilog="Example: compliance audit verify",
)

app.command("verify", epilog="Example: compliance audit verify --against checkpoint.txt")(verify)
app.command("prove", epilog=f"Example: compliance audit prove {AN_ID} --output entry{SUFFIX}")(prove)
app.command("verify-receipt", epilog=f"Example: compliance audit verify-receipt entry{SUFFIX} --key VKEY")(
    verify_receipt_
)
app.command("export", epilog="Example: compliance audit export audit-2026")(export)
app.command("incidents", epilog="Example: compliance audit incidents --since 2026-03-01")(incidents)
app.command("prune", epilog="Example: compliance audit prune --log NAME --below 4096 --exported audit-2025")(prune)

PERSON = "user"


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


@app.command(epilog="Example: compliance audit checkpoint --output checkpoint.txt")
def checkpoint(ctx: typer.Context, env: EnvOption = None, output: OutputOption = None) -> None:
    """Print the last signed checkpoint: keep it elsewhere, and verify the log against it later."""
    with runtime(ctx).services(Role.AUDITOR, profile=env) as services:
        note = last_checkpoint(Seals(services.databases), services.trust)
    write_output(note, output)


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
