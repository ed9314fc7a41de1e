"""``compliance audit prove`` and ``verify-receipt``: what anybody can verify without our database."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from compliance.audit.checkpoint import Checkpoint, parse_checkpoint
from compliance.audit.head import find_note
from compliance.audit.leaf import stored_bytes
from compliance.audit.note import parse_note
from compliance.audit.pruned import find_boundary
from compliance.audit.receipt import make_receipt, parse_receipt, verify_receipt
from compliance.audit.seals import Seals
from compliance.audit.trust import Trust
from compliance.errors import IntegrityError, UnknownName
from compliance.mongo import Document
from compliance.roles import Role
from compliance.statefile import read_file
from worker.cli.audit_files import FilesOption, KeyOption, policy_from, prove_from_files
from worker.cli.files import OutputOption, write_output
from worker.cli.runtime import EnvOption, JsonOption, runtime
from worker.services import Services

EntryArgument = Annotated[str, typer.Argument(metavar="ID", help="The id of the entry.")]


def prove(
    ctx: typer.Context,
    entry_id: EntryArgument,
    files: FilesOption = None,
    env: EnvOption = None,
    output: OutputOption = None,
) -> None:
    """Write a receipt: a file that proves to anybody, without our database, that an entry is in the log."""
    if files is not None:
        write_output(prove_from_files(ctx, files, entry_id, env=env), output)
        return
    with runtime(ctx).services(Role.AUDITOR, profile=env) as services:
        receipt = _receipt(services, entry_id)
    write_output(receipt, output)


def verify_receipt_(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A receipt.")],
    key: KeyOption = None,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Verify a receipt without any database; exit 4 when it proves nothing."""
    data = read_file(file)
    log = _tree(parse_receipt(data).checkpoint).origin
    found = verify_receipt(data, policy=policy_from(ctx, key, log, env=env))
    if json:
        sys.stdout.write(found.leaf.decode() + "\n")
        return
    size = found.signed.checkpoint.size
    sys.stdout.write(f"entry {found.index} of {log} ({size} entries were signed):\n{found.leaf.decode()}\n")


def last_checkpoint(seals: Seals, trust: Trust) -> bytes:
    """Return the last signed checkpoint of the log that was sealed last, with its cosignatures.

    Raises:
        UnknownName: When nothing is signed yet.
    """
    note = find_note(seals, trust)
    if note is None:
        raise UnknownName("nothing is sealed yet; the watcher seals the log")
    tree = _tree(note)
    return seals.checkpoints.cosigned(tree.origin, tree.size) or note


def _receipt(services: Services, entry_id: str) -> bytes:
    entry, seals = _entry(services, entry_id), Seals(services.databases)
    index, log = seals.index_of(entry), entry["log"]
    note = seals.checkpoints.note(log)
    tree = _tree(note) if note is not None else None
    if note is None or tree is None or tree.size <= index:
        raise UnknownName("the entry is sealed and its checkpoint is not signed yet: try again in a second")
    signed = seals.checkpoints.cosigned(log, tree.size) or note
    return make_receipt(stored_bytes(entry), index=index, node=seals.nodes(log, tree.size), checkpoint=signed)


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


def _tree(note: bytes) -> Checkpoint:
    return parse_checkpoint(parse_note(note)[0])
