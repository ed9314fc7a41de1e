"""Remove what is too old, as a durable job: the plan first, then batches, each one transaction with its entry.

Who goes on after an interruption keeps to the day of the plan, and passes each unfinished collection again: what is
gone is not found again.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from compliance.audit.entry import Detail, Entry
from compliance.datamap.model import DataMap
from compliance.datamap.pseudonym import Pseudonyms
from compliance.erasure.copies import forget
from compliance.jobs.run import Effect, Outcome, Run
from compliance.mongo import Databases, Document, Session, driver_errors
from compliance.retention.held import HeldPeople, key_of, raw_documents
from compliance.retention.plan import plan_retention, present
from compliance.retention.rule import Expiry, compile_expiries

STAYS = ("held", "referred")


def sweep_retention(
    run: Run,
    *,
    databases: Databases,
    data_map: DataMap,
    pseudonyms: Pseudonyms | None,
    batch_docs: int,
    actor: str,
) -> tuple[str, ...]:
    """Remove the documents that no purpose needs any more, end the job of *run*, and return what people should see.

    Args:
        run: The job.
        databases: What is swept, by the clock of its server.
        data_map: Says what is kept for how long.
        pseudonyms: How people are named, where the data map has a personal root key.
        batch_docs: How many to remove in one transaction.
        actor: For the audit entries.

    Raises:
        ConfigurationError: When a legal hold is on a person whom this process cannot recognise.
    """
    people = HeldPeople(databases=databases, data_map=data_map, pseudonyms=pseudonyms, check=run.check)
    work = _Sweep(run, databases, data_map, people, batch_docs, actor)
    problems = work.plan(pseudonyms)
    for expiry in present(compile_expiries(data_map, now=work.as_of), databases):
        if expiry.refusal is None and expiry.collection not in work.place["done"]:
            work.pass_over(expiry)
    work.end(problems)
    return problems


@dataclass(slots=True)
class _Sweep:
    """One sweep in progress.

    Attributes:
        place: The checkpoint: ``{as_of, sequence, documents: {collection: removed}, held: {…}, referred: {…},
            done: [collection], problems: [str]}``.
        stayed: What was left alone in the collection at hand; counted when it is done, for a successor passes it again.
    """

    run: Run
    databases: Databases
    data_map: DataMap
    people: HeldPeople
    batch_docs: int
    actor: str
    place: dict[str, Any] = field(init=False)
    stayed: dict[str, set[bytes]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.place = dict(self.run.job.checkpoint)

    @property
    def as_of(self) -> datetime:
        """The moment by which all is reckoned."""
        moment: datetime = self.place["as_of"]
        return moment

    def plan(self, pseudonyms: Pseudonyms | None) -> tuple[str, ...]:
        """Record what will go, unless a worker before did; return what people should look at."""
        if self.place:
            return tuple(self.place["problems"])
        now = self.databases.server_time()
        planned = plan_retention(self.databases, self.data_map, now=now, pseudonyms=pseudonyms, check=self.run.check)
        problems = [problem for one in planned for problem in one.problems]
        counts = {one.collection: one.documents for one in planned if one.documents}
        details: dict[str, Detail] = {
            "documents": counts,
            "collections": [one.collection for one in planned],
            "map_digest": self.data_map.digest,
            "as_of": now.isoformat(),
        }
        place = {"as_of": now, "sequence": 0, "documents": {}, "held": {}, "referred": {}, "done": []}
        self.place = place | {"problems": problems}
        self._commit(lambda _: self._outcome(self.entry("retention.planned", details)))
        return tuple(problems)

    def pass_over(self, expiry: Expiry) -> None:
        """Remove what is due in one collection, batch by batch."""
        self.stayed = {reason: set() for reason in STAYS}
        with driver_errors():
            found = self.databases.app[expiry.collection].find(expiry.due, {"_id": 1}, batch_size=self.batch_docs)
            with found:
                while ids := [one["_id"] for one in islice(found, self.batch_docs)]:
                    self._batch(expiry, ids)
        self._done(expiry)

    def end(self, problems: tuple[str, ...]) -> None:
        """End the job with what was removed and what stayed."""
        totals = {name: dict(self.place[name]) for name in ("documents", *STAYS)}
        details: dict[str, Detail] = {**totals, "problems": len(problems), "as_of": self.as_of.isoformat()}
        result = {**totals, "problems": list(problems)}
        self._commit(lambda _: self._outcome(self.entry("retention.completed", details), result=result))

    def _batch(self, expiry: Expiry, ids: list[Any]) -> None:
        self.people.refresh(now=self.databases.server_time())
        removed = 0
        stays: Mapping[str, set[bytes]] = {}

        def effect(session: Session) -> Outcome:
            nonlocal removed, stays
            stays = {
                "held": self._held(expiry, ids, session),
                "referred": self._referred(expiry, ids),
            }
            staying = set().union(*stays.values())
            going = [id_ for id_ in ids if key_of(id_) not in staying]
            removed = self._remove(expiry, going, session)
            counts = Counter(self.place["documents"]) + Counter({expiry.collection: removed})
            after = {**self.place, "documents": dict(counts)}
            if not removed:
                return Outcome(checkpoint=after)
            details: dict[str, Detail] = {
                "collection": expiry.collection,
                "documents": removed,
                "purposes": [clause.purpose for clause in expiry.clauses],
            }
            return self._outcome(self.entry("retention.batch", details), place=after)

        self._commit(effect)
        for reason, keys in stays.items():
            self.stayed[reason] |= keys

    def _held(self, expiry: Expiry, ids: list[Any], session: Session) -> set[bytes]:
        if not self.people.are_any:
            return set()
        documents = raw_documents(self.databases.app, expiry.collection, {"_id": {"$in": ids}}, session=session)
        return self.people.among(expiry.collection, documents, session=session)

    def _referred(self, expiry: Expiry, ids: list[Any]) -> set[bytes]:
        """Return those to which something refers: only they say whose that is."""
        found: set[bytes] = set()
        for collection, path in expiry.children:
            values = self.databases.app[collection].distinct(path, {path: {"$in": ids}})
            found |= {key_of(value) for value in values}
        return found & set(map(key_of, ids))

    def _remove(self, expiry: Expiry, ids: list[Any], session: Session) -> int:
        """Remove those of *ids* that are still due, with the copies that migrations keep of them."""
        app = self.databases.app
        still = [one["_id"] for one in app[expiry.collection].find(_among(ids, expiry), {"_id": 1}, session=session)]
        if not still:
            return 0
        forget(app, expiry.collection, still, session=session)
        if expiry.chunks is not None:
            app[expiry.chunks].delete_many({"files_id": {"$in": still}}, session=session)
        return app[expiry.collection].delete_many(_among(still, expiry), session=session).deleted_count

    def _done(self, expiry: Expiry) -> None:
        counted = {
            reason: {**self.place[reason], expiry.collection: len(keys)} for reason, keys in self.stayed.items() if keys
        }
        after = {**self.place, **counted, "done": [*self.place["done"], expiry.collection]}
        self._commit(lambda _: Outcome(checkpoint=after))

    def entry(self, action: str, details: Mapping[str, Detail]) -> Entry:
        """Return the next entry."""
        return Entry(
            event=f"{self.run.job.request_id}#{self.place['sequence']}",
            entity_type="database",
            entity_id=self.databases.name,
            action=action,
            created_at=self.run.clock.now(),
            performed_by=self.actor,
            request_id=self.run.job.request_id,
            details=details,
        )

    def _outcome(
        self, entry: Entry, *, place: Mapping[str, Any] | None = None, result: Mapping[str, Any] | None = None
    ) -> Outcome:
        before = self.place if place is None else place
        return Outcome(entries=(entry,), checkpoint={**before, "sequence": before["sequence"] + 1}, result=result)

    def _commit(self, effect: Effect) -> None:
        self.place = dict(self.run.commit(effect).checkpoint or {})


def _among(ids: list[Any], expiry: Expiry) -> Document:
    return {"$and": [{"_id": {"$in": ids}}, expiry.due]}
