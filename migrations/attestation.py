"""What staging states of the scripts that it has applied, in a file that production can believe; pure.

A signed note: canonical JSON under a line that says what it is, so that no other text of the same key can pass for it::

    compliance-worker migrations/v1
    {"database":"shop","environment":"staging","made_at":"2026-05-01T12:00:00Z","scripts":[...]}

    — writer <base64 of key id and signature>

Source: C2SP signed-note (Format, Signatures); RFC 8785.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints, ValidationError

from compliance.audit.keys import SigningKey, Verifier
from compliance.audit.leaf import canonical_bytes
from compliance.audit.note import open_note, sign_note
from compliance.audit.trust import key_name
from compliance.errors import InvalidProof, MalformedProof

HEADING = "compliance-worker migrations/v1"
MAX_BYTES = 4 * 1024 * 1024  # more than ten thousand scripts

Name = Annotated[str, StringConstraints(pattern=r"^v[0-9]{3}_(pre|data|post)_[a-z][a-z0-9_]*$")]
Sum = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
EntryId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,60}$")]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class AttestedScript(_Model):
    """One script that is applied.

    Attributes:
        checksum: That of the text that ran, not of one that was accepted since.
        entry: The id of its entry ``migration.applied`` in the audit log of staging; None where that was pruned.
        problems: How much was not as it says when the record was made; 0 is verified.
    """

    name: Name
    checksum: Sum
    applied_at: AwareDatetime
    entry: EntryId | None
    problems: int


class Attestation(_Model):
    """A record of staging.

    Attributes:
        database: The name of its application database.
        environment: As ``COMPLIANCE_ENV`` says.
        scripts: By name.
    """

    database: Word
    environment: Word
    made_at: AwareDatetime
    scripts: tuple[AttestedScript, ...]


def sign_attestation(attestation: Attestation, key: SigningKey) -> bytes:
    """Return the file of *attestation*."""
    body = canonical_bytes(attestation.model_dump(mode="json")).decode()
    return sign_note(f"{HEADING}\n{body}\n", [key])


def open_attestation(note: bytes, keys: Sequence[Verifier]) -> tuple[Attestation, str]:
    """Return what *note* states, and the name of the key among *keys* that signed it.

    Raises:
        InvalidProof: When none of *keys* signed it, or it was changed since.
        MalformedProof: When it is no record of migrations.
    """
    if len(note) > MAX_BYTES:
        raise MalformedProof(f"a record of migrations has at most {MAX_BYTES} bytes")
    try:
        opened = open_note(note, keys)
    except MalformedProof:
        raise MalformedProof("this is no record of migrations; `compliance migrate attest` writes one") from None
    except InvalidProof:
        raise InvalidProof(
            "no key of COMPLIANCE_STAGING_KEYS signed this record as it is: it was changed, or made elsewhere; let "
            "staging make another one, and compare its key with what `compliance migrate attest` says there"
        ) from None
    heading, _, body = opened.text.partition("\n")
    if heading != HEADING:
        raise MalformedProof("staging signed this, but it is no record of migrations")
    try:
        return Attestation.model_validate_json(body), key_name(opened.signatures[0].verifier)
    except ValidationError:
        raise MalformedProof("this record of migrations is not of the form that this release reads") from None
