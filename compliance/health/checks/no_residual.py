"""Nothing is left of people who were erased: of one, or of all."""

from collections import Counter
from collections.abc import Iterable
from itertools import chain

from compliance.datamap.pseudonym import VARIABLE
from compliance.datamap.rule import Keep
from compliance.datamap.subject import Identity
from compliance.erasure.keyed import KeyedNeedles
from compliance.erasure.locate import Locator, find_identity
from compliance.erasure.request import Requests
from compliance.erasure.spared import Spared
from compliance.erasure.sweep import Finder, compile_needles, sweep
from compliance.health.check import CHECKS, Finding, Scope
from compliance.mongo import Document


def no_residual(scope: Scope) -> Finding:
    """Look for erased people by the locators of the data map, then sweep every collection for their ids.

    Collections that a legal hold left out are not looked at for those people.
    """
    people = _erased(scope)
    found: Counter[str] = Counter()
    lost = 0
    for left_out, same in people.items():
        needles = _needles(scope, same)
        spared = Spared.of(scope.databases.app, scope.data_map, needles)
        swept = sweep(scope.databases.app, needles, skip=left_out, spares=spared.spares, check=scope.check)
        found += Counter(swept)
        lost += needles.lost if isinstance(needles, KeyedNeedles) else 0
    for name, count in _located(scope, people).items():
        found[name] = max(found[name], count)
    problems = [
        f"{count} documents of {name} hold an identifier of an erased person" for name, count in sorted(found.items())
    ]
    if lost:
        problems.append(
            f"{lost} people who were erased are named by a key that {VARIABLE} does not hold; nobody can look"
        )
    return Finding(problems=tuple(problems), looked_at=sum(map(len, people.values())))


def _erased(scope: Scope) -> dict[tuple[str, ...], list[Document]]:
    """Return the last request of each person, by the collections in which their data may still be."""
    found = Requests(scope.databases).erased(scope.subject_id)
    if scope.subject_id is not None and not found:
        found = [{"subject_id": scope.subject_id}]
    grouped: dict[tuple[str, ...], list[Document]] = {}
    for request in found:
        grouped.setdefault(tuple(request.get("left_out", ())), []).append(request)
    return grouped


def _needles(scope: Scope, requests: list[Document]) -> Finder:
    if scope.pseudonyms is None:
        return compile_needles(Identity({scope.data_map.subject.key: request["subject_id"]}) for request in requests)
    # Every id that stands in a document is named, and compared: of people who were erased only pseudonyms are left.
    names = frozenset(str(request.get("normalised_id", request["subject_id"])) for request in requests)
    return KeyedNeedles(scope.pseudonyms, names)


def _located(scope: Scope, people: Iterable[tuple[str, ...]]) -> dict[str, int]:
    if scope.subject_id is None or scope.pseudonyms is not None or scope.data_map.tenant is not None:
        return {}  # whose person it was is not said here; the sweep looks at everybody's documents
    identity = find_identity(scope.databases.app, scope.data_map, scope.subject_id)
    known = identity or Identity({scope.data_map.subject.key: scope.subject_id})
    locator, left_out = Locator(scope.databases.app, scope.data_map, known), set(chain.from_iterable(people))
    steps = [step for step in locator.steps if step.collection not in left_out and not isinstance(step.action, Keep)]
    counts = {step.collection: locator.count(step) for step in steps}
    return {name: count for name, count in counts.items() if count}


CHECKS.add("no_residual", no_residual)
