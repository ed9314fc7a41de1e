"""Erase from a time series: by what its meta field holds, and in no transaction, which MongoDB 6.0 has for neither.

An entry of intent says how many documents are about to go, and one of completion that they are gone. Who dies between
the two repeats it: the number that was intended is in the checkpoint.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from compliance.audit.entry import Detail
from compliance.datamap.collection import Kind
from compliance.datamap.rule import Keep
from compliance.erasure.holds import Holds
from compliance.erasure.plan import Filter, Step
from compliance.erasure.progress import Erasure
from compliance.jobs.run import Outcome
from compliance.mongo import Db, Session, driver_errors


def faults_of_series(steps: tuple[Step, ...], database: Db) -> Iterator[str]:
    """Yield one sentence for every step that looks at something else than the meta field, which MongoDB refuses."""
    with driver_errors():
        listed = database.list_collections(filter={"type": "timeseries"})
        metas = {info["name"]: info["options"]["timeseries"].get("metaField") for info in listed}
    for step in steps:
        if step.kind is not Kind.TIME_SERIES or step.collection not in metas or isinstance(step.action, Keep):
            continue
        meta = metas[step.collection]
        asked = (step.path, *step.where, *((step.tenant,) if step.tenant else ()))
        if any(meta is None or path.split(".")[0].removesuffix("[]") != meta for path in asked):
            yield f"{step.collection}: a time series is deleted from by its meta field ({meta}) alone"


def carry_out_series(erasure: Erasure, step: Step, progress: Mapping[str, Any]) -> None:
    """Delete the documents of *step*, with an entry before and one after."""
    locator = erasure.locator
    for page in locator.pages(step):
        query = locator.query(step, page)
        if query is not None:
            _delete(erasure, step, query, progress)


def _delete(erasure: Erasure, step: Step, query: Filter, progress: Mapping[str, Any]) -> None:
    collection = erasure.databases.app[step.collection]
    with driver_errors():
        there = collection.count_documents(query)
    documents = max(there, erasure.intended.get(step.collection, 0))
    if not documents:
        return
    erasure.intended = {step.collection: documents}
    details: dict[str, Detail] = {"collection": step.collection, "verb": step.verb, "documents": documents}

    def intent(session: Session) -> Outcome:
        Holds(erasure.databases).check(*erasure.names, now=erasure.run.clock.now(), session=session)
        return Outcome(entries=(erasure.entry("erasure.intended", details),), checkpoint=erasure.checkpoint(**progress))

    erasure.commit(intent)
    with driver_errors():
        collection.delete_many(query)
    erasure.intended = {}

    def completion(_: Session) -> Outcome:
        affected = Counter(erasure.affected.get(step.collection, {})) + Counter({step.verb: documents})
        after = {**erasure.affected, step.collection: dict(affected)}
        checkpoint = erasure.checkpoint(**progress) | {"affected": after}
        return Outcome(entries=(erasure.entry("erasure.batch", details),), checkpoint=checkpoint)

    outcome = erasure.commit(completion)
    erasure.affected = dict((outcome.checkpoint or {})["affected"])
