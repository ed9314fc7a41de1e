"""A note is what its known signers signed, or it is nothing."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.audit.keys import KeyType, SigningKey, Verifier, parse_skey, parse_vkey
from compliance.audit.note import (
    MAX_SIGNATURES,
    SignatureLine,
    add_lines,
    cosign_note,
    gather_lines,
    open_note,
    parse_note,
    sign_note,
)
from compliance.errors import ConfigurationError, InvalidProof, MalformedProof

# The note of the tests of golang.org/x/mod/sumdb/note.
PETER = parse_vkey("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
PETERS_KEY = parse_skey("PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
LINE = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
NOTE = f"{TEXT}\n{LINE}".encode()

# The examples of C2SP signed-note and tlog-cosignature.
POEM = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "— quasimodo.example/salvatore "
    "NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
)
COSIGNED = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)

WITNESS = SigningKey.from_seed("witness.example/w1", b"w" * 32, kind=KeyType.COSIGNATURE_V1)
OTHER = SigningKey.from_seed("other.example", b"o" * 32)
MOMENT = datetime(2026, 3, 31, 12, tzinfo=UTC)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.just("\n"), max_size=40).map("{}\n".format)


def signers(note: bytes, *verifiers: Verifier) -> list[str]:
    return [signature.verifier.name for signature in open_note(note, verifiers).signatures]


def test_the_note_of_the_go_implementation_is_signed_and_opened() -> None:
    assert sign_note(TEXT, [PETERS_KEY]) == NOTE
    assert (open_note(NOTE, [PETER]).text, signers(NOTE, PETER)) == (TEXT, ["PeterNeumann"])


def test_the_example_of_the_specification_is_read() -> None:
    text, (line,) = parse_note(POEM.encode())

    assert text == POEM[: POEM.index("\n— ")]
    assert (line.name, line.key_id.hex(), len(line.signature)) == ("quasimodo.example/salvatore", "367ba04b", 64)
    assert POEM.endswith(f"\n{line}")


def test_the_example_of_a_cosignature_is_read() -> None:
    _, (log, witness) = parse_note(COSIGNED.encode())

    assert (log.name, log.key_id.hex(), len(log.signature)) == ("example.com/behind-the-sofa", "033de0ae", 64)
    assert (witness.name, witness.key_id.hex(), len(witness.signature)) == ("witness.example.com/w1", "8d66cf3f", 72)
    assert int.from_bytes(witness.signature[:8], "big") == 1679315147


@given(text=TEXTS)
def test_every_text_is_given_back(text: str) -> None:
    note = cosign_note(sign_note(text, [PETERS_KEY, OTHER]), WITNESS, at=MOMENT)
    opened = open_note(note, [WITNESS.verifier, OTHER.verifier, PETER])

    assert opened.text == text
    assert [(s.verifier.name, s.cosigned_at) for s in opened.signatures] == [
        ("PeterNeumann", None),
        ("other.example", None),
        ("witness.example/w1", MOMENT),
    ]


def test_signatures_of_unknown_keys_say_nothing() -> None:
    note = sign_note(TEXT, [OTHER, PETERS_KEY])

    assert signers(note, PETER) == ["PeterNeumann"]
    with pytest.raises(InvalidProof, match="no known key"):
        open_note(note, [WITNESS.verifier])
    with pytest.raises(InvalidProof, match="no known key"):
        open_note(note, [])


def test_a_key_of_the_same_name_or_the_same_id_is_another_key() -> None:
    other = SigningKey.from_seed("PeterNeumann", b"o" * 32)
    note = sign_note(TEXT, [other])
    with pytest.raises(InvalidProof, match="no known key"):
        open_note(note, [PETER])

    borrowed = SignatureLine("somebody", PETER.key_id, PETERS_KEY.sign(TEXT.encode()))
    with pytest.raises(InvalidProof, match="no known key"):
        open_note(f"{TEXT}\n{borrowed}".encode(), [PETER])


@pytest.mark.parametrize("wrong", [b"", TEXT.encode()])
def test_one_wrong_signature_of_a_known_key_spoils_the_note(wrong: bytes) -> None:
    forged = SignatureLine("PeterNeumann", PETER.key_id, PETERS_KEY.sign(wrong + b"x"))
    for lines in (f"{LINE}{forged}", f"{forged}{LINE}", str(forged)):
        with pytest.raises(InvalidProof, match="does not verify"):
            open_note(f"{TEXT}\n{lines}".encode(), [PETER])


def test_a_key_counts_once_however_often_it_signed() -> None:
    note = cosign_note(sign_note(TEXT, [PETERS_KEY, PETERS_KEY]), WITNESS, at=MOMENT)
    note = cosign_note(note, WITNESS, at=MOMENT + timedelta(days=1))
    opened = open_note(note, [PETER, PETER, WITNESS.verifier])

    assert [(s.verifier, s.cosigned_at) for s in opened.signatures] == [(PETER, None), (WITNESS.verifier, MOMENT)]


def test_two_keys_that_cannot_be_told_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Verifier, "key_id", b"same")
    with pytest.raises(ConfigurationError, match="two keys"):
        open_note(NOTE, [Verifier("n", KeyType.ED25519, byte * 32) for byte in (b"a", b"b")])


@given(place=st.integers(0, len(NOTE) - 1), change=st.integers(1, 255))
def test_any_changed_byte_is_found(place: int, change: int) -> None:
    note = bytearray(NOTE)
    note[place] ^= change
    with pytest.raises(InvalidProof):
        open_note(bytes(note), [PETER])


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\n",
        b"\n\n",
        TEXT.encode(),
        f"{TEXT}\n".encode(),
        f"{TEXT}{LINE}".encode(),
        f"\n{LINE}".encode(),
        NOTE[:-1],
        NOTE + b"\n",
        NOTE + b"x\n",
        NOTE.replace(b"\n", b"\r\n"),
        NOTE.replace("—".encode(), b"-"),
        NOTE.replace(b"Peter", b"Pe ter"),
        NOTE.replace(b"Peter", b"Pe+ter"),
        NOTE.replace(b" Peter", "\u3000Peter".encode()),
        NOTE.replace(b"PeterNeumann ", b" "),
        NOTE.replace(b"PeterNeumann ", b"PeterNeumann"),
        NOTE.replace(b"PeterNeumann ", b"PeterNeumann  "),
        NOTE.replace(b"If", b"I\x00"),
        NOTE.replace(b"If", b"I\t"),
        NOTE.replace(b"If", b"\xff\xfe"),
        NOTE.replace(b"If", b"\xed\xa0\x80"),
        NOTE.replace(b"AM=\n", b"AN=\n"),
        NOTE.replace(b"AM=\n", b"AM\n"),
        f"{TEXT}\n— PeterNeumann x08gow==\n".encode(),
        f"{TEXT}\n— PeterNeumann x08=\n".encode(),
        f"{TEXT}\n— PeterNeumann \n".encode(),
        f"{TEXT}\n— PeterNeumann\n".encode(),
    ],
)
def test_what_is_not_a_note_is_refused(note: bytes) -> None:
    with pytest.raises(MalformedProof):
        open_note(note, [PETER])


def test_a_note_may_have_100_signatures_and_no_more() -> None:
    note = f"{TEXT}\n".encode() + LINE.encode() * MAX_SIGNATURES

    assert signers(note, PETER) == ["PeterNeumann"]
    with pytest.raises(MalformedProof, match="more than 100"):
        open_note(note + LINE.encode(), [PETER])


@pytest.mark.parametrize("text", ["", "no newline", "a\tb\n", "a\x00\n", "a\r\n"])
def test_what_cannot_be_the_text_of_a_note_is_not_signed(text: str) -> None:
    with pytest.raises(ValueError, match="ends in a newline"):
        sign_note(text, [PETERS_KEY])


def test_a_note_is_not_written_without_a_signature() -> None:
    with pytest.raises(ValueError, match="has a signature"):
        sign_note(TEXT, [])


def test_lines_that_somebody_else_signed_are_added() -> None:
    cosigned = cosign_note(NOTE, WITNESS, at=MOMENT)

    assert add_lines(NOTE, cosigned.removeprefix(NOTE)) == cosigned
    assert add_lines(NOTE, b"") == NOTE


@pytest.mark.parametrize("lines", [b"x", b"\n", b"x\n", f"more text\n\n{LINE}".encode(), f"\n{LINE}".encode()])
def test_only_signature_lines_are_added(lines: bytes) -> None:
    with pytest.raises(MalformedProof):
        add_lines(NOTE, lines)
    with pytest.raises(MalformedProof):
        add_lines(b"not a note", LINE.encode())


def line_of(key: SigningKey, *, text: str = TEXT) -> bytes:
    """The line of a cosigner for the note, or for another one."""
    note = sign_note(text, [PETERS_KEY])
    return cosign_note(note, key, at=MOMENT).removeprefix(note)


SECOND = SigningKey.from_seed("witness.example/w2", b"2" * 32, kind=KeyType.COSIGNATURE_V1)
JUNK = [b"", b"junk", b"\xff", LINE.encode() + b"more", "— x AAAA\n".encode(), b"\n\n", "— a b c\n".encode()]


@pytest.mark.parametrize("junk", JUNK)
def test_junk_is_left_out_of_what_was_gathered(junk: bytes) -> None:
    good = line_of(WITNESS)

    assert gather_lines(NOTE, [junk, good, junk]) == NOTE + good
    assert gather_lines(NOTE, [junk]) == NOTE


def test_a_line_in_the_name_of_a_signer_is_left_out() -> None:
    forged = LINE.replace("x08go/ZJ", "x08go/ZK").encode()

    assert gather_lines(NOTE, [forged, LINE.encode(), line_of(WITNESS)]) == NOTE + line_of(WITNESS)


def test_lines_of_known_keys_are_verified_and_come_first() -> None:
    wrong, right, unknown = line_of(WITNESS, text="another\n"), line_of(WITNESS), line_of(SECOND)
    known = [WITNESS.verifier]

    assert gather_lines(NOTE, [unknown, wrong, right], known=known) == NOTE + right + unknown
    assert gather_lines(NOTE, [wrong], known=known) == NOTE
    assert gather_lines(NOTE, [wrong]) == NOTE + wrong
    assert signers(gather_lines(NOTE, [unknown, wrong, right], known=known), *known) == [WITNESS.verifier.name]


def test_each_line_is_gathered_once_and_no_more_than_a_note_takes() -> None:
    good = line_of(WITNESS)
    many = [str(SignatureLine("w", number.to_bytes(4), b"x")).encode() for number in range(MAX_SIGNATURES + 5)]

    assert gather_lines(NOTE, [good, good]) == NOTE + good
    found = gather_lines(NOTE, [*many, good], known=[WITNESS.verifier])
    assert len(parse_note(found)[1]) == MAX_SIGNATURES
    assert signers(found, WITNESS.verifier, PETER) == ["PeterNeumann", WITNESS.verifier.name]
    assert found.startswith(NOTE + good)
