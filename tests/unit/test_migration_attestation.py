"""What a record of staging must be to count."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from signing import LOG_KEY, WRITER_KEY

from compliance.audit.note import sign_note
from compliance.errors import ConfigurationError, InvalidProof, MalformedProof, PromotionRefused
from migrations.attestation import HEADING, MAX_BYTES, Attestation, AttestedScript, open_attestation, sign_attestation
from migrations.promotion import Gate

KEYS = (WRITER_KEY.verifier,)
GATE = Gate(keys=KEYS, database="shop", environment="live", longest=timedelta(days=30))
KEY_NAME = f"writer+{WRITER_KEY.verifier.key_id.hex()}"


def attestation(moment: datetime, **changes: Any) -> Attestation:
    script = AttestedScript(name="v001_pre_x", checksum="a" * 64, applied_at=moment, entry="b" * 32, problems=0)
    values = {"database": "shop", "environment": "staging", "made_at": moment, "scripts": (script,)}
    return Attestation.model_validate(values | changes)


def test_what_was_signed_is_what_is_read(moment: datetime) -> None:
    made = attestation(moment)
    note = sign_attestation(made, WRITER_KEY)

    assert open_attestation(note, KEYS) == (made, KEY_NAME)
    assert note.startswith(f'{HEADING}\n{{"database":"shop","environment":"staging","made_at":"2026-'.encode())


def test_a_record_that_another_key_signed_is_refused(moment: datetime) -> None:
    with pytest.raises(InvalidProof, match="no key of COMPLIANCE_STAGING_KEYS signed this record as it is"):
        open_attestation(sign_attestation(attestation(moment), LOG_KEY), KEYS)


@pytest.mark.parametrize(("old", "new"), [(b"a" * 64, b"c" * 64), (b":0}", b":1}"), (b"shop", b"ship")])
def test_a_record_that_was_changed_is_refused(moment: datetime, old: bytes, new: bytes) -> None:
    note = sign_attestation(attestation(moment), WRITER_KEY)

    assert old in note
    with pytest.raises(InvalidProof, match="it was changed, or made elsewhere"):
        open_attestation(note.replace(old, new), KEYS)


@pytest.mark.parametrize("note", [b"", b"junk", b"\xff" * 10, b"a" * (MAX_BYTES + 1)])
def test_what_is_no_record_is_refused(note: bytes) -> None:
    with pytest.raises(MalformedProof, match="record of migrations"):
        open_attestation(note, KEYS)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("something else\n{}\n", "it is no record of migrations"),
        (f"{HEADING}\n{{}}\n", "not of the form"),
        (f"{HEADING}\n[]\n", "not of the form"),
        (f"{HEADING}\n", "not of the form"),
    ],
)
def test_what_staging_signed_for_something_else_is_no_record(text: str, why: str) -> None:
    with pytest.raises(MalformedProof, match=why):
        open_attestation(sign_note(text, [WRITER_KEY]), KEYS)


REFUSED: dict[str, tuple[dict[str, Any], Callable[[datetime], datetime], str]] = {
    "expired": ({}, lambda at: at + timedelta(days=30, seconds=1), "expired after 30 days"),
    "not yet": ({}, lambda at: at - timedelta(hours=1, seconds=1), "which is not yet; set the clocks"),
    "another database": ({"database": "ship"}, lambda at: at, "of the database ship, not of shop"),
    "its own": ({"environment": "live"}, lambda at: at, "an environment cannot vouch for itself"),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_a_record_that_does_not_count_here_is_refused_with_its_own_sentence(moment: datetime, what: str) -> None:
    changes, now, sentence = REFUSED[what]
    note = sign_attestation(attestation(moment, **changes), WRITER_KEY)

    with pytest.raises(PromotionRefused, match=sentence):
        GATE.open(note, now=now(moment))


@pytest.mark.parametrize("apart", [timedelta(days=30), -timedelta(hours=1), timedelta()])
def test_a_record_counts_to_the_last_moment(moment: datetime, apart: timedelta) -> None:
    made = attestation(moment)

    assert GATE.open(sign_attestation(made, WRITER_KEY), now=moment + apart) == (made, KEY_NAME)


def test_without_a_key_no_record_counts(moment: datetime) -> None:
    with pytest.raises(ConfigurationError, match="set COMPLIANCE_STAGING_KEYS"):
        Gate().open(sign_attestation(attestation(moment), WRITER_KEY), now=moment)
