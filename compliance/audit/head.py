"""What was signed last of a log, once its signature is known to be ours."""

from compliance.audit.checkpoint import Checkpoint, open_checkpoint
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
    note = seals.checkpoint(log)
    if note is None:
        known = ", ".join(seals.logs()) or "none"
        raise UnknownName(f"nothing is signed of a log of this name; known: {known}")
    return open_checkpoint(note, policy=trust.policy(log)).checkpoint


def find_head(seals: Seals, trust: Trust, log: str) -> Checkpoint | None:
    """Return the last checkpoint of *log* that is to be believed, None where there is none."""
    for note in seals.last_checkpoints(log, TRIED):
        try:
            return open_checkpoint(note, policy=trust.policy(log)).checkpoint
        except InvalidProof:
            continue
    return None
