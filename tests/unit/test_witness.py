"""What is asked of a witness, and what its answers mean."""

from dataclasses import replace
from datetime import timedelta

import pytest
from witnesses import LEAVES, LOG, MOMENT, ORIGIN, REWRITTEN, WITNESS, Witness, head_of

from compliance.audit.checkpoint import Policy, open_checkpoint
from compliance.audit.keys import KeyType, SigningKey
from compliance.audit.note import add_lines, cosign_note
from compliance.audit.wire import encode_base64
from compliance.audit.witness import Answer, Cosignature, KnownSize, check_witness, format_request, read_answer
from compliance.errors import (
    AnchorUnavailable,
    CheckpointRefused,
    ComplianceError,
    ConfigurationError,
    InvalidProof,
    LogForked,
    LogRolledBack,
    MalformedProof,
)
from worker.anchors import Head

SIZE = "text/x.tlog.size"
HEAD = head_of(200)
OTHER = SigningKey.from_seed("other.example", b"o" * 32, kind=KeyType.COSIGNATURE_V1)
IMPOSTOR = SigningKey.from_seed("witness.example", b"i" * 32, kind=KeyType.COSIGNATURE_V1)


def lines_by(*keys: SigningKey, head: Head = HEAD, at: timedelta = timedelta()) -> bytes:
    note = head.note
    for key in keys:
        note = cosign_note(note, key, at=MOMENT + at)
    return note[len(head.note) :]


def read(
    status: int, body: bytes = b"", content_type: str | None = None, *, old_size: int = 100, head: Head = HEAD
) -> Cosignature | KnownSize:
    return read_answer(
        Answer(status=status, content_type=content_type, body=body),
        note=head.note,
        checkpoint=head.checkpoint,
        old_size=old_size,
        witness=WITNESS.verifier,
        now=MOMENT,
    )


def test_a_request_is_the_old_size_the_proof_and_the_checkpoint() -> None:
    proof = HEAD.proof_from(100)

    body = format_request(HEAD.note, old_size=100, proof=proof)

    assert body == b"old 100\n" + b"".join(encode_base64(one).encode() + b"\n" for one in proof) + b"\n" + HEAD.note
    assert format_request(HEAD.note, old_size=0, proof=[]) == b"old 0\n\n" + HEAD.note


def test_a_request_has_at_most_63_hashes() -> None:
    assert format_request(HEAD.note, old_size=1, proof=LEAVES[:63]).count(b"\n") == 65 + HEAD.note.count(b"\n")
    with pytest.raises(ValueError, match="at most 63"):
        format_request(HEAD.note, old_size=1, proof=LEAVES[:64])


@pytest.mark.parametrize("sizes", [(0, 1), (1, 2), (0, 300), (255, 256), (100, 200), (200, 200)], ids=str)
def test_a_witness_takes_what_we_ask_and_its_lines_make_a_quorum(sizes: tuple[int, int]) -> None:
    witness = Witness()
    for old_size, head in zip((0, sizes[0]), map(head_of, sizes), strict=True):
        status, content_type, body = witness.answer(
            format_request(head.note, old_size=old_size, proof=head.proof_from(old_size))
        )
        found = read(status, body, content_type, old_size=old_size, head=head)
    assert isinstance(found, Cosignature)
    policy = Policy(origin=ORIGIN, keys=(LOG.verifier,), witnesses=(WITNESS.verifier,), quorum=1)

    assert open_checkpoint(add_lines(head.note, found.lines), policy=policy).checkpoint.size == sizes[1]
    assert found.cosigned_at == MOMENT


