"""The order of scripts: each after those it depends on, the others by number, phase and name; pure.

A script without ``DEPENDS_ON`` depends on the one before it by number, so a plain folder is a line.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from compliance.errors import DependencyRefused
from migrations.revision import Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Which script depends on which.

    Attributes:
        revisions: Every script, in the order to run them.
        parents: For each name the names of the scripts that it depends on directly.
    """

    revisions: tuple[Revision, ...]
    parents: Mapping[str, tuple[str, ...]]

    def with_ancestors(self, names: Iterable[str]) -> frozenset[str]:
        """Return *names* and everything that they depend on, directly or not."""
        found: set[str] = set()
        ahead = list(names)
        while ahead:
            name = ahead.pop()
            if name not in found:
                found.add(name)
                ahead += self.parents[name]
        return frozenset(found)

    def heads(self) -> tuple[Revision, ...]:
        """Return the scripts on which no other depends: more than one are branches that nothing merges."""
        depended_on = {parent for parents in self.parents.values() for parent in parents}
        return tuple(revision for revision in self.revisions if revision.name not in depended_on)


def build_graph(revisions: Iterable[Revision]) -> Graph:
    """Return the graph of *revisions*.

    Raises:
        DependencyRefused: When a script depends on one that is not there, or on itself by way of others.
    """
    numbered = sorted(revisions, key=lambda revision: revision.order)
    parents = _parents(numbered)
    for name, depended_on in parents.items():
        unknown = [parent for parent in depended_on if parent not in parents]
        if unknown:
            raise DependencyRefused(
                f"{name} depends on {', '.join(unknown)}, which is not in the folder; write the full name of a script "
                f"in its DEPENDS_ON, or bring that script back; known: {', '.join(parents)}"
            )
    return Graph(revisions=_sorted(numbered, parents), parents=parents)


def _parents(numbered: Sequence[Revision]) -> dict[str, tuple[str, ...]]:
    foundation = tuple(revision.name for revision in numbered if revision.number == 0)
    parents: dict[str, tuple[str, ...]] = {}
    before: tuple[str, ...] = ()
    for revision in numbered:
        declared = before if revision.depends_on is None else revision.depends_on
        # Nothing runs before the audit log is there, whatever a script declares.
        parents[revision.name] = declared or (foundation if revision.number else ())
        before = (revision.name,)
    return parents


def _sorted(numbered: Sequence[Revision], parents: Mapping[str, Collection[str]]) -> tuple[Revision, ...]:
    """Kahn's algorithm; of several that could be next, the first by number, phase and name."""
    children: dict[str, list[Revision]] = {revision.name: [] for revision in numbered}
    waits_for = {name: len(depended_on) for name, depended_on in parents.items()}
    for revision in numbered:
        for parent in parents[revision.name]:
            children[parent].append(revision)
    free = [(revision.order, revision) for revision in numbered if not waits_for[revision.name]]
    heapify(free)
    found: list[Revision] = []
    while free:
        _, revision = heappop(free)
        found.append(revision)
        for child in children[revision.name]:
            waits_for[child.name] -= 1
            if not waits_for[child.name]:
                heappush(free, (child.order, child))
    if len(found) < len(numbered):
        raise DependencyRefused(_describe_circle({name for name, count in waits_for.items() if count}, parents))
    return tuple(found)


def _describe_circle(stuck: Collection[str], parents: Mapping[str, Collection[str]]) -> str:
    """Each of *stuck* depends on another of them, so who goes from one to the next comes back."""
    path = [min(stuck)]
    while (following := min(parent for parent in parents[path[-1]] if parent in stuck)) not in path:
        path.append(following)
    circle = [*path[path.index(following) :], following]
    return (
        f"these depend on each other in a circle: {' -> '.join(circle)}; take one name out of a DEPENDS_ON "
        "(a script without DEPENDS_ON depends on the one numbered before it)"
    )
