"""Decide what runs, in which order; pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from compliance.errors import (
    DependencyRefused,
    IrreversibleMigration,
    RevisionEdited,
    RevisionLate,
    RevisionMissing,
    UnknownName,
)
from migrations.graph import Graph, build_graph
from migrations.past import Mark, Past
from migrations.revision import Revision

ZERO = "zero"


class Direction(StrEnum):
    """Which way."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The revisions to run, in the order to run them.

    Attributes:
        waiting: Names of those that can run only when an online change that they depend on is completed.
    """

    direction: Direction
    revisions: tuple[Revision, ...]
    waiting: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripts:
    """What there is to run, and what became of it.

    Attributes:
        folder: Every script of the folder.
        gone: Scripts that left something to undo and are not in the folder any more, as the history keeps them.
    """

    folder: Sequence[Revision]
    past: Past
    gone: Sequence[Revision] = ()

    def graph(self) -> Graph:
        """Return the graph of all of them."""
        return build_graph((*self.folder, *self.gone))

    def missing(self) -> list[str]:
        """Return what ran, is not in the folder, and was not accepted as missing."""
        present = {revision.name for revision in self.folder}
        return [name for name in self.past.begun - present if not self.past.traces[name].is_missed]

    def edited(self) -> list[str]:
        """Return what is applied as something else than the folder holds."""
        held = {**self.past.applied, **self.past.open}
        return [one.name for one in self.folder if held.get(one.name, one.checksum) != one.checksum]

    def late(self, graph: Graph) -> list[str]:
        """Return what is not applied although something that depends on it is."""
        applied = self.past.applied
        before = graph.with_ancestors(applied)
        held = applied.keys() | self.past.open.keys()
        return [one.name for one in graph.revisions if one.name in before and one.name not in held]


def plan_up(scripts: Scripts, target: str | None = None, *, allow_late: Collection[str] = ()) -> Plan:
    """Return what is pending: all of it, or *target* and what it depends on.

    Args:
        scripts: Of the folder and of the history.
        target: As ``Revision.matches`` reads it; where several do, all of them.
        allow_late: Names of scripts that may run although one that depends on them is applied.

    Raises:
        RevisionMissing: When an applied script is gone.
        RevisionEdited: When an applied script was changed.
        RevisionLate: When a new script stands before an applied one.
        DependencyRefused: When the scripts have no order.
    """
    _refuse_missing(scripts)
    _refuse_edited(scripts)
    graph = scripts.graph()
    _refuse_unknown(graph, allow_late)
    _refuse_late([name for name in scripts.late(graph) if name not in allow_late])
    wanted = graph.with_ancestors(_matches(graph, target)) if target else graph.parents
    applied = scripts.past.applied
    held = applied.keys() | scripts.past.open.keys()
    pending = [revision for revision in graph.revisions if revision.name in wanted and revision.name not in held]
    open_ = scripts.past.open.keys() | {revision.name for revision in pending if revision.is_online}
    waiting = tuple(one.name for one in pending if open_ and open_ & graph.with_ancestors(graph.parents[one.name]))
    return Plan(
        direction=Direction.UP, revisions=tuple(one for one in pending if one.name not in waiting), waiting=waiting
    )


def plan_only(scripts: Scripts, name: str, *, allow_late: Collection[str] = ()) -> Plan:
    """Return the one script *name*, or nothing where it is applied.

    Raises:
        DependencyRefused: When what it depends on is not applied.
        UnknownName: When no script, or more than one, has this name.
        RevisionMissing, RevisionEdited, RevisionLate: As ``plan_up``; another script that is late does not matter.
    """
    _refuse_missing(scripts)
    _refuse_edited(scripts)
    graph = scripts.graph()
    _refuse_unknown(graph, allow_late)
    revision = find_one(graph, name)
    applied = scripts.past.applied
    if revision.name in applied or revision.name in scripts.past.open:
        return Plan(direction=Direction.UP, revisions=())
    if graph.with_ancestors(graph.parents[revision.name]) & scripts.past.open.keys():
        return Plan(direction=Direction.UP, revisions=(), waiting=(revision.name,))
    lacking = [parent for parent in graph.parents[revision.name] if parent not in applied]
    if lacking:
        raise DependencyRefused(
            f"{revision.name} depends on {', '.join(lacking)}, which is not applied; apply what it depends on, too, "
            f"with `compliance migrate up --to {revision.name}`"
        )
    if revision.name in scripts.late(graph) and revision.name not in allow_late:
        _refuse_late([revision.name])
    return Plan(direction=Direction.UP, revisions=(revision,))


def plan_down(scripts: Scripts, target: str) -> Plan:
    """Return what has to be undone so that of all scripts *target* and what it depends on is left.

    ``zero`` undoes every script; the foundation (number 000) stays, with the audit log and the history in it. What is
    left depends on nothing that is undone. A script that is no longer in the folder is undone as the history keeps it.

    Raises:
        RevisionEdited: When a script of the folder is not the one that was applied.
        IrreversibleMigration: Naming the revision on the way that says why it stays.
    """
    _refuse_edited(scripts)
    graph = scripts.graph()
    if target == ZERO:
        kept = frozenset(revision.name for revision in graph.revisions if revision.number == 0)
    else:
        kept = graph.with_ancestors(_matches(graph, target))
    begun = scripts.past.begun
    undo = [found for found in reversed(graph.revisions) if found.name in begun and found.name not in kept]
    for revision in undo:
        _refuse_completed(revision, scripts)
        if revision.irreversible:
            raise IrreversibleMigration(f"{revision.name} cannot be undone: {revision.irreversible}")
    return Plan(direction=Direction.DOWN, revisions=tuple(undo))


def plan_rollback(scripts: Scripts, name: str) -> Plan:
    """Return the one online change *name*, to be undone; nothing depends on it while it is open.

    Raises:
        IrreversibleMigration: When it is completed, or being completed.
        UnknownName: When it is no online change.
    """
    _refuse_edited(scripts)
    revision = find_one(scripts.graph(), name)
    if not revision.is_online:
        raise UnknownName(f"{revision.name} is no online change: undo it with `compliance migrate down`")
    is_begun = revision.name in scripts.past.begun
    if is_begun:
        _refuse_completed(revision, scripts)
    return Plan(direction=Direction.DOWN, revisions=(revision,) if is_begun else ())


def _refuse_completed(revision: Revision, scripts: Scripts) -> None:
    if revision.is_online and scripts.past.traces[revision.name].mark in (Mark.COMPLETING, Mark.APPLIED):
        raise IrreversibleMigration(
            f"{revision.name} is completed, and its old shape is gone; write an online change the other way round"
        )


def find_open(scripts: Scripts, name: str) -> Revision:
    """Return the one online change that *name* names and that waits to be completed, or was interrupted in it.

    Raises:
        UnknownName: When it is no online change, or is not open.
    """
    revision = find_one(scripts.graph(), name)
    if not revision.is_online:
        raise UnknownName(f"{revision.name} is no online change: it declares no CHANGE")
    if revision.name not in scripts.past.open:
        trace = scripts.past.traces.get(revision.name)
        now = f"it is {trace.mark}" if trace else "it was never started"
        raise UnknownName(
            f"{revision.name} is not open: {now}; `compliance migrate online start` begins it, or goes on"
        )
    return revision


def refuse_waiting(plan: Plan) -> None:
    """Return if no script of *plan* waits for an online change.

    Raises:
        DependencyRefused: Naming those that do.
    """
    if plan.waiting:
        raise DependencyRefused(
            f"an online change that {', '.join(plan.waiting)} depends on is open; complete it first with "
            "`compliance migrate online complete NAME`"
        )


def find_one(graph: Graph, name: str) -> Revision:
    """Return the one script that *name* names.

    Raises:
        UnknownName: When no script does, or more than one.
    """
    found = _matches(graph, name)
    if len(found) > 1:
        raise UnknownName(f"{name!r} names several migrations: {', '.join(found)}; say which")
    return next(revision for revision in graph.revisions if revision.name == found[0])


def _matches(graph: Graph, target: str) -> list[str]:
    found = [revision.name for revision in graph.revisions if revision.matches(target)]
    if not found:
        known = ", ".join(revision.name for revision in graph.revisions)
        raise UnknownName(f"there is no migration {target!r}; known: {known}")
    return found


def _refuse_unknown(graph: Graph, names: Collection[str]) -> None:
    for name in names:
        if name not in graph.parents:
            raise UnknownName(f"there is no migration {name!r}; write its full name; known: {', '.join(graph.parents)}")


def _refuse_missing(scripts: Scripts) -> None:
    missing = scripts.missing()
    if not missing:
        return
    half = [name for name in missing if scripts.past.traces[name].mark is not Mark.APPLIED]
    if half:
        raise RevisionMissing(
            f"half applied and no longer in the folder: {', '.join(half)}; bring the scripts back and run `up`, or "
            "undo them with `compliance migrate down` to the migration before"
        )
    now = {revision.checksum: revision.name for revision in scripts.folder}
    renamed = [f"{name} is now {now[sum_]}" for name in missing if (sum_ := scripts.past.traces[name].checksum) in now]
    raise RevisionMissing(
        f"applied but no longer in the folder: {', '.join(missing)}"
        + (f" ({', '.join(renamed)}: give it its old name again)" if renamed else "")
        + "; bring the scripts back, undo them with `compliance migrate down`, or accept that they are gone with "
        "`compliance migrate repair --accept NAME --reason TEXT`"
    )


def _refuse_edited(scripts: Scripts) -> None:
    edited = scripts.edited()
    if edited:
        raise RevisionEdited(
            f"changed after they were applied: {', '.join(edited)}; restore them and write a new script instead, or, "
            "where the database is what the new text says, `compliance migrate repair --accept NAME --reason TEXT`"
        )


def _refuse_late(late: Collection[str]) -> None:
    if late:
        raise RevisionLate(
            f"new but before applied ones: {', '.join(late)}; renumber them, say in DEPENDS_ON what each script really "
            "depends on, or run them all the same with `compliance migrate up --allow-late NAME`"
        )
