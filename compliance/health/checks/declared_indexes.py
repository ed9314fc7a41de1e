"""Every declared index is there, with its keys and its uniqueness; so are our own collections with theirs."""

from collections.abc import Mapping
from typing import Any

from compliance.foundation import OWN, find_differences
from compliance.health.check import CHECKS, Finding, Scope
from compliance.health.declared import declared
from compliance.mongo import Document, driver_errors


def declared_indexes(scope: Scope) -> Finding:
    """Compare the application database with what migrations declared, and our own one with what this release needs."""
    wanted = declared(scope.databases, "index")
    problems = []
    for index in wanted:
        with driver_errors():
            present = scope.databases.app[index["collection"]].index_information()
        problem = _compare(index, present)
        if problem is not None:
            problems.append(f"{index['collection']}.{index['name']} {problem} (declared by {index['revision']})")
    problems += [
        f"{difference.problem} in {scope.databases.compliance.name}; run `compliance migrate up`"
        for difference in find_differences(scope.databases)
    ]
    return Finding(problems=tuple(problems), looked_at=len(wanted) + sum(map(len, OWN.values())))


def _compare(index: Document, present: Mapping[str, Any]) -> str | None:
    found = present.get(index["name"])
    if found is None:
        return "is missing"
    if [list(key) for key in found["key"]] != index["keys"]:
        return "has other keys"
    if bool(found.get("unique")) != index["unique"]:
        return "is not unique" if index["unique"] else "is unique"
    return "is hidden" if found.get("hidden") else None


CHECKS.add("declared_indexes", declared_indexes)
