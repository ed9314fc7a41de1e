"""Every declared index is there, with its keys and options, and built; so are our own collections with theirs."""

from collections.abc import Mapping
from typing import Any

from compliance.foundation import OWN, find_differences
from compliance.health.check import CHECKS, Finding, Scope
from compliance.health.declared import declared, declared_options
from compliance.health.index_spec import differences
from compliance.health.observed import observed_indexes
from compliance.mongo import Databases, Document


def declared_indexes(scope: Scope) -> Finding:
    """Compare the application database with what migrations declared, and our own one with what this release needs."""
    looked_at, found = find_index_problems(scope.databases)
    problems = [f"{problem} (declared by {revision})" for revision, problem in found]
    problems += [
        f"{difference.problem} in {scope.databases.compliance.name}; run `compliance migrate up`"
        for difference in find_differences(scope.databases)
    ]
    return Finding(problems=tuple(problems), looked_at=looked_at + sum(map(len, OWN.values())))


def find_index_problems(databases: Databases) -> tuple[int, list[tuple[str, str]]]:
    """Return how many indexes are declared, and of each that differs the migration that declared it and a sentence.

    A read-only operation.
    """
    wanted = declared(databases, "index")
    problems = []
    for index in wanted:
        problem = _compare(index, observed_indexes(databases.app, index["collection"]))
        if problem is not None:
            problems.append((index["revision"], f"{index['collection']}.{index['name']} {problem}"))
    return len(wanted), problems


def _compare(index: Document, present: Mapping[str, Any]) -> str | None:
    found = present.get(index["name"])
    if found is None:
        return "is missing"
    if found.is_building:
        return "is still being built"
    differs_in = differences([tuple(key) for key in index["keys"]], declared_options(index), found.spec)
    if differs_in:
        return _fault(differs_in[0], is_wanted=index["unique"])
    is_hidden = bool(found.spec.get("hidden"))
    if is_hidden != ("hidden_since" in index):
        return "is hidden" if is_hidden else "is not hidden"
    return None


def _fault(option: str, *, is_wanted: bool) -> str:
    if option == "key":
        return "has other keys"
    if option == "unique":
        return "is not unique" if is_wanted else "is unique"
    return f"has another {option}"


CHECKS.add("declared_indexes", declared_indexes)
