"""The certificate of an erasure: a file that anybody can verify without our database, with one key of the audit log.

Shape (JSON, ``docs/erasure-certificate.schema.json``)::

    {certificate: the statement, fields: {JSON pointer: hex SHA-256}, proof: receipt of an entry (C2SP tlog-proof)}

The entry ``erasure.completed`` holds the SHA-256 of the canonical JSON of the statement. It is signed by the process
that erased, and sealed in the audit log, whose checkpoint is signed (Ed25519): so nobody has a certificate that the log
does not know of, and certificates need no key of their own. ``fields`` proves nothing; it tells what was altered.

Source: RFC 8785, RFC 6901; C2SP tlog-proof, tlog-checkpoint.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, ValidationError

from compliance.audit.checkpoint import Policy, parse_checkpoint
from compliance.audit.leaf import canonical_bytes
from compliance.audit.note import parse_note
from compliance.audit.receipt import Inclusion, parse_receipt, verify_receipt
from compliance.erasure.statement import Digest, Statement, Text
from compliance.errors import InvalidProof

ACTION = "erasure.completed"
DETAIL = "certificate"  # of that entry: the SHA-256 of the statement
CERTIFICATE, FIELDS, PROOF = "certificate", "fields", "proof"
LARGEST_BYTES = 16 * 1024 * 1024

_PARTS = (CERTIFICATE, FIELDS, PROOF)


class Envelope(BaseModel):
    """The whole file.

    Attributes:
        certificate: What is certified.
        fields: SHA-256 of each field by its place, to name what was altered.
        proof: That the entry with the SHA-256 of ``certificate`` is in the audit log.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    certificate: Statement
    fields: dict[Text, Digest]
    proof: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong with a certificate: where, as a JSON pointer or a part of the file, and why."""

    field: str
    why: str

    def __str__(self) -> str:
        return f"{self.field}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What the verification of a file found; *statement* and *inclusion* count only without *faults*."""

    faults: tuple[Fault, ...]
    statement: Mapping[str, Any] | None = None
    inclusion: Inclusion | None = None


def statement_bytes(statement: Mapping[str, Any]) -> bytes:
    """Return the canonical JSON of *statement*.

    Raises:
        TypeError: For a value that no certificate can hold, such as a float.
    """
    return canonical_bytes(statement)


def statement_digest(statement: Mapping[str, Any]) -> str:
    """Return the SHA-256 of *statement* that the log holds."""
    return hashlib.sha256(statement_bytes(statement)).hexdigest()


def make_certificate(statement: Mapping[str, Any], receipt: bytes) -> bytes:
    """Return the file that certifies *statement*, which the entry of *receipt* names."""
    content = {CERTIFICATE: statement, FIELDS: field_digests(statement), PROOF: receipt.decode()}
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file."""
    schema = Envelope.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Certificate of erasure"}


def field_digests(statement: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each field of *statement*, by its JSON pointer; an empty list or object is a field, too."""
    return {
        pointer: hashlib.sha256(canonical_bytes({pointer: value})).hexdigest() for pointer, value in _fields(statement)
    }


