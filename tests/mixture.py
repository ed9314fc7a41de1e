"""A mixture of jobs for one filled database, and what must be true of it afterwards, whatever died meanwhile.

``left_over`` knows what the effects of jobs are by itself: it uses the oracle of erasures and no code of the jobs.
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bson
import oracle
from bson import ObjectId, json_util
from bson.json_util import CANONICAL_JSON_OPTIONS as CANONICAL
from counting import ACTION, BATCHES, COUNTERS

from compliance.datamap.model import DataMap
from compliance.mongo import Db, Document
from worker.demo.records import PURPOSES
from worker.demo.seed import Seeded

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
Raw = dict[str, dict[Any, Any]]
BATCH_DOCS = 20  # what the workers must be set to
CONSENT = "consent"
IMPORTED = "multilingual_content"
EXPORTED = ("tracks", "artists", "geo_events")
LINES = 60
BATCHES_OF_A_JOB = (3, 3, 3, 60)  # the long ones are where a worker that sleeps wakes up too late
SHARES = {
    "consent.update": 34,
    "count.batches": 25,
    "count.once": 25,
    "export.run": 5,
    "import.run": 4,
    "health.check": 4,
    "audit.verify": 1,
    "erasure.request": 2,
}
OF_JOBS = {"job.parked", "job.retried"}
ENTRIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "export.run": (("export.completed",), ("export.started",)),
    "import.run": (("import.started", *["import.batch"] * (LINES // BATCH_DOCS), "import.completed"), ()),
    "health.check": (("health.checked",), ()),
    "audit.verify": (("audit.verified",), ()),
    "erasure.request": (
        ("erasure.requested", "erasure.planned", "erasure.verified", "erasure.completed"),
        ("erasure.started", "erasure.batch"),
    ),
}
QUEUES = {
    "consent.update": "compliance.consent",
    "count.batches": "compliance.audit",
    "count.once": "compliance.audit",
    "export.run": "compliance.bulk",
    "import.run": "compliance.bulk",
    "health.check": "compliance.health",
    "audit.verify": "compliance.audit",
    "erasure.request": "compliance.erasure",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One job that a service wants."""

    kind: str
    request_id: str
    payload: Mapping[str, Any]

    @property
    def task(self) -> str:
        return f"compliance.{self.kind}"

    @property
    def queue(self) -> str:
        return QUEUES[self.kind]


@dataclass(frozen=True, slots=True)
class Mixture:
    """Jobs, in the order in which they are sent."""

    seeded: Seeded
    wishes: tuple[Wish, ...]

    def of(self, kind: str) -> list[Wish]:
        return [wish for wish in self.wishes if wish.kind == kind]