def test_only_the_lines_of_the_witness_are_kept() -> None:
    found = read(200, lines_by(OTHER, WITNESS, IMPOSTOR))

    assert isinstance(found, Cosignature)
    assert found.lines == lines_by(WITNESS)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        lines_by(OTHER),
        lines_by(IMPOSTOR),
        lines_by(WITNESS, head=head_of(199)),
        lines_by(WITNESS)[:-1],
        lines_by(WITNESS)[:-9] + b"AAAAAAA=\n",
        lines_by(WITNESS) + b"hello\n",
        b"\n" + lines_by(WITNESS),
        b"<html>welcome to the hotel</html>\n",
        lines_by(OTHER) * 101,
    ],
    ids=["empty", "other", "impostor", "size", "cut", "wrong", "more", "gap", "html", "many"],
)
def test_what_is_not_signed_by_the_witness_over_this_checkpoint_is_not_believed(body: bytes) -> None:
    with pytest.raises(InvalidProof):
        read(200, body)


@pytest.mark.parametrize("at", [timedelta(minutes=5), timedelta(minutes=-5)])
def test_a_cosignature_may_be_five_minutes_off_and_no_more(at: timedelta) -> None:
    assert isinstance(read(200, lines_by(WITNESS, at=at)), Cosignature)
    with pytest.raises(InvalidProof, match="look at its clock"):
        read(200, lines_by(WITNESS, at=at + at / 300))


@pytest.mark.parametrize("size", [0, 99, 101, 200])
def test_another_size_has_to_be_sent(size: int) -> None:
    assert read(409, f"{size}\n".encode(), SIZE) == KnownSize(size)


def test_a_witness_that_knows_more_entries_tells_of_a_rollback() -> None:
    with pytest.raises(LogRolledBack, match=r"cosigned size 201 of example\.com/log/2026, which has 200 entries"):
        read(409, b"201\n", SIZE)


@pytest.mark.parametrize("answer", [(b"200\n", SIZE), (b"", None), (b"", "text/plain")], ids=str)
def test_a_conflict_at_the_same_size_tells_of_a_fork(answer: tuple[bytes, str | None]) -> None:
    with pytest.raises(LogForked, match=r"size 200 of example\.com/log/2026 with other entries"):
        read(409, *answer, old_size=200)


def test_a_proof_that_does_not_verify_tells_of_a_fork() -> None:
    with pytest.raises(LogForked, match=r"cosigned size 100 .* with other entries; size 200 does not continue"):
        read(422)


@pytest.mark.parametrize("body", [b"", b"100", b"-1\n", b"0100\n", b"100\n\n", b"\xc3\xa9\n", b"9" * 20 + b"\n"])
def test_a_size_that_is_none_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedProof):
        read(409, body, SIZE)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (403, CheckpointRefused),
        (404, ConfigurationError),
        (400, ConfigurationError),
        (409, AnchorUnavailable),
        (301, AnchorUnavailable),
        (204, AnchorUnavailable),
        (429, AnchorUnavailable),
        (500, AnchorUnavailable),
        (503, AnchorUnavailable),
    ],
)
def test_every_other_answer_is_an_error_that_says_what_to_do(status: int, error: type[ComplianceError]) -> None:
    with pytest.raises(error, match=r"witness\.example"):
        read(status, lines_by(WITNESS))


def test_a_conflict_over_the_size_it_gave_itself_is_no_fork() -> None:
    with pytest.raises(AnchorUnavailable, match="size that it gave itself"):
        read(409, b"100\n", SIZE)


def test_a_rewritten_log_is_told_from_one_that_grew() -> None:
    witness = Witness()
    witness.answer(format_request(head_of(100).note, old_size=0, proof=[]))
    forked = head_of(200, REWRITTEN)

    status, content_type, body = witness.answer(format_request(forked.note, old_size=100, proof=forked.proof_from(100)))

    assert status == 422
    with pytest.raises(LogForked):
        read(status, body, content_type, head=forked)


def test_the_key_of_a_witness_says_when() -> None:
    assert check_witness(WITNESS.verifier) == WITNESS.verifier
    with pytest.raises(ConfigurationError, match="type 0x04"):
        check_witness(replace(WITNESS.verifier, kind=KeyType.ED25519))