def _fields(value: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            escaped = str(name).replace("~", "~0").replace("/", "~1")
            yield from _fields(inner, f"{pointer}/{escaped}")
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _fields(inner, f"{pointer}/{number}")
    else:
        yield pointer, value


def verify_certificate(file: bytes, *, policy: Callable[[str], Policy]) -> Verified:
    """Return whether *file* is a certificate as it was issued, and every fault if it is none.

    Args:
        file: What somebody calls a certificate.
        policy: Returns whom to believe about the log of that name; may raise ``InvalidProof``.
    """
    content, why = _read(file)
    if content is None:
        return Verified(faults=(Fault("file", why),))
    shape = tuple(_shape_faults(content))
    statement, fields, proof = (content.get(name) for name in _PARTS)
    if not isinstance(statement, dict):
        return Verified(faults=shape)
    digest, altered = _digests(statement, fields)
    inclusion, faults = _prove(proof, digest, policy) if isinstance(proof, str) else (None, ())
    is_ours = not any(fault.field == CERTIFICATE for fault in faults) and inclusion is not None
    named = tuple(_name_altered(altered, is_statement_intact=is_ours))
    found = tuple(dict.fromkeys((*named, *_beside(faults, named), *shape)))
    return Verified(faults=found, statement=statement, inclusion=inclusion)


def _log_of(proof: str) -> str:
    return parse_checkpoint(parse_note(parse_receipt(proof.encode()).checkpoint)[0]).origin


def _beside(faults: tuple[Fault, ...], named: tuple[Fault, ...]) -> Iterator[Fault]:
    """Leave out that the statement as a whole is another one where the fields that were altered are named."""
    yield from (fault for fault in faults if not (named and fault.field == CERTIFICATE))


def _read(file: bytes) -> tuple[dict[str, Any] | None, str]:
    if len(file) > LARGEST_BYTES:
        return None, f"it has more than {LARGEST_BYTES} bytes"
    try:
        content = json.loads(
            file, object_pairs_hook=_once_each, parse_float=_refuse, parse_constant=_refuse, parse_int=_whole
        )
    except (ValueError, RecursionError):
        return None, "it is not JSON as certificates are written: UTF-8, each name once, no fractions"
    if not isinstance(content, dict):
        return None, "it is not a JSON object"
    return content, ""


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that stands twice: another reader could believe the other one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def _refuse(_: str) -> NoReturn:
    raise ValueError


def _whole(text: str) -> int:
    if text == "-0":  # the canonical form is another
        raise ValueError
    return int(text)


def _shape_faults(content: dict[str, Any]) -> Iterator[Fault]:
    try:
        Envelope.model_validate(content)
    except ValidationError as error:
        for fault in error.errors(include_input=False, include_url=False, include_context=False):
            inside = fault["loc"][1:] if fault["loc"][:1] == (CERTIFICATE,) else fault["loc"]
            place = "/".join(str(part) for part in inside if part != "[key]")
            is_inside = len(fault["loc"]) > 1 and fault["loc"][0] == CERTIFICATE
            yield Fault(f"/{place}" if is_inside else place or CERTIFICATE, _explain(fault["type"], fault["msg"]))


def _explain(kind: str, message: str) -> str:
    known = {"missing": "is missing", "extra_forbidden": "is no field of a certificate"}
    return known.get(kind, message[:1].lower() + message[1:])


def _digests(statement: dict[str, Any], fields: Any) -> tuple[str | None, dict[str, str]]:
    """Return the digest of *statement*, and why for each field that is not as *fields* tells."""
    try:
        now, digest = field_digests(statement), statement_digest(statement)
    except (TypeError, RecursionError):
        return None, {}
    told = fields if isinstance(fields, dict) else {}
    altered = dict.fromkeys(now.keys() - told.keys(), "was added")
    altered |= dict.fromkeys(told.keys() - now.keys(), "was taken away")
    altered |= {name: "was altered" for name in now.keys() & told.keys() if now[name] != told[name]}
    return digest, altered


def _name_altered(altered: Mapping[str, str], *, is_statement_intact: bool) -> Iterator[Fault]:
    for pointer in sorted(altered):
        if is_statement_intact:  # it is what the log holds, so the list beside it is wrong
            yield Fault(f"{FIELDS}{pointer}", "does not fit the certificate, which is as it was issued")
        else:
            yield Fault(pointer, f"{altered[pointer]} after the certificate was issued")


def _prove(
    proof: str, digest: str | None, policy: Callable[[str], Policy]
) -> tuple[Inclusion | None, tuple[Fault, ...]]:
    try:
        log = _log_of(proof)
        found = verify_receipt(proof.encode(), policy=policy(log))
        entry = json.loads(found.leaf)
    except InvalidProof as error:
        return None, (Fault(PROOF, str(error)),)
    except ValueError:
        return None, (Fault(PROOF, "it is not about an entry of an audit log"),)
    return found, tuple(_entry_faults(entry, log, digest))


def _entry_faults(entry: Any, log: str, digest: str | None) -> Iterator[Fault]:
    details = entry.get("details") if isinstance(entry, dict) else None
    if not isinstance(details, dict) or entry.get("action") != ACTION or DETAIL not in details:
        yield Fault(PROOF, f"it is about another entry than {ACTION} with the SHA-256 of a certificate")
        return
    if entry.get("log") != log:
        yield Fault(PROOF, "its entry is of another log than the one that was signed")
    if details[DETAIL] != digest:
        yield Fault(CERTIFICATE, "is not the one that the audit log names for this erasure")
