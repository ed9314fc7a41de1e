"""The documents of one made-up person, in the shapes of the reference domain."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bson import ObjectId

from compliance.mongo import Document
from worker.demo.people import DEVICES, Person

Placed = Iterator[tuple[str, Document]]

GENRES = ("jazz", "fado", "techno", "rebetiko", "gnawa", "enka", "k-pop", "qawwali", "luk thung", "polka")
WORDS = ("river", "night", "signal", "amber", "harbour", "static", "orchard", "glass", "thunder", "paper")
PURPOSES = ("TERMS", "PRIVACY", "MARKETING", "ANALYTICS", "THIRD_PARTY")
TYPES = ("FREE", "PREMIUM", "FAMILY", "STUDENT", "TRIAL")
PLACES = ((2.3522, 48.8566), (19.4560, 51.7592), (23.7275, 37.9838), (139.6917, 35.6895), (31.2357, 30.0444))
CONTENTS = (
    ("en", "How to listen in the dark"),
    ("en", "Ten records for a long train ride"),
    ("de", "Über das Hören"),
    ("fr", "Écouter la ville"),
    ("ja", "音楽の夜"),
    ("ar", "موسيقى المدينة"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """What the builders draw from; nothing here reads a clock or the system's randomness."""

    rng: random.Random
    moment: datetime

    def id(self) -> ObjectId:
        """Return a new ObjectId from the seed."""
        return ObjectId(self.rng.randbytes(12))

    def past(self, days: int = 700) -> datetime:
        """Return some millisecond of the last *days*."""
        return self.moment - timedelta(milliseconds=self.rng.randrange(1, days * 86_400_000))

    def chance(self, probability: float) -> bool:
        """Return True as often as *probability* says."""
        return self.rng.random() < probability

    def words(self, count: int) -> str:
        """Return a phrase that says nothing about anybody."""
        return " ".join(self.rng.choice(WORDS) for _ in range(count))

    def times(self, most: int) -> range:
        """Return what to loop over: up to *most* times."""
        return range(self.rng.randint(0, most))


def user(maker: Maker, person: Person) -> Document:
    """Return the document that is the person."""
    rng = maker.rng
    created = maker.past()
    return {
        "_id": person.id,
        "email": person.email,
        "role": "artist" if person.number % 5 == 0 else "listener",
        "status": rng.choice(("ACTIVE", "ACTIVE", "ACTIVE", "SUSPENDED")),
        "subscription_type": rng.choice(TYPES),
        "preferences": {
            "profile": {"given_name": person.given, "family_name": person.family, "locale": person.script.locale},
            "address": dict(person.address),
            "devices": [
                {"model": rng.choice(DEVICES), "ip": person.ip, "user_agent": person.user_agent, "seen_at": created}
            ],
            "explicit_content": maker.chance(0.5),
        },
        "created_at": created,
        "updated_at": min(created + timedelta(hours=3), maker.moment),
    }


def artist(maker: Maker, person: Person) -> Document:
    """Return the artist that the person is on stage; the biography gives the address away."""
    created = maker.past()
    return {
        "_id": maker.id(),
        "user_id": person.id,
        "display_name": f"{person.name} Quartet",
        "genres": maker.rng.sample(GENRES, 2),
        "bio": f"{person.name} plays {maker.words(2)}. Bookings: {person.email} , {person.address['street']}",
        "created_at": created,
        "updated_at": created,
    }


def track(maker: Maker, artist_id: ObjectId) -> Document:
    """Return a published work."""
    rng = maker.rng
    return {
        "_id": maker.id(),
        "title": maker.words(3),
        "artist_id": artist_id,
        "album_id": maker.id(),
        "duration_ms": rng.randrange(60_000, 600_000),
        "audio_features": {"tempo": round(rng.uniform(60, 180), 1), "key": rng.randrange(12), "energy": rng.random()},
        "created_at": maker.past(),
    }


def playlist(
    maker: Maker, person: Person, *, track_ids: Sequence[ObjectId], members: Sequence[Person] | None = None
) -> Document:
    """Return a list of the person; with *members* a shared one, which is theirs too."""
    created = maker.past()
    document = {
        "_id": maker.id(),
        "name": f"{person.name}: {maker.words(2)}",
        "owner_id": person.id,
        "track_ids": maker.rng.sample(track_ids, min(len(track_ids), 8)),
        "collaborative": members is not None,
        "created_at": created,
        "updated_at": created,
    }
    if members is not None:
        document["collaborators"] = [{"user_id": member.id, "added_at": maker.past(300)} for member in members]
    return document


