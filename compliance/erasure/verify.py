"""Look again after an erasure: stray copies go, then every collection is searched for every identifier."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from compliance.audit.entry import Detail
from compliance.erasure.copies import is_copy, rebuilt, stray_copies
from compliance.erasure.frozen import require_rest, require_same
from compliance.erasure.progress import Erasure
from compliance.erasure.spared import Spared
from compliance.erasure.stage import Stage
from compliance.erasure.sweep import sweep
from compliance.errors import ErasureIncomplete, StoreUnavailable
from compliance.jobs.run import Outcome
from compliance.mongo import Session


def look_again(erasure: Erasure, *, skip: Sequence[str] = ()) -> None:
    """Remove stray copies, then sweep every collection for every identifier that is known.

    Raises:
        ErasureIncomplete: Naming the collections; recorded before it is raised.
        StoreUnavailable: When a copy takes the place of a collection meanwhile: the look counts for nothing.
    """
    before = require_rest(erasure.databases)
    _forget_copies(erasure, skip)
    spared = Spared.of(erasure.databases.app, erasure.data_map, erasure.needles, tenant=erasure.tenant)
    found = sweep(erasure.databases.app, erasure.needles, skip=skip, spares=spared.spares, check=erasure.run.check)
    require_same(erasure.databases, before)
    residual = {name: count for name, count in found.items() if not is_copy(name, skip)}
    if not residual:
        return
    being_rebuilt = rebuilt(erasure.databases)
    if all(is_copy(name, being_rebuilt) for name in residual):
        raise StoreUnavailable(
            f"{', '.join(residual)} is about to take the place of a collection; looked at again soon"
        )

    def effect(session: Session) -> Outcome:
        now = erasure.run.clock.now()
        erasure.requests.move(
            erasure.request_id, Stage.RESIDUAL_FOUND, {"residual": residual}, now=now, session=session
        )
        entry = erasure.entry("erasure.residual_found", {"residual": residual}, outcome="failure")
        return Outcome(entries=(entry,), checkpoint=erasure.checkpoint())

    erasure.commit(effect)
    places = ", ".join(f"{count} in {name}" for name, count in residual.items())
    raise ErasureIncomplete(
        f"identifiers of the person are still found in documents: {places}; declare them in the data map, "
        f"and it is tried again by itself; without a change `compliance jobs retry {erasure.request_id}` looks again"
    )


def _forget_copies(erasure: Erasure, skip: Sequence[str]) -> None:
    """Remove the copies that migrations keep and in which the person is named, each batch with its entry."""
    for collection, ids in stray_copies(erasure.databases, erasure.needles, skip=skip, check=erasure.run.check):
        _remove(erasure, collection, ids)


def _remove(erasure: Erasure, collection: str, ids: list[Any]) -> None:
    def effect(session: Session) -> Outcome:
        removed = erasure.databases.app[collection].delete_many({"_id": {"$in": ids}}, session=session).deleted_count
        affected = Counter(erasure.affected.get(collection, {})) + Counter({"delete": removed})
        after = erasure.checkpoint() | {"affected": {**erasure.affected, collection: dict(affected)}}
        details: dict[str, Detail] = {"collection": collection, "verb": "delete", "documents": removed}
        return Outcome(entries=(erasure.entry("erasure.batch", details),), checkpoint=after)

    outcome = erasure.commit(effect)
    erasure.affected = dict((outcome.checkpoint or {})["affected"])
