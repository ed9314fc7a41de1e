"""One erasure in progress: whom it is about, what was changed so far, and how its transactions commit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from secrets import token_bytes
from typing import Any

from compliance.audit.entry import Detail, Entry
from compliance.datamap.model import DataMap
from compliance.datamap.pseudonym import Pseudonyms
from compliance.datamap.subject import Identity, SubjectId, to_entity_id
from compliance.erasure.keyed import KeyedNeedles, reveal
from compliance.erasure.locate import Locator, find_identity
from compliance.erasure.request import Requests
from compliance.erasure.surfaces import LOOKS, Look
from compliance.erasure.sweep import Finder, compile_needles
from compliance.jobs.run import Effect, Outcome, Run
from compliance.mongo import Databases, Session

TICK = timedelta(milliseconds=1)  # of the times that MongoDB stores


@dataclass(slots=True, kw_only=True)
class Erasure:
    """One erasure in progress.

    Attributes:
        pseudonyms: How people are named, where the data map has a personal root key.
        on_complete: Called in the transaction that completes the request.
        identity: Known from the root document; by id alone when that is gone already (a resumed or repeated request).
            Where the subject id is a pseudonym, nothing is known then, unless the id still stands somewhere.
        is_present: Whether the root document was there when this attempt began.
        looks: What looks at each place beside the collections, by its name.
        holds: The ids of the legal holds on parts of the data that the plan reckons with.
        affected: Documents changed so far, ``{collection: {verb: count}}``; kept in the checkpoint.
        intended: Documents of a time series that are about to go; kept in the checkpoint.
        mask_key: Of masks that hash; nobody has it once this attempt is over.
        tenant: Whose data it is, where several organisations share the database.
    """

    run: Run
    databases: Databases
    data_map: DataMap
    subject_id: SubjectId
    batch_docs: int
    actor: str
    pseudonyms: Pseudonyms | None = None
    looks: tuple[tuple[str, Look], ...] = LOOKS
    on_complete: Callable[[Session], None] = lambda _: None
    tenant: Any = None
    identity: Identity = field(init=False)
    is_present: bool = field(init=False)
    holds: frozenset[str] = frozenset()
    affected: dict[str, dict[str, int]] = field(default_factory=dict)
    intended: dict[str, int] = field(default_factory=dict)
    mask_key: bytes = field(default_factory=lambda: token_bytes(32), repr=False)
    sequence: int = 0

    def __post_init__(self) -> None:
        checkpoint = self.run.job.checkpoint
        self.affected = {name: dict(verbs) for name, verbs in checkpoint.get("affected", {}).items()}
        self.intended = dict(checkpoint.get("intended", {}))
        self.sequence = checkpoint.get("sequence", 0)
        found = find_identity(
            self.databases.app,
            self.data_map,
            self.subject_id,
            tenant=self.tenant,
            pseudonyms=self.pseudonyms,
            check=self.run.check,
        )
        by_id = {} if self.pseudonyms else {self.data_map.subject.key: self.subject_id}
        self.identity, self.is_present = found or Identity(by_id, self.tenant), found is not None

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
            self.identity = Identity({} if value is None else {self.data_map.subject.key: value}, self.tenant)

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
        intended = {"intended": self.intended} if self.intended else {}
        return {"sequence": self.sequence + 1, "affected": self.affected, **intended, **more}

    def commit(self, effect: Effect) -> Outcome:
        """Commit *effect* as ``Run.commit`` does; the next entry has another number."""
        outcome = self.run.commit(effect)
        self.sequence += 1
        return outcome


def documents_changed(checkpoint: Mapping[str, Any]) -> int:
    """Return how many documents an erasure with this *checkpoint* has changed."""
    return sum(count for verbs in checkpoint.get("affected", {}).values() for count in verbs.values())
