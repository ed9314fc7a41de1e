"""Issue the certificate of an erasure, once the entry that names it is sealed.

The statement was made when the erasure was completed, and its proof is against the first signed checkpoint behind its
entry, so a certificate has the same bytes whenever it is issued.
"""

import json
from typing import Any

from compliance.audit.leaf import stored_bytes
from compliance.audit.log import AuditLog
from compliance.audit.receipt import make_receipt
from compliance.audit.seals import Seals
from compliance.audit.trust import Trust
from compliance.erasure.certificate import ACTION, DETAIL, make_certificate, verify_certificate
from compliance.erasure.request import Requests
from compliance.erasure.stage import COMPLETE
from compliance.errors import CertificateNotIssued, IntegrityError, InvalidProof, NotSealedYet, UnknownName
from compliance.mongo import Databases, Document


def issue_certificate(databases: Databases, trust: Trust, request_id: str) -> bytes:
    """Return the certificate of a request.

    Args:
        databases: Reached with rights to read requests and the audit database.
        trust: Whose signatures on the log count.
        request_id: A request of erasure.

    Raises:
        UnknownName: When there is no such request.
        CertificateNotIssued: When there is nothing to certify; the message says what is missing.
        NotSealedYet: When the entry is not sealed, or its checkpoint not signed.
        IntegrityError: When what is stored is not what the log names.
    """
    statement = find_statement(databases, request_id)
    entry = _entry(databases, request_id)
    index, log = _index(databases, entry), str(entry["log"])
    size, note = _first_checkpoint(databases, trust, log, index)
    nodes = Seals(databases).nodes(log, size)
    file = make_certificate(statement, make_receipt(stored_bytes(entry), index=index, node=nodes, checkpoint=note))
    faults = verify_certificate(file, policy=trust.policy).faults
    if faults:
        raise IntegrityError(
            f"the stored certificate of {request_id} is not what the audit log names: "
            f"{'; '.join(map(str, faults))}; see `compliance audit verify`"
        )
    return file


def find_statement(databases: Databases, request_id: str) -> dict[str, Any]:
    """Return what the certificate of a request states.

    Raises:
        UnknownName: When there is no such request.
        CertificateNotIssued: When there is nothing to certify; the message says what is missing.
    """
    request = Requests(databases).find(request_id)
    if request is None:
        raise UnknownName(f"no erasure request {request_id!r} was accepted; `compliance erasure list` lists them")
    if request["state"] not in COMPLETE:
        raise CertificateNotIssued(_why_not(request))
    stored = request.get("certificate")
    if not isinstance(stored, str):
        raise CertificateNotIssued(
            f"erasure request {request_id} was completed before certificates were made; ask for the erasure once more "
            "under another request id: it finds nothing, and certifies that"
        )
    found: dict[str, Any] = json.loads(stored)
    return found


def _why_not(request: Document) -> str:
    state, residual = request["state"], request.get("residual") or {}
    what = f"erasure request {request['_id']} is {state}, and only a completed erasure is certified"
    if not residual:
        return what
    places = ", ".join(f"{count} in {name}" for name, count in residual.items())
    return f"{what}; identifiers of the person are left in documents: {places}"


def _entry(databases: Databases, request_id: str) -> Document:
    entries = [found for found in AuditLog(databases).of_request(request_id) if found["action"] == ACTION]
    named = [found for found in entries if DETAIL in found["details"]]
    if not named:
        raise CertificateNotIssued(
            f"the entry {ACTION} of {request_id} is not in the database: where old entries were pruned, a "
            "certificate that was issued before stays good, and a new one cannot be made"
        )
    return named[-1]


def _index(databases: Databases, entry: Document) -> int:
    try:
        return Seals(databases).index_of(entry)
    except UnknownName as error:
        raise NotSealedYet(str(error)) from None


def _first_checkpoint(databases: Databases, trust: Trust, log: str, index: int) -> tuple[int, bytes]:
    """Return size and note of the first checkpoint of ours that covers an entry; those of strangers are passed by."""
    for size, note in Seals(databases).checkpoints.above(log, index):
        try:
            trust.open(note)
        except InvalidProof:
            continue
        return size, note
    raise NotSealedYet("the entry is sealed and its checkpoint is not signed yet: try again in a second")
