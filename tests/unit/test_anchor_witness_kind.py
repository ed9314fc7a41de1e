"""A witness is asked for what it does not have yet, and believed in nothing else."""

import pytest
from structlog.testing import capture_logs
from witnesses import ORIGIN, REWRITTEN, WITNESS, Line, StillClock, Witness, head_of

from compliance.audit.keys import SigningKey
from compliance.errors import (
    AnchorUnavailable,
    CheckpointRefused,
    ConfigurationError,
    LogForked,
    LogRolledBack,
)
from worker.anchors import Head
from worker.anchors.kinds.witness import WitnessAnchor


def witnessed(witness: Witness) -> WitnessAnchor:
    return WitnessAnchor(name="outside", witness=WITNESS.verifier, server=Line(witness), clock=StillClock())  # type: ignore[arg-type]


def test_a_witness_is_asked_once_while_it_is_known_how_far_it_is() -> None:
    witness = Witness()
    anchor = witnessed(witness)

    lines = [anchor.push(head_of(size)) for size in (0, 1, 100, 100, 300)]

    assert all(line.startswith("— witness.example ".encode()) for line in lines)
    assert [body.partition(b"\n")[0] for body in witness.asked] == [
        b"old 0",
        b"old 0",
        b"old 1",
        b"old 100",
        b"old 100",
    ]


def test_after_a_start_it_is_learnt_how_far_the_witness_is() -> None:
    witness = Witness()
    witnessed(witness).push(head_of(100))

    witnessed(witness).push(head_of(200))

    assert [body.partition(b"\n")[0] for body in witness.asked] == [b"old 0", b"old 0", b"old 100"]


def test_a_witness_that_forgot_cosigns_again_and_that_is_told() -> None:
    witness = Witness()
    anchor = witnessed(witness)
    anchor.push(head_of(100))
    witness.latest.clear()
    with capture_logs() as logs:
        anchor.push(head_of(200))

    assert witness.latest[ORIGIN].size == 200
    assert [(line["event"], line["size"], line["before"]) for line in logs] == [("anchor.forgot", 0, 100)]


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize(
    ("later", "error"),
    [
        (head_of(199), LogRolledBack),
        (head_of(200, REWRITTEN), LogForked),
        (head_of(300, REWRITTEN), LogForked),
        (head_of(100, REWRITTEN), LogRolledBack),
        (head_of(300, key=SigningKey.from_seed(ORIGIN, b"i" * 32)), CheckpointRefused),
        (head_of(1, key=SigningKey.from_seed("example.com/log/2027", b"l" * 32)), ConfigurationError),
    ],
    ids=["shorter", "same size", "longer", "shorter and other", "key", "log"],
)
def test_a_witness_refuses_what_does_not_continue(later: Head, error: type[Exception], *, is_new: bool) -> None:
    witness = Witness()
    anchor = witnessed(witness)
    anchor.push(head_of(200))

    with pytest.raises(error):
        (witnessed(witness) if is_new else anchor).push(later)

    assert witness.latest == {ORIGIN: head_of(200).checkpoint}


def test_a_witness_that_never_agrees_is_given_up_on() -> None:
    witness = Witness()
    answers = iter(range(1, 100))
    witness.answer = lambda _: (409, "text/x.tlog.size", b"%d\n" % next(answers))  # type: ignore[method-assign]

    with pytest.raises(AnchorUnavailable, match="another size with every answer"):
        witnessed(witness).push(head_of(200))

    assert next(answers) == 4


# The loop
