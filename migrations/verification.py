"""Whether the database is what the applied scripts say: their verify steps, and what they declared; reads only.

A verify step was true when its script ran. Where a later script goes through the same collection, it may have changed
what an earlier one looked at, so of a collection only the verify steps behind its last change count.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compliance.errors import ComplianceError
from compliance.health.checks.declared_indexes import find_index_problems
from compliance.health.checks.declared_validators import find_validator_problems
from compliance.mongo import Databases
from migrations.revision import Revision
from migrations.step import Kind, Step, digest

BOUNDS = ("exactly", "at_least", "at_most")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is not as a script says.

    Attributes:
        what: A sentence with names and counts, never an id or a value.
        collection: Where a verify step found it; empty where none did.
    """

    revision: str
    what: str
    collection: str = ""

    def __str__(self) -> str:
        return f"{self.revision}: {self.what}"


@dataclass(slots=True)
class Inspection:
    """What one script says of its collections, while none of its steps is carried out.

    Attributes:
        failed: What its verify steps found, by collection.
        changed: The collections whose documents its other steps go through.
    """

    failed: dict[str, list[str]] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)

    def begin(self, number: int, kind: Kind, what: str, arguments: Mapping[str, Any]) -> Step | None:
        """Return a verify step; None for any other, which is passed by."""
        if kind is Kind.BACKFILL:
            self.pass_through(arguments["collection"])
        if kind is not Kind.VERIFY:
            return None
        return Step(number=number, kind=kind, what=what, digest=digest(kind, arguments))

    def pass_through(self, collection: str) -> None:
        """Forget what was found in *collection* so far: its documents are changed behind that."""
        self.changed.add(collection)
        self.failed.pop(collection, None)

    def look(self, collection: str, found: int, *, none: bool, count: Mapping[str, Any]) -> None:
        """Note what is wrong with the *found* documents of a verify step, if anything.

        Args:
            collection: Where they are.
            found: How many match its filter.
            none: Whether none may.
            count: Else the bounds of their number.
        """
        if none and found:
            self._note(collection, f"{found} documents of {collection} are not as they should be")
        if not none and not is_within(found, count):
            self._note(collection, f"{collection} holds {found} such documents, and should hold {bounds_of(count)}")

    def _note(self, collection: str, what: str) -> None:
        self.failed.setdefault(collection, []).append(what)


def is_within(found: int, count: Mapping[str, Any]) -> bool:
    """Whether a number of documents is within the bounds of *count*."""
    exactly, least, most = (count.get(name, found) for name in BOUNDS)
    return bool(least <= found <= most and found == exactly)


def bounds_of(count: Mapping[str, Any]) -> str:
    """Return the bounds of *count* for a sentence."""
    return ", ".join(f"{name.replace('_', ' ')} {count[name]}" for name in BOUNDS if name in count)


def find_problems(
    databases: Databases, applied: Sequence[Revision], inspect: Callable[[Revision, Inspection], object]
) -> tuple[Problem, ...]:
    """Return what is not as the *applied* scripts say.

    Args:
        databases: Reached with rights to read them.
        applied: In the order in which they run.
        inspect: Runs the way up of a script with an inspection.
    """
    found: list[Problem] = []
    for revision in applied:
        inspection = Inspection()
        try:
            inspect(revision, inspection)
        except ComplianceError as error:
            found.append(Problem(revision=revision.name, what=f"cannot be looked at: {error}"))
            continue
        except Exception as error:  # noqa: BLE001 - a script may count on what its other steps do; its text may quote
            found.append(Problem(revision=revision.name, what=f"cannot be looked at ({type(error).__name__})"))
            continue
        found = [problem for problem in found if problem.collection not in inspection.changed]
        found += [
            Problem(revision=revision.name, what=sentence, collection=collection)
            for collection, sentences in inspection.failed.items()
            for sentence in sentences
        ]
    return (*found, *_undeclared(databases))


def _undeclared(databases: Databases) -> Iterable[Problem]:
    for look in (find_index_problems, find_validator_problems):
        _, found = look(databases)
        yield from (Problem(revision=revision, what=what) for revision, what in found)
