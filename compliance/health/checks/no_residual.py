"""Nothing is left of people who were erased: of one, or of all."""

from compliance.datamap.pseudonym import VARIABLE, Pseudonyms
from compliance.datamap.rule import Keep
from compliance.datamap.subject import Identity
from compliance.erasure.keyed import KeyedNeedles
from compliance.erasure.locate import Locator, find_identity
from compliance.erasure.request import Requests
from compliance.erasure.spared import Spared
from compliance.erasure.stage import COMPLETE, REQUESTS
from compliance.erasure.sweep import compile_needles, sweep
from compliance.health.check import CHECKS, Finding, Scope
from compliance.mongo import driver_errors


def no_residual(scope: Scope) -> Finding:
    """Look for erased people by the locators of the data map, then sweep every collection for their ids."""
    if scope.pseudonyms is not None:
        return _no_residual_of_pseudonyms(scope, scope.pseudonyms)
    people = [Identity({scope.data_map.subject.key: scope.subject_id})] if scope.subject_id else _all_erased(scope)
    located = _located(scope) if scope.subject_id else {}
    needles = compile_needles(people)
    spared = Spared.of(scope.databases.app, scope.data_map, needles)
    swept = sweep(scope.databases.app, needles, spares=spared.spares) if people else {}
    return Finding(problems=tuple(map(_problem, sorted((located | swept).items()))), looked_at=len(people))


def _problem(found: tuple[str, int]) -> str:
    name, count = found
    return f"{count} documents of {name} hold an identifier of an erased person"


def _no_residual_of_pseudonyms(scope: Scope, pseudonyms: Pseudonyms) -> Finding:
    """Name every id that stands in a document, and compare: of people who were erased only pseudonyms are left."""
    requests = Requests(scope.databases)
    erased = requests.pseudonyms_of(scope.subject_id) if scope.subject_id else requests.pseudonyms_of_erased()
    needles = KeyedNeedles(pseudonyms, erased)
    spared = Spared.of(scope.databases.app, scope.data_map, needles)
    swept = sweep(scope.databases.app, needles, spares=spared.spares, check=scope.check) if erased else {}
    problems = [*map(_problem, sorted(swept.items()))]
    if needles.lost:
        problems.append(
            f"{needles.lost} people who were erased are named by a key that {VARIABLE} does not hold; nobody can look"
        )
    return Finding(problems=tuple(problems), looked_at=len(erased))


def _located(scope: Scope) -> dict[str, int]:
    if scope.subject_id is None or scope.data_map.tenant is not None:
        return {}  # whose person it was is not said here; the sweep looks at everybody's documents
    identity = find_identity(scope.databases.app, scope.data_map, scope.subject_id)
    known = identity or Identity({scope.data_map.subject.key: scope.subject_id})
    locator = Locator(scope.databases.app, scope.data_map, known)
    steps = (step for step in locator.steps if not isinstance(step.action, Keep))
    counts = {step.collection: locator.count(step) for step in steps}
    return {name: count for name, count in counts.items() if count}


def _all_erased(scope: Scope) -> list[Identity]:
    query = {"state": {"$in": [stage.value for stage in COMPLETE]}}
    with driver_errors():
        requests = scope.databases.compliance[REQUESTS].find(query, {"subject_id": 1})
        return [Identity({scope.data_map.subject.key: request["subject_id"]}) for request in requests]


CHECKS.add("no_residual", no_residual)
