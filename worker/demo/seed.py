"""A realistic database of the reference domain, the same for the same seed: no clock, no I/O.

About 300 made-up people; a dozen are *heavy*: they have something in every collection, old versions and things that
they share with others.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId

from compliance.clock import to_milliseconds
from compliance.mongo import Databases, Document, driver_errors
from worker.demo import records
from worker.demo.people import Person, make_people
from worker.demo.records import PURPOSES, Maker

HEAVY = 12
EVERYDAY = 16  # documents of the most frequent kind, for a person who is not heavy
BATCH_DOCS = 1000
OLD_VERSIONS = 2  # of each kind, for a heavy person

Documents = dict[str, list[Document]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeded:
    """What was made up.

    Attributes:
        documents: By collection, old versions too.
        subjects: The heavy people, the best example first.
    """

    documents: Documents
    subjects: tuple[ObjectId, ...]


def seed_documents(seed: int, *, people: int = 300, moment: datetime) -> Seeded:
    """Return the database that *seed* stands for, as it would be at *moment*; every document passes the validators.

    Args:
        seed: Any number.
        people: How many, at least 20: the heavy ones and somebody to share with.
        moment: No document is younger.
    """
    if people < HEAVY + 8:
        raise ValueError(f"expected at least {HEAVY + 8} people")
    rng = random.Random(seed)  # noqa: S311 - made-up people, no secrets
    maker = Maker(rng=rng, moment=to_milliseconds(moment))
    everyone = make_people(rng, [maker.id() for _ in range(people)])
    documents: Documents = defaultdict(list)
    for person in everyone:
        documents["users"].append(records.user(maker, person))
    tracks = _make_artists(maker, everyone, documents)
    for person in everyone:
        for collection, document in records.everyday(maker, person, most=EVERYDAY):
            documents[collection].append(document)
        _make_playlists(maker, person, everyone, tracks, documents)
    for person in everyone[:HEAVY]:
        _make_heavy(maker, person, documents)
    _make_history(maker, everyone, documents)
    return Seeded(documents=dict(documents), subjects=tuple(person.id for person in everyone[:HEAVY]))


def insert(seeded: Seeded, databases: Databases) -> int:
    """Insert the documents into the application database and return how many; validators are asked."""
    total = 0
    for collection, documents in seeded.documents.items():
        for start in range(0, len(documents), BATCH_DOCS):
            with driver_errors():
                databases.app[collection].insert_many(documents[start : start + BATCH_DOCS], ordered=False)
        total += len(documents)
    return total


def _make_artists(maker: Maker, everyone: Sequence[Person], documents: Documents) -> list[ObjectId]:
    for person in everyone:
        if person.number < HEAVY or person.number % 5 == 0:
            artist = records.artist(maker, person)
            works = [records.track(maker, artist["_id"]) for _ in range(maker.rng.randint(3, 9))]
            documents["artists"].append(artist)
            documents["tracks"].extend(works)
            documents["versioning"].append(records.version(maker, "artist", artist["_id"], 1))
            documents["versioning"].append(records.version(maker, "track", works[0]["_id"], 1))
    return [track["_id"] for track in documents["tracks"]]


def _make_playlists(
    maker: Maker, person: Person, everyone: Sequence[Person], tracks: list[ObjectId], documents: Documents
) -> None:
    """One private list for each; every third person, and all the heavy ones, share one with others."""
    documents["playlists"].append(records.playlist(maker, person, track_ids=tracks))
    if person.number < HEAVY or person.number % 3 == 0:
        friends = [other for other in maker.rng.sample(everyone, 3) if other is not person]
        heavy = everyone[(person.number + 1) % HEAVY]
        members = {member.id: member for member in (person, heavy, *friends)}
        shared = records.playlist(maker, person, track_ids=tracks, members=list(members.values()))
        documents["playlists"].append(shared)


def _make_heavy(maker: Maker, person: Person, documents: Documents) -> None:
    """At least three of each kind, a consent for every purpose, and versions of the account itself."""
    builders: tuple[tuple[str, Callable[[Maker, Person], Document]], ...] = (
        ("analytics", records.analytics),
        ("geo_events", records.geo_event),
        ("ai_content", records.ai_content),
        ("security_events", records.security_event),
        ("multilingual_content", records.multilingual_content),
    )
    for collection, build in builders:
        documents[collection].extend(build(maker, person) for _ in range(3 if person.number else 12))
    known = {stored["type"] for stored in documents["consent"] if stored["user_id"] == person.id}
    for purpose in PURPOSES:
        if purpose not in known:
            documents["consent"].append(records.consent(maker, person, purpose, granted=True))
    own = [stored for stored in documents["consent"] if stored["user_id"] == person.id]
    for stored, granted in zip(own, (True, False, True, False, True), strict=True):
        stored["granted"] = granted
    for number in (1, 2):
        documents["versioning"].append(records.version(maker, "user", person.id, number))


def _make_history(maker: Maker, everyone: Sequence[Person], documents: Documents) -> None:
    """Old versions: of everything of the heavy people, of some documents of the others."""
    heavy = {person.id for person in everyone[:HEAVY]}
    stages = {artist["_id"] for artist in documents["artists"] if artist["user_id"] in heavy}
    for collection in tuple(documents):
        old = documents[f"{collection}_history"]
        quota: dict[ObjectId, int] = defaultdict(int)
        for document in documents[collection]:
            owner = _owner(document)
            quota[owner] += 1
            wanted = owner in heavy | stages and quota[owner] <= OLD_VERSIONS
            if wanted or maker.chance(0.02):
                old.append(records.old_version(maker, document))
    for person, current in zip(everyone, documents["users"], strict=True):
        if person.number < HEAVY or person.number % 25 == 0:
            documents["users_history"].extend(_careless_copies(maker, current))


def _owner(document: Document) -> Any:
    """Return whose document it is: the value by which the data map finds it."""
    for path in ("user_id", "owner_id", "artist_id", "entity_id"):
        if path in document:
            return document[path]
    for inner in ("details", "payload", "author"):
        if inner in document:
            return document[inner]["user_id"]
    return document["_id"]


def _careless_copies(maker: Maker, current: Document) -> list[Document]:
    """One raw copy that kept its ``_id``, and one that shares only the e-mail address, in other letter case."""
    raw = {**current, "versioned_at": maker.past(200)}
    by_address = records.old_version(maker, current, {"email": current["email"].upper()})
    del by_address["document_id"]
    return [raw, by_address]
