"""Every declared collection is there, with its validator, which refuses what it does not allow."""

from compliance.health.check import CHECKS, Finding, Scope
from compliance.health.declared import declared, same_validator
from compliance.mongo import Databases, Document, driver_errors


def declared_validators(scope: Scope) -> Finding:
    """Compare the validators of the application database with what migrations declared."""
    looked_at, found = find_validator_problems(scope.databases)
    return Finding(
        problems=tuple(f"{problem} (declared by {revision})" for revision, problem in found), looked_at=looked_at
    )


def find_validator_problems(databases: Databases) -> tuple[int, list[tuple[str, str]]]:
    """Return how many validators are declared, and of each that differs the migration that declared it and a sentence.

    A read-only operation.
    """
    wanted = declared(databases, "collection")
    with driver_errors():
        present = {info["name"]: info.get("options", {}) for info in databases.app.list_collections()}
    problems = []
    for collection in wanted:
        problem = _compare(collection, present.get(collection["collection"]))
        if problem is not None:
            problems.append((collection["revision"], f"{collection['collection']} {problem}"))
    return len(wanted), problems


def _compare(collection: Document, options: Document | None) -> str | None:
    if options is None:
        return "is missing"
    if not same_validator(collection["validator"], options.get("validator")):
        return "has another validator" if options.get("validator") else "has lost its validator"
    if options.get("validator") and options.get("validationAction", "error") != "error":
        return "has a validator that only warns"
    if options.get("validator") and options.get("validationLevel", "strict") != collection["level"]:
        return f"does not validate at level {collection['level']}"
    return None


CHECKS.add("declared_validators", declared_validators)
