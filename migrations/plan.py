"""Decide what runs, in which order; pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from compliance.errors import IrreversibleMigration, MigrationError, RevisionEdited, UnknownName
from migrations.revision import Phase, Revision

ZERO = "zero"
FOUNDATION = (1, Phase.PRE, "")  # before everything that is numbered 001


class Direction(StrEnum):
    """Which way."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The revisions to run, in the order to run them."""

    direction: Direction
    revisions: tuple[Revision, ...]


def check(revisions: Sequence[Revision], applied: Mapping[str, str]) -> None:
    """Compare the folder with the ledger.

    Args:
        revisions: Every script of the folder.
        applied: Name and checksum of every applied revision.

    Raises:
        RevisionEdited: When an applied script was changed.
        MigrationError: When an applied script is missing, or a new one stands before an applied one.
    """
    present = {revision.name: revision for revision in revisions}
    missing = [name for name in applied if name not in present]
    if missing:
        raise MigrationError(f"applied but no longer in the folder: {', '.join(missing)}; bring the scripts back")
    edited = [name for name, digest in applied.items() if present[name].checksum != digest]
    if edited:
        raise RevisionEdited(
            f"changed after they were applied: {', '.join(edited)}; restore them and write a new script instead"
        )
    last = max((present[name].order for name in applied), default=None)
    late = [revision.name for revision in revisions if revision.name not in applied and last and revision.order < last]
    if late:
        raise MigrationError(f"new but numbered before applied ones: {', '.join(late)}; renumber them")


def plan_up(revisions: Sequence[Revision], applied: Mapping[str, str], target: str | None = None) -> Plan:
    """Return what is pending, up to and with *target*."""
    check(revisions, applied)
    end = _last_match(revisions, target).order if target else None
    pending = [
        revision for revision in revisions if revision.name not in applied and (end is None or revision.order <= end)
    ]
    return Plan(direction=Direction.UP, revisions=tuple(pending))


def plan_down(
    revisions: Sequence[Revision], applied: Mapping[str, str], target: str, *, begun: Collection[str] = ()
) -> Plan:
    """Return what has to be undone so that *target* is the last applied revision.

    ``zero`` undoes every script; the foundation (number 000) stays, with the audit log and the history in it.

    Args:
        revisions: Every script of the folder.
        applied: Name and checksum of every applied revision.
        target: As ``Revision.matches`` reads it, or ``zero``.
        begun: Names of revisions that a run which died left half applied or half undone.

    Raises:
        IrreversibleMigration: Naming the revision on the way that says why it stays.
    """
    check(revisions, applied)
    end = FOUNDATION if target == ZERO else _last_match(revisions, target).order
    undo = [
        revision
        for revision in reversed(revisions)
        if (revision.name in applied or revision.name in begun) and revision.order > end
    ]
    for revision in undo:
        if revision.irreversible:
            raise IrreversibleMigration(f"{revision.name} cannot be undone: {revision.irreversible}")
    return Plan(direction=Direction.DOWN, revisions=tuple(undo))


def _last_match(revisions: Sequence[Revision], target: str) -> Revision:
    for revision in reversed(revisions):
        if revision.matches(target):
            return revision
    known = ", ".join(revision.name for revision in revisions)
    raise UnknownName(f"there is no migration {target!r}; known: {known}")
