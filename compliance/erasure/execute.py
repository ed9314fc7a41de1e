"""Carry out an erasure as a durable job.

``receive`` → ``plan`` → (dry run: done) → every step in batches → look again → the person's own document → look
again → done. Each batch is one transaction with its audit entry and its checkpoint, and its effect can be repeated,
so a successor simply starts over: what is gone is not found again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from compliance.audit.entry import Detail, Entry
from compliance.datamap.lint import impossible_actions
from compliance.datamap.model import DataMap
from compliance.datamap.pseudonym import Pseudonyms
from compliance.datamap.rule import Delete
from compliance.datamap.subject import Identity, SubjectId, to_entity_id
from compliance.erasure.copies import forget, is_copy, rebuilt, stray_copies
from compliance.erasure.frozen import require_rest, require_same
from compliance.erasure.holds import Holds
from compliance.erasure.keyed import KeyedNeedles, reveal
from compliance.erasure.locate import Locator, find_identity
from compliance.erasure.plan import Step, compile_steps, update_for
from compliance.erasure.request import Requests
from compliance.erasure.stage import Stage
from compliance.erasure.sweep import Finder, compile_needles, normalise, sweep
from compliance.errors import ConfigurationError, ErasureIncomplete, LegalHoldActive, StoreUnavailable, UnknownSubject
from compliance.jobs.run import Effect, Outcome, Run
from compliance.mongo import Databases, Db, Session, driver_errors

IDLE_BATCHES = 10  # batches in a row that changed nothing, before we say that an action does not take
TICK = timedelta(milliseconds=1)  # of the times that MongoDB stores


@dataclass(slots=True, kw_only=True)
class Erasure:
    """One erasure in progress.

    Attributes:
        pseudonyms: How people are named, where the data map has a personal root key.
        identity: Known from the root document; by id alone when that is gone already (a resumed or repeated request).
            Where the subject id is a pseudonym, nothing is known then, unless the id still stands somewhere.
        is_present: Whether the root document was there when this attempt began.
        affected: Documents changed so far, ``{collection: {verb: count}}``; kept in the checkpoint.
    """

    run: Run
    databases: Databases
    data_map: DataMap
    subject_id: SubjectId
    batch_docs: int
    actor: str
    pseudonyms: Pseudonyms | None = None
    identity: Identity = field(init=False)
    is_present: bool = field(init=False)
    affected: dict[str, dict[str, int]] = field(default_factory=dict)
    sequence: int = 0

    def __post_init__(self) -> None:
        checkpoint = self.run.job.checkpoint
        self.affected = {name: dict(verbs) for name, verbs in checkpoint.get("affected", {}).items()}
        self.sequence = checkpoint.get("sequence", 0)
        found = find_identity(
            self.databases.app, self.data_map, self.subject_id, pseudonyms=self.pseudonyms, check=self.run.check
        )
        by_id = {} if self.pseudonyms else {self.data_map.subject.key: self.subject_id}
        self.identity, self.is_present = found or Identity(by_id), found is not None

    @property
    def requests(self) -> Requests:
        """The requests of this application."""
        return Requests(self.databases)

    @property
    def locator(self) -> Locator:
        """Where the data of this person is."""
        return Locator(self.databases.app, self.data_map, self.identity, self.run.check)

    @property
    def names(self) -> tuple[SubjectId, ...]:
        """Every id by which holds and requests may name this person: one for each key of pseudonyms."""
        value = self.identity.values.get(self.data_map.subject.key)
        others = self.pseudonyms.all_of(value) if self.pseudonyms and value is not None else ()
        return tuple(dict.fromkeys((self.subject_id, *others)))

    @property
    def needles(self) -> Finder:
        """What to look for in documents that no rule names."""
        return compile_needles([self.identity]) if self.identity.values else self._by_pseudonym()

    def recall(self) -> None:
        """Learn who a pseudonym names when the root document is gone, from wherever the id still stands."""
        if not self.identity.values:
            value = reveal(self.databases.app, self._by_pseudonym(), check=self.run.check)
            self.identity = Identity({} if value is None else {self.data_map.subject.key: value})

    def _by_pseudonym(self) -> KeyedNeedles:
        if self.pseudonyms is None:
            raise ValueError("an opaque id is an identity by itself")
        return KeyedNeedles(self.pseudonyms, self.requests.pseudonyms_of(self.subject_id))

    @property
    def request_id(self) -> str:
        """The request that this job carries out."""
        return self.run.job.request_id

    def entry(self, action: str, details: Mapping[str, Detail], *, outcome: str = "success") -> Entry:
        """Return an entry about this person."""
        return Entry(
            event=f"{self.request_id}#{self.sequence}",
            entity_type="user",
            entity_id=to_entity_id(self.subject_id),
            action=action,
            created_at=self.run.clock.now(),
            performed_by=self.actor,
            outcome=outcome,
            request_id=self.request_id,
            details=details,
        )

    def checkpoint(self, **more: Any) -> dict[str, Any]:
        """Return the checkpoint after the present transaction."""
        return {"sequence": self.sequence + 1, "affected": self.affected, **more}


def erase(erasure: Erasure, *, dry_run: bool) -> None:
    """Erase one person, or with *dry_run* record the plan only.

    Raises:
        UnknownSubject: When there is no such person and never was an erasure of one.
        LegalHoldActive: When a hold forbids it.
        ErasureIncomplete: When an identifier is found again; the request is parked, never completed.
    """
    request = erasure.requests.find(erasure.request_id)
    if request is None:
        _receive(erasure, dry_run=dry_run)
    erasure.recall()
    try:
        _erase_received(erasure, is_planned=bool(request and request["plan"]), dry_run=dry_run)
    except LegalHoldActive as error:
        _reject(erasure, str(error))
        raise


def _erase_received(erasure: Erasure, *, is_planned: bool, dry_run: bool) -> None:
    steps = compile_steps(erasure.data_map)
    if not is_planned:
        _plan(erasure, steps, dry_run=dry_run)
        if dry_run:
            return
    _start(erasure)
    for number, step in enumerate(steps):
        if step.is_root:
            _look_again(erasure, skip=(step.collection,))
        _carry_out(erasure, step, number=number, total=len(steps))
    _look_again(erasure)
    _complete(erasure, steps)


def _receive(erasure: Erasure, *, dry_run: bool) -> None:
    subject = erasure.data_map.subject
    if not erasure.is_present:
        before = erasure.requests.completed_for(*erasure.names)
        if before is None:
            raise UnknownSubject(
                f"no document of {subject.collection} has this {subject.key}; check the id and the database"
            )
    now = erasure.run.clock.now()

    def effect(session: Session) -> Outcome:
        Holds(erasure.databases).check(*erasure.names, now=now, session=session)
        erasure.requests.receive(
            erasure.request_id,
            erasure.subject_id,
            dry_run=dry_run,
            map_digest=erasure.data_map.digest,
            now=now,
            session=session,
            normalised_id=_normalised_id(erasure),
        )
        return Outcome(
            entries=(erasure.entry("erasure.requested", {"dry_run": dry_run}),), checkpoint=erasure.checkpoint()
        )

    _commit(erasure, effect)


def _normalised_id(erasure: Erasure) -> str | None:
    value = erasure.identity.values.get(erasure.data_map.subject.key)
    return erasure.pseudonyms.make(normalise(value)) if erasure.pseudonyms and value is not None else None


def _plan(erasure: Erasure, steps: tuple[Step, ...], *, dry_run: bool) -> None:
    _refuse_impossible_actions(erasure)
    _refuse_lookalikes(erasure)
    counts = [(step, erasure.locator.count(step, after=steps[:number])) for number, step in enumerate(steps)]
    plan = [{"collection": step.collection, "action": step.verb, "documents": count} for step, count in counts if count]
    kept = [_kept(step, count) for step, count in counts if count and step.kept]
    total = sum(count for _, count in counts)

    def effect(session: Session) -> Outcome:
        erasure.requests.move(
            erasure.request_id,
            Stage.PLANNED,
            {"plan": plan, "kept": kept, "map_digest": erasure.data_map.digest},
            now=erasure.run.clock.now(),
            session=session,
        )
        collections = len({step["collection"] for step in plan})
        details: dict[str, Detail] = {
            "documents": total,
            "collections": collections,
            "map_digest": erasure.data_map.digest,
            "dry_run": dry_run,
        }
        return Outcome(
            entries=(erasure.entry("erasure.planned", details),),
            checkpoint=erasure.checkpoint(planned=total),
            result={"documents": total, "dry_run": True} if dry_run else None,
        )

    _commit(erasure, effect)


def _refuse_impossible_actions(erasure: Erasure) -> None:
    faults = list(impossible_actions(erasure.data_map, live_schemas(erasure.databases.app)))
    if faults:
        raise ConfigurationError(f"the data map asks for what the validators refuse: {'; '.join(faults)}")


def _refuse_lookalikes(erasure: Erasure) -> None:
    found, subject = erasure.locator.lookalikes(), erasure.data_map.subject
    if found:
        raise ErasureIncomplete(
            f"{found} other documents of {subject.collection} have a {subject.key} that differs from this person's in "
            "letter case or Unicode form only, so what belongs to whom cannot be told; correct them, "
            f"then `compliance jobs retry {erasure.request_id}`"
        )


def live_schemas(database: Db) -> dict[str, Mapping[str, Any]]:
    """Return the ``$jsonSchema`` of each collection of *database*, empty where it has none."""
    with driver_errors():
        listed = database.list_collections(filter={"type": "collection"})
        return {info["name"]: info["options"].get("validator", {}).get("$jsonSchema", {}) for info in listed}


def _start(erasure: Erasure) -> None:
    def effect(session: Session) -> Outcome:
        now = erasure.run.clock.now()
        Holds(erasure.databases).check(*erasure.names, now=now, session=session)
        erasure.requests.move(erasure.request_id, Stage.EXECUTING, {}, now=now, session=session)
        return Outcome(
            entries=(erasure.entry("erasure.started", {"attempt": erasure.run.job.attempts}),),
            checkpoint=erasure.checkpoint(),
        )

    _commit(erasure, effect)


def _reject(erasure: Erasure, reason: str) -> None:
    def effect(session: Session) -> Outcome:
        now = erasure.run.clock.now()
        erasure.requests.move(erasure.request_id, Stage.REJECTED, {"reason": reason}, now=now, session=session)
        return Outcome(checkpoint=erasure.checkpoint())

    _commit(erasure, effect)


def _carry_out(erasure: Erasure, step: Step, *, number: int, total: int) -> None:
    idle = 0
    while ids := erasure.locator.batch(step, erasure.batch_docs):
        changed = _batch(erasure, step, ids, {"step": number + 1, "steps": total, "collection": step.collection})
        idle = 0 if changed else idle + 1
        if idle >= IDLE_BATCHES:
            raise ErasureIncomplete(f"{step.verb} on {step.collection} matches documents that it does not change")


def _batch(erasure: Erasure, step: Step, ids: list[Any], progress: Mapping[str, Any]) -> int:
    locator = erasure.locator
    referenced = locator.referenced(step)
    changed = 0

    def effect(session: Session) -> Outcome:
        nonlocal changed
        Holds(erasure.databases).check(*erasure.names, now=erasure.run.clock.now(), session=session)
        changed = _apply(erasure, step, ids, referenced, session)
        affected = Counter(erasure.affected.get(step.collection, {})) + Counter({step.verb: changed})
        after = erasure.checkpoint(**progress) | {"affected": {**erasure.affected, step.collection: dict(affected)}}
        details: dict[str, Detail] = {"collection": step.collection, "verb": step.verb, "documents": changed}
        return Outcome(entries=(erasure.entry("erasure.batch", details),), checkpoint=after)

    outcome = _commit(erasure, effect)
    erasure.affected = dict((outcome.checkpoint or {})["affected"])
    return changed


def _apply(erasure: Erasure, step: Step, ids: list[Any], referenced: list[Any], session: Session) -> int:
    """Change the documents *ids* that still belong to the person, by ``_id``; a personal key stays out of the query."""
    collection = erasure.databases.app[step.collection]
    forget(erasure.databases.app, step.collection, ids, session=session)
    mine: dict[str, Any] = {"_id": {"$in": ids}}
    query = None if step.is_scan else erasure.locator.query(step)
    guarded = {"$and": [mine, query]} if query else mine
    if isinstance(step.action, Delete):
        return collection.delete_many(guarded, session=session).deleted_count
    update = update_for(step.action, step, erasure.identity, referenced)
    return collection.update_many(guarded, update, session=session).modified_count


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

    outcome = _commit(erasure, effect)
    erasure.affected = dict((outcome.checkpoint or {})["affected"])


def _look_again(erasure: Erasure, *, skip: Sequence[str] = ()) -> None:
    """Remove stray copies, then sweep every collection for every identifier that is known.

    Raises:
        ErasureIncomplete: Naming the collections; recorded before it is raised.
        StoreUnavailable: When a copy takes the place of a collection meanwhile: the look counts for nothing.
    """
    before = require_rest(erasure.databases)
    _forget_copies(erasure, skip)
    found = sweep(erasure.databases.app, erasure.needles, skip=skip, check=erasure.run.check)
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

    _commit(erasure, effect)
    places = ", ".join(f"{count} in {name}" for name, count in residual.items())
    raise ErasureIncomplete(
        f"identifiers of the person are still found in documents: {places}; declare them in the data map, "
        f"then `compliance jobs retry {erasure.request_id}`"
    )


def _complete(erasure: Erasure, steps: tuple[Step, ...]) -> None:
    total = sum(count for verbs in erasure.affected.values() for count in verbs.values())
    kept = [
        _kept(step, count)
        for step in steps
        if step.kept and (count := erasure.affected.get(step.collection, {}).get(step.verb, 0))
    ]
    stage = Stage.COMPLETED_WITH_RETENTION if kept else Stage.COMPLETED
    verified = erasure.entry("erasure.verified", {"residual": {}})

    def effect(session: Session) -> Outcome:
        now = max(erasure.run.clock.now(), verified.created_at + TICK)  # readers sort by time
        changes = {"affected": erasure.affected, "kept": kept, "completed_at": now, "residual": {}}
        erasure.requests.move(erasure.request_id, stage, changes, now=now, session=session)
        details: dict[str, Detail] = {
            "documents": total,
            "kept": {str(item["collection"]): int(item["documents"]) for item in kept},
        }
        return Outcome(
            entries=(verified, replace(erasure.entry("erasure.completed", details), created_at=now)),
            checkpoint=erasure.checkpoint(),
            result={"state": stage.value, "documents": total, "affected": erasure.affected},
        )

    _commit(erasure, effect)


def _kept(step: Step, count: int) -> dict[str, Any]:
    if step.kept is None:
        raise ValueError(f"nothing of {step.collection} is kept")
    return {"collection": step.collection, "documents": count, **step.kept.model_dump(mode="json")}


def _commit(erasure: Erasure, effect: Effect) -> Outcome:
    outcome = erasure.run.commit(effect)
    erasure.sequence += 1
    return outcome
