"""``compliance erasure certificate`` and ``verify-certificate``: what a stranger can check without our database."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from compliance.audit.checkpoint import Policy
from compliance.audit.trust import parse_keys
from compliance.erasure.certificate import Verified, verify_certificate
from compliance.erasure.issue import issue_certificate
from compliance.erasure.page import to_page
from compliance.errors import ExitCode, InvalidProof
from compliance.roles import Role
from compliance.statefile import read_file
from worker.cli.audit_files import KeyOption, policy_from
from worker.cli.files import write_output
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json

PageOption = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write a page for people.")]

_YEARLY = re.compile(r"(?P<origin>.+)/\d{4}")


def certificate(
    ctx: typer.Context,
    request_id: Annotated[str, typer.Argument(metavar="REQUEST", help="The id of a completed request.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the certificate to this file.")
    ] = None,
    html: PageOption = None,
    env: EnvOption = None,
) -> None:
    """Issue the certificate of a completed erasure; the same bytes each time."""
    with runtime(ctx).services(Role.AUDITOR, profile=env) as services:
        file = issue_certificate(services.databases, services.trust, request_id)
        policy = services.trust.policy
    if html is not None:
        write_output(to_page(verify_certificate(file, policy=policy)), html)
    if out is not None or html is None:
        write_output(file, out)


def verify_certificate_(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A certificate.")],
    key: KeyOption = None,
    html: PageOption = None,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Verify a certificate of erasure without any database; exit 4 when it is not as it was issued."""
    found = verify_certificate(read_file(file), policy=lambda log: _policy(ctx, key, log, env=env))
    if json:
        show_json(_to_json(found))
    else:
        sys.stdout.write("".join(f"{line}\n" for line in _lines(found)))
    if found.faults:
        raise typer.Exit(int(ExitCode.INTEGRITY))
    if html is not None:
        write_output(to_page(found), html)


def _policy(ctx: typer.Context, key: str | None, log: str, *, env: str | None) -> Policy:
    """Return whom to believe about *log*; a key that is named for another one is not about it.

    Raises:
        InvalidProof: When the key, or the settings, are about another log.
    """
    named = [_YEARLY.fullmatch(known.name) for known in parse_keys(key, what="--key")] if key is not None else []
    origins = [found["origin"] for found in named if found]
    if origins and log.rpartition("/")[0] not in origins:
        raise InvalidProof(f"it is of the log {log}, and the key is of {', '.join(origins)}")
    return policy_from(ctx, key, log, env=env)


def _to_json(found: Verified) -> dict[str, Any]:
    faults = [{"field": fault.field, "why": fault.why} for fault in found.faults]
    if found.faults or found.statement is None or found.inclusion is None:
        return {"verified": False, "faults": faults}
    tree = found.inclusion.signed.checkpoint
    proof = {"log": tree.origin, "entry": found.inclusion.index, "size": tree.size}
    return {"verified": True, "faults": [], **proof, "certificate": found.statement}


def _lines(found: Verified) -> list[str]:
    if found.faults or found.statement is None or found.inclusion is None:
        return ["this certificate is not as it was issued", *(f"  {fault}" for fault in found.faults)]
    statement, tree = found.statement, found.inclusion.signed.checkpoint
    request = statement["request"]
    return [
        f"verified: request {request['id']} of {statement['application']} is {request['state']}, {statement['level']}",
        f"completed {request['completed_at']}, to be answered until {request['due_at']}",
        f"entry {found.inclusion.index} of {tree.origin} ({tree.size} entries were signed)",
        *(f"kept: {', '.join(kept['fields'])} ({kept['ground']})" for kept in statement["kept"]),
        *(f"recipient {told['id']}: {told['state']}" for told in statement["recipients"]),
        *(f"{name['name']}: {name['expires_at'] or name['state']}" for name in statement["surfaces"]),
    ]