def analytics(maker: Maker, person: Person) -> Document:
    """Return an event of use."""
    kind = maker.rng.choice(("play", "skip", "search", "login"))
    payload: Document = {"ip": person.ip, "device": maker.rng.choice(DEVICES)}
    if kind == "search":
        payload["query"] = f"{person.name} {maker.words(1)} live"
    return {
        "_id": maker.id(),
        "user_id": person.id,
        "event_type": kind,
        "payload": payload,
        "timestamp": maker.past(90),
    }


def ai_content(maker: Maker, person: Person) -> Document:
    """Return what the person asked a model for."""
    city = person.address["city"]
    return {
        "_id": maker.id(),
        "type": maker.rng.choice(("playlist_description", "lyrics", "cover")),
        "payload": {
            "user_id": person.id,
            "prompt": f"A song about {person.given} from {city} and {maker.words(3)}",
            "reply": maker.words(12),
        },
        "status": maker.rng.choice(("DONE", "DONE", "FAILED")),
        "created_at": maker.past(200),
    }


def security_event(maker: Maker, person: Person) -> Document:
    """Return an attack or a mistake at the person's account."""
    return {
        "_id": maker.id(),
        "event_type": maker.rng.choice(("login_failed", "password_reset", "token_reuse")),
        "detected_at": maker.past(300),
        "details": {
            "user_id": person.id,
            "email": person.email,
            "ip": person.ip,
            "user_agent": person.user_agent,
            "note": f"called back {person.name}, who confirmed {person.email.swapcase()} by phone",
        },
        "resolved": maker.chance(0.8),
    }


def consent(maker: Maker, person: Person, purpose: str, *, granted: bool) -> Document:
    """Return where consent for one purpose stands."""
    return {
        "_id": maker.id(),
        "user_id": person.id,
        "type": purpose,
        "granted": granted,
        "timestamp": maker.past(400),
    }


def geo_event(maker: Maker, person: Person) -> Document:
    """Return a visit to a concert."""
    longitude, latitude = maker.rng.choice(PLACES)
    return {
        "_id": maker.id(),
        "location": {
            "type": "Point",
            "coordinates": [
                round(longitude + maker.rng.uniform(-0.05, 0.05), 5),
                round(latitude + maker.rng.uniform(-0.05, 0.05), 5),
            ],
        },
        "event_type": maker.rng.choice(("check_in", "concert_nearby")),
        "details": {"user_id": person.id, "ip": person.ip, "device": maker.rng.choice(DEVICES)},
        "created_at": maker.past(120),
    }


def multilingual_content(maker: Maker, person: Person) -> Document:
    """Return an article; its text names nobody, its author is named beside it."""
    lang, title = maker.rng.choice(CONTENTS)
    created = maker.past(500)
    return {
        "_id": maker.id(),
        "title": title,
        "lang": lang,
        "content": maker.words(20),
        "tags": maker.rng.sample(GENRES, 2),
        "author": {"user_id": person.id, "name": person.name},
        "created_at": created,
        "updated_at": created,
    }


def version(maker: Maker, kind: str, entity_id: ObjectId, number: int) -> Document:
    """Return the note of a version of a user, an artist or a track."""
    return {
        "_id": maker.id(),
        "entity_type": kind,
        "entity_id": entity_id,
        "version": number,
        "description": f"changed {maker.rng.choice(('genres', 'preferences', 'title'))}",
        "checksum": maker.rng.randbytes(16).hex(),
        "created_at": maker.past(300),
    }


def old_version(maker: Maker, document: Document, changes: Document | None = None) -> Document:
    """Return the copy that ``<collection>_history`` holds of a whole earlier version."""
    body = {name: value for name, value in document.items() if name != "_id"}
    return {
        "_id": maker.id(),
        "document_id": document["_id"],
        **body,
        **(changes or {}),
        "versioned_at": maker.past(200),
    }


def everyday(maker: Maker, person: Person, *, most: int) -> Placed:
    """Yield what use leaves behind; up to *most* documents of the frequent kinds."""
    builders: tuple[tuple[str, int, Callable[[Maker, Person], Document]], ...] = (
        ("analytics", most, analytics),
        ("geo_events", most // 3, geo_event),
        ("ai_content", most // 4, ai_content),
        ("security_events", most // 5, security_event),
        ("multilingual_content", most // 8, multilingual_content),
    )
    for collection, limit, build in builders:
        for _ in maker.times(limit):
            yield collection, build(maker, person)
    for purpose in maker.rng.sample(PURPOSES, 3):
        yield "consent", consent(maker, person, purpose, granted=maker.chance(0.6))
