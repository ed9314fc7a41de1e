"""What was signed last, once its signature is known to be ours."""

from datetime import datetime

from compliance.audit.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from compliance.audit.note import parse_note
from compliance.audit.seals import Seals
from compliance.audit.trust import Trust
from compliance.errors import InvalidProof, UnknownName

TRIED = 100  # checkpoints that a stranger may have added behind ours


def signed_tree(seals: Seals, trust: Trust, log: str) -> Checkpoint:
    """Return what was signed last of *log*.

    Raises:
        UnknownName: When nothing of it is signed.
        InvalidProof: When the last checkpoint is not to be believed.
    """
    note = seals.checkpoints.note(log)
    if note is None:
        known = ", ".join(seals.logs()) or "none"
        raise UnknownName(f"nothing is signed of a log of this name; known: {known}")
    return open_checkpoint(note, policy=trust.policy(log)).checkpoint


def find_head(seals: Seals, trust: Trust, log: str) -> Checkpoint | None:
    """Return the last checkpoint of *log* that is to be believed, None where there is none."""
    for note in seals.checkpoints.last(log, TRIED):
        try:
            return open_checkpoint(note, policy=trust.policy(log)).checkpoint
        except InvalidProof:
            continue
    return None


def find_note(seals: Seals, trust: Trust, *, before: datetime | None = None) -> bytes | None:
    """Return the signed note of what was sealed last, of all logs of ours; None where nothing was.

    Args:
        seals: What is sealed.
        trust: Whose signatures count; a checkpoint of somebody else is passed by.
        before: Where given, what was sealed since then is left out.

    Raises:
        InvalidProof: When logs of ours have checkpoints, and none is to be believed.
    """
    refused: InvalidProof | None = None
    for log, size in seals.ends(before):
        note = seals.checkpoints.note(log, size)
        try:
            trust.open(note or b"")
        except InvalidProof as error:
            refused = refused or (error if trust.names(log) else None)
        else:
            return note
    if refused is not None:
        raise refused
    return None


def present_log(seals: Seals, trust: Trust) -> str:
    """Return the name of the log that was sealed last: that of the present year.

    Raises:
        UnknownName: When nothing is signed yet.
        InvalidProof: When no checkpoint is to be believed.
    """
    note = find_note(seals, trust)
    if note is None:
        raise UnknownName("nothing is sealed yet; the watcher seals the log")
    return parse_checkpoint(parse_note(note)[0]).origin