def mix(rng: random.Random, seeded: Seeded, *, jobs: int, directory: Path) -> Mixture:
    """Make up *jobs* jobs; packages that are imported lie in *directory* then.

    People who are erased have no other job: every other one is sure to find the person.
    """
    everyone = [user["_id"] for user in seeded.documents["users"]]
    erased = [*seeded.subjects, *(person for person in everyone if person not in seeded.subjects)]
    number = {kind: max(1, jobs * share // 100) for kind, share in SHARES.items()}
    number["erasure.request"] = min(number["erasure.request"], len(everyone) // 2)
    staying = erased[number["erasure.request"] :]
    make: dict[str, Callable[[int], Mapping[str, Any]]] = {
        "consent.update": lambda n: _consent(rng, n, rng.choice(staying)),
        "count.batches": lambda n: {"counter": f"count.batches-{n}", "batches": rng.choice(BATCHES_OF_A_JOB)},
        "count.once": lambda n: {"counter": f"count.once-{n}", "batches": BATCHES["count.once"]},
        "export.run": lambda n: (
            {"collection": rng.choice(EXPORTED)} if n % 2 else {"subject_id": str(rng.choice(staying))}
        ),
        "import.run": lambda n: {"package": _package(directory, n), "collection": IMPORTED},
        "health.check": lambda _: {"checks": ["declared_indexes"]},
        "audit.verify": lambda _: {},
        "erasure.request": lambda n: {"subject_id": str(erased[n])},
    }
    wishes = [
        Wish(kind=kind, request_id=f"{kind}-{n}", payload=make[kind](n)) for kind in SHARES for n in range(number[kind])
    ]
    rng.shuffle(wishes)
    return Mixture(seeded, tuple(wishes))


def _consent(rng: random.Random, number: int, subject: ObjectId) -> dict[str, Any]:
    return {
        "event_id": f"event-{number}",
        "subject_id": str(subject),
        "type": rng.choice(PURPOSES),
        "granted": rng.random() < 0.5,
        "occurred_at": (NOON + timedelta(minutes=rng.randrange(100_000))).isoformat(),
    }


def _package(directory: Path, number: int) -> str:
    """Write a package as an export elsewhere would."""
    folder = directory / f"storm-{number}"
    folder.mkdir(parents=True)
    lines = [json_util.dumps(document, json_options=CANONICAL).encode() + b"\n" for document in _articles(number)]
    data = b"".join(lines)
    (folder / f"{IMPORTED}.ndjson").write_bytes(data)
    file = {
        "name": f"{IMPORTED}.ndjson",
        "collection": IMPORTED,
        "documents": len(lines),
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    manifest = {
        "format": "compliance-export/v1",
        "request_id": folder.name,
        "about": "collection",
        "database": "elsewhere",
        "created_at": NOON.isoformat(),
        "files": [file],
        "notes": [],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder.name


def _articles(number: int) -> list[Document]:
    ids = (hashlib.sha256(f"article-{number}-{line}".encode()).digest()[:12] for line in range(LINES))
    return [{"_id": ObjectId(id_), "title": "An article", "lang": "en", "created_at": NOON} for id_ in ids]


def expected_database(mixture: Mixture, data_map: DataMap, done: AbstractSet[str]) -> Raw:
    """Return what the application database holds once the requests *done* were carried out, each of them once."""
    documents: Any = {**mixture.seeded.documents}
    for wish in mixture.of("erasure.request"):
        if wish.request_id in done:
            subject = ObjectId(wish.payload["subject_id"])
            documents = oracle.expected_after_erasure(documents, subject, data_map)
    documents[IMPORTED] = list(documents[IMPORTED])
    for wish in mixture.of("import.run"):
        if wish.request_id in done:
            documents[IMPORTED].extend(_articles(int(wish.payload["package"].rpartition("-")[2])))
    expected = as_bytes({name: stored for name, stored in documents.items() if name != CONSENT})
    counters = [_counter(wish, done) for kind in BATCHES for wish in mixture.of(kind)]
    told = [wish.payload for wish in mixture.of("consent.update") if wish.request_id in done]
    return {
        **expected,
        COUNTERS: as_bytes({COUNTERS: counters})[COUNTERS],
        CONSENT: _standings(documents[CONSENT], told),
    }


def found_database(database: Db) -> Raw:
    """Return what the application database holds, in the form of ``expected_database``."""
    names = set(database.list_collection_names()) - {CONSENT}
    found = as_bytes({name: list(database[name].find()) for name in names})
    return {**found, CONSENT: _standings(list(database[CONSENT].find()), [])}


def as_bytes(documents: Mapping[str, list[Document]]) -> Raw:
    """Return the bytes of every document by collection and id; collections that hold nothing are left out."""
    return {
        name: {document["_id"]: bson.encode(document) for document in stored}
        for name, stored in documents.items()
        if stored
    }


def _counter(wish: Wish, done: AbstractSet[str]) -> Document:
    batches = list(range(wish.payload["batches"])) if wish.request_id in done else []
    return {"_id": wish.payload["counter"], "count": len(batches), "batches": batches}


def _standings(documents: list[Document], told: list[Mapping[str, Any]]) -> dict[Any, Any]:
    """Return since when each person agrees to each purpose or not: the latest word counts, of two a withdrawal."""
    said = [(each["user_id"], each["type"], each["timestamp"], not each["granted"]) for each in documents]
    said += [
        (ObjectId(each["subject_id"]), each["type"], datetime.fromisoformat(each["occurred_at"]), not each["granted"])
        for each in told
    ]
    latest: dict[Any, Any] = {}
    for person, purpose, since, withdrawn in said:
        latest[person, purpose] = max(latest.get((person, purpose), (since, withdrawn)), (since, withdrawn))
    return latest


def faults_in_entries(wish: Wish, entries: list[Document]) -> list[str]:
    """Return what is wrong with the audit entries of a job that is done: each action as often as it happened."""
    found = Counter(entry["action"] for entry in entries)
    exact, repeatable = _entries_of(wish)
    wrong = [action for action, times in exact.items() if found[action] != times]
    unknown = set(found) - set(exact) - set(repeatable) - OF_JOBS
    return [f"{wish.request_id}: {action} {found[action]} times" for action in (*wrong, *sorted(unknown))]


def _entries_of(wish: Wish) -> tuple[dict[str, int], set[str]]:
    """Return how often each action of *wish* is recorded, and which may be recorded more often than once."""
    if wish.kind == "consent.update":
        return {"consent.granted" if wish.payload["granted"] else "consent.withdrawn": 1}, set()
    if wish.kind in BATCHES:
        return {ACTION: wish.payload["batches"]}, set()
    exact, repeatable = ENTRIES[wish.kind]
    return dict(Counter(exact)), set(repeatable)
