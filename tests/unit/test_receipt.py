"""A receipt proves one entry of one log to somebody who has nothing but the keys."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.audit.checkpoint import Checkpoint, Policy, sign_checkpoint
from compliance.audit.entry import Entry, to_document
from compliance.audit.keys import KeyType, SigningKey
from compliance.audit.leaf import canonical_bytes, entry_hash
from compliance.audit.merkle import leaf_hash, nodes_of, root_of
from compliance.audit.note import cosign_note
from compliance.audit.receipt import (
    Receipt,
    format_receipt,
    make_receipt,
    parse_receipt,
    verify_receipt,
    verify_receipt_of,
)
from compliance.errors import InvalidProof, MalformedProof

ORIGIN = "example.com/log"
LOG = SigningKey.from_seed(ORIGIN, b"l" * 32)
WITNESS = SigningKey.from_seed("witness.example", b"w" * 32, kind=KeyType.COSIGNATURE_V1)
POLICY = Policy(origin=ORIGIN, keys=(LOG.verifier,), witnesses=(WITNESS.verifier,), quorum=1)
MOMENT = datetime(2026, 3, 31, 12, tzinfo=UTC)
DOCUMENTS = [
    to_document(
        Entry(
            event=f"e-{number}",
            entity_type="job",
            entity_id=f"j-{number}",
            action="erasure.completed",
            created_at=MOMENT,
            performed_by="worker",
            details={"documents": number},
        )
    )
    for number in range(21)
]
ENTRIES = [canonical_bytes(document) for document in DOCUMENTS]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
NODES = nodes_of(LEAVES)


def signed(size: int) -> bytes:
    checkpoint = Checkpoint(origin=ORIGIN, size=size, root=root_of(LEAVES[:size]))
    return cosign_note(sign_checkpoint(checkpoint, [LOG]), WITNESS, at=MOMENT)


FILE = make_receipt(ENTRIES[13], index=13, node=NODES, checkpoint=signed(21))
DETACHED = format_receipt(replace(parse_receipt(FILE), extra=None))
LINES = FILE.split(b"\n")


@given(size=st.integers(1, 21), data=st.data())
def test_every_entry_has_a_receipt_that_verifies_alone(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    file = make_receipt(ENTRIES[index], index=index, node=NODES, checkpoint=signed(size))
    found = verify_receipt(file, policy=POLICY)

    assert (found.leaf, found.index, found.signed.checkpoint.size) == (ENTRIES[index], index, size)
    assert [signature.cosigned_at for signature in found.signed.signatures] == [None, MOMENT]


def test_the_leaf_of_a_receipt_is_the_entry_as_the_log_hashed_it() -> None:
    found = verify_receipt(FILE, policy=POLICY)

    assert leaf_hash(found.leaf) == entry_hash(DOCUMENTS[13])


def test_a_receipt_is_laid_out_as_specified() -> None:
    proof = (b"a" * 32, b"b" * 32)
    file = format_receipt(Receipt(index=5, proof=proof, checkpoint=b"test checkpoint\n", extra=b"extra information"))

    assert file.decode() == (
        "c2sp.org/tlog-proof@v1\n"
        "extra ZXh0cmEgaW5mb3JtYXRpb24=\n"
        "index 5\n"
        "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=\n"
        "YmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmI=\n"
        "\n"
        "test checkpoint\n"
    )


@pytest.mark.parametrize("extra", [None, b"leaf"])
@pytest.mark.parametrize("proof", [(), (b"a" * 32,)])
def test_a_receipt_and_its_file_are_the_same_thing(extra: bytes | None, proof: tuple[bytes, ...]) -> None:
    receipt = Receipt(index=0, proof=proof, checkpoint=b"checkpoint\n\n- x\n", extra=extra)

    assert parse_receipt(format_receipt(receipt)) == receipt


def test_a_receipt_without_its_entry_verifies_beside_it() -> None:
    assert verify_receipt_of(ENTRIES[13], DETACHED, policy=POLICY).index == 13
    assert verify_receipt_of(ENTRIES[13], FILE, policy=POLICY).leaf == ENTRIES[13]
    with pytest.raises(MalformedProof, match="does not carry its entry"):
        verify_receipt(DETACHED, policy=POLICY)
    with pytest.raises(InvalidProof):
        verify_receipt_of(ENTRIES[12], DETACHED, policy=POLICY)


def verifies(file: bytes) -> bool:
    try:
        verify_receipt(file, policy=POLICY)
    except InvalidProof:
        return False
    return True


@pytest.mark.parametrize("change", [0x01, 0x20, 0x80])
def test_any_changed_byte_of_a_receipt_is_found(change: int) -> None:
    changed = (FILE[:place] + bytes([FILE[place] ^ change]) + FILE[place + 1 :] for place in range(len(FILE)))

    assert [place for place, file in enumerate(changed) if verifies(file)] == []


def test_a_receipt_that_was_cut_or_lacks_a_byte_is_refused() -> None:
    cut = (FILE[:place] for place in range(len(FILE)))
    lacking = (FILE[:place] + FILE[place + 1 :] for place in range(len(FILE)))

    assert [place for place, file in enumerate(cut) if verifies(file)] == []
    assert [place for place, file in enumerate(lacking) if verifies(file)] == []


@pytest.mark.parametrize("added", [b"\x00", b"\n", b" ", b"A", b"\r", b"="])
def test_a_byte_that_was_added_anywhere_is_found(added: bytes) -> None:
    longer = (FILE[:place] + added + FILE[place:] for place in range(len(FILE) + 1))

    assert [place for place, file in enumerate(longer) if verifies(file)] == []


@pytest.mark.parametrize("line", range(1, len(LINES) - 3))  # lines of signatures have no order
def test_lines_cannot_be_exchanged_doubled_or_left_out(line: int) -> None:
    exchanged = [*LINES[: line - 1], LINES[line], LINES[line - 1], *LINES[line + 1 :]]
    without = LINES[:line] + LINES[line + 1 :]
    doubled = LINES[: line + 1] + LINES[line:]

    assert [verifies(b"\n".join(lines)) for lines in (exchanged, without, doubled)] == [False, False, False]


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"c2sp.org/tlog-proof@v1",
        b"c2sp.org/tlog-proof@v1\n\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\n",
        b"c2sp.org/tlog-proof@v2\nindex 0\n\ncheckpoint\n",
        b"c2sp.org/tlog-proof@v1\nextra \nindex 0\n\ncheckpoint\n",
        b"c2sp.org/tlog-proof@v1\nextra !\nindex 0\n\ncheckpoint\n",
        b"c2sp.org/tlog-proof@v1\nextra YQ==\n\ncheckpoint\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\nextra YQ==\n\ncheckpoint\n",
        b"c2sp.org/tlog-proof@v1\nindex 00\n\ncheckpoint\n",
        b"c2sp.org/tlog-proof@v1\nindex -1\n\ncheckpoint\n",
        b"c2sp.org/tlog-proof@v1\nindex zero\n\ncheckpoint\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\nYQ==\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nindex ٣\n\ncheckpoint\n".encode(),
    ],
)
def test_what_is_not_a_receipt_is_refused(file: bytes) -> None:
    with pytest.raises(MalformedProof):
        parse_receipt(file)


def test_a_receipt_of_another_log_or_without_the_witness_is_refused() -> None:
    with pytest.raises(InvalidProof, match="is not of"):
        verify_receipt(FILE, policy=replace(POLICY, origin="example.com/other"))
    bare = FILE[: FILE.index("— witness.example".encode())]
    with pytest.raises(InvalidProof, match="fewer than 1 witnesses"):
        verify_receipt(bare, policy=POLICY)


def test_a_receipt_does_not_move_to_a_checkpoint_of_another_size() -> None:
    moved = replace(parse_receipt(FILE), checkpoint=signed(20))
    with pytest.raises(InvalidProof):
        verify_receipt(format_receipt(moved), policy=POLICY)


def test_nobody_gets_a_receipt_that_would_not_verify() -> None:
    with pytest.raises(InvalidProof):
        make_receipt(ENTRIES[12], index=13, node=NODES, checkpoint=signed(21))
    with pytest.raises(ValueError, match="no leaf 21"):
        make_receipt(ENTRIES[13], index=21, node=NODES, checkpoint=signed(21))
    with pytest.raises(ValueError, match="empty"):
        make_receipt(b"", index=13, node=NODES, checkpoint=signed(21))
