"""A checkpoint is believed when it is of the right log and the right keys signed it."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.audit.checkpoint import (
    Checkpoint,
    Policy,
    format_checkpoint,
    open_checkpoint,
    parse_checkpoint,
    sign_checkpoint,
    verify_growth,
)
from compliance.audit.keys import KeyType, SigningKey
from compliance.audit.merkle import EMPTY_ROOT, leaf_hash, nodes_of, prove_consistency, root_of
from compliance.audit.note import cosign_note, sign_note
from compliance.errors import ConfigurationError, InvalidProof, MalformedProof

ORIGIN = "example.com/log"
LOG = SigningKey.from_seed(ORIGIN, b"l" * 32)
NEXT = SigningKey.from_seed(ORIGIN, b"n" * 32)
WITNESSES = [
    SigningKey.from_seed(f"witness{n}.example", bytes([n]) * 32, kind=KeyType.COSIGNATURE_V1) for n in range(3)
]
MOMENT = datetime(2026, 3, 31, 12, tzinfo=UTC)
LEAVES = [leaf_hash(bytes([number])) for number in range(50)]
CHECKPOINT = Checkpoint(origin=ORIGIN, size=50, root=root_of(LEAVES))
POLICY = Policy(origin=ORIGIN, keys=(LOG.verifier,))
WITNESSED = replace(POLICY, witnesses=tuple(key.verifier for key in WITNESSES), quorum=2)
SOFA = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


def cosigned(note: bytes, *witnesses: SigningKey) -> bytes:
    for witness in witnesses:
        note = cosign_note(note, witness, at=MOMENT)
    return note


@given(size=st.integers(1, 2**63 - 1), root=st.binary(min_size=32, max_size=32))
def test_a_checkpoint_and_its_text_are_the_same_thing(size: int, root: bytes) -> None:
    checkpoint = Checkpoint(origin=ORIGIN, size=size, root=root)

    assert parse_checkpoint(format_checkpoint(checkpoint)) == checkpoint


def test_the_example_of_the_specification_is_read_and_written() -> None:
    checkpoint = parse_checkpoint(SOFA)

    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert format_checkpoint(checkpoint) == SOFA


def test_the_empty_log_has_a_checkpoint() -> None:
    empty = Checkpoint(origin=ORIGIN, size=0, root=EMPTY_ROOT)

    assert parse_checkpoint(format_checkpoint(empty)) == empty


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        SOFA[:-1],
        SOFA + "\n",
        "\n" + SOFA,
        SOFA.replace("sofa\n", "sofa\n\n"),
        SOFA.replace("\n", "\r\n"),
        SOFA.replace("208", "0208"),
        SOFA.replace("208", "+208"),
        SOFA.replace("20852163", "-1"),
        SOFA.replace("20852163", str(2**63)),
        SOFA.replace("20852163", "0"),
        SOFA.replace("q2I=", "q2J="),
        SOFA.replace("q2I=", "q2I"),
        SOFA.replace("CsUY", "CsUYCsUY"),
        SOFA.replace("CsUY", ""),
        SOFA.replace("CsUY", " CsUY"),
        SOFA + "extension\n\nanother\n",
    ],
)
def test_what_is_not_a_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(MalformedProof):
        parse_checkpoint(text)


def test_extension_lines_are_read_and_not_written() -> None:
    text = SOFA + "what another log says\n—\n"
    checkpoint = parse_checkpoint(text)

    assert checkpoint.extensions == ("what another log says", "—")
    with pytest.raises(ValueError, match="extension"):
        format_checkpoint(checkpoint)


@pytest.mark.parametrize(
    "change",
    [
        {"origin": ""},
        {"origin": "two words"},
        {"origin": "a+b"},
        {"origin": "a\nb"},
        {"size": -1},
        {"size": 2**63},
        {"size": 0},
        {"root": b"short"},
    ],
)
def test_what_no_log_should_write_is_not_signed(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"origin|root"):
        sign_checkpoint(replace(CHECKPOINT, **change), [LOG])


def test_a_signed_checkpoint_is_opened_with_its_signatures() -> None:
    note = cosigned(sign_checkpoint(CHECKPOINT, [NEXT, LOG]), *WITNESSES)
    opened = open_checkpoint(note, policy=WITNESSED)

    assert opened.checkpoint == CHECKPOINT
    assert [s.cosigned_at for s in opened.signatures] == [None, MOMENT, MOMENT, MOMENT]


def test_one_of_two_keys_of_the_log_is_enough() -> None:
    both = replace(POLICY, keys=(LOG.verifier, NEXT.verifier))
    for key in (LOG, NEXT):
        assert open_checkpoint(sign_checkpoint(CHECKPOINT, [key]), policy=both).checkpoint == CHECKPOINT


def test_a_checkpoint_of_another_log_is_refused() -> None:
    note = sign_checkpoint(replace(CHECKPOINT, origin="example.com/other"), [LOG])
    with pytest.raises(InvalidProof, match=r"is not of example\.com/log"):
        open_checkpoint(note, policy=POLICY)


def test_witnesses_do_not_stand_in_for_the_log() -> None:
    other = SigningKey.from_seed("example.com/other", b"x" * 32)
    note = cosigned(sign_checkpoint(CHECKPOINT, [other]), *WITNESSES)
    with pytest.raises(InvalidProof, match=r"no key of example\.com/log"):
        open_checkpoint(note, policy=WITNESSED)


def test_the_quorum_counts_witnesses_and_not_signatures() -> None:
    note = cosigned(sign_checkpoint(CHECKPOINT, [LOG]), WITNESSES[0], WITNESSES[0], WITNESSES[0])
    with pytest.raises(InvalidProof, match="fewer than 2 witnesses"):
        open_checkpoint(note, policy=WITNESSED)

    assert open_checkpoint(cosigned(note, WITNESSES[2]), policy=WITNESSED).checkpoint == CHECKPOINT


def test_a_signed_note_that_is_no_checkpoint_is_refused() -> None:
    with pytest.raises(MalformedProof):
        open_checkpoint(sign_note("hello\n", [LOG]), policy=POLICY)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"keys": ()}, "needs a key"),
        ({"quorum": 4}, "quorum"),
        ({"quorum": -1}, "quorum"),
        ({"witnesses": (NEXT.verifier,), "quorum": 1}, "type 0x04"),
        ({"witnesses": (WITNESSES[0].verifier,) * 2}, "of its own"),
        ({"witnesses": (WITNESSES[0].verifier, replace(WITNESSES[0].verifier, name="twin.example"))}, "of its own"),
        ({"witnesses": (replace(LOG.verifier, kind=KeyType.COSIGNATURE_V1),), "quorum": 1}, "not the log's"),
    ],
)
def test_a_policy_that_would_believe_too_much_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        replace(WITNESSED, **change)


def test_the_log_may_sign_the_time_with_its_own_key() -> None:
    clock = SigningKey.from_seed(ORIGIN, b"l" * 32, kind=KeyType.COSIGNATURE_V1)
    note = cosigned(sign_checkpoint(CHECKPOINT, [LOG]), clock)
    opened = open_checkpoint(note, policy=replace(POLICY, keys=(LOG.verifier, clock.verifier)))

    assert [s.cosigned_at for s in opened.signatures] == [None, MOMENT]


@given(first=st.integers(0, 50), second=st.integers(0, 50))
def test_growth_is_shown_between_checkpoints_of_one_log(first: int, second: int) -> None:
    first, second = sorted((first, second))
    older = Checkpoint(origin=ORIGIN, size=first, root=root_of(LEAVES[:first]))
    newer = Checkpoint(origin=ORIGIN, size=second, root=root_of(LEAVES[:second]))
    proof = prove_consistency(first, second, node=nodes_of(LEAVES))

    verify_growth(older, newer, proof=proof)
    with pytest.raises(InvalidProof, match="different logs"):
        verify_growth(older, replace(newer, origin="example.com/other"), proof=proof)
    if first < second:
        with pytest.raises(InvalidProof):
            verify_growth(newer, older, proof=proof)
