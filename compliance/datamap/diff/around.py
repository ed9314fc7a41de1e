"""What two maps say around their rules: who the person is, how long things last, who is told; pure."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from bson import json_util

from compliance.datamap.collection import Buckets, Collection
from compliance.datamap.diff.change import Change, Effect
from compliance.datamap.diff.fate import effect_of_ends
from compliance.datamap.model import DataMap
from compliance.datamap.outside import PreImages
from compliance.datamap.person import Key
from compliance.datamap.rule import Kept
from compliance.period import Period

ABSENT = "absent"
ALWAYS = "without an end"
_FROM = datetime(2000, 1, 1, tzinfo=UTC)  # periods are compared by where they end when they begin then


def changes_around(old: DataMap, new: DataMap) -> Iterator[Change]:
    """Yield what changes beside the rules."""
    yield from _person(old, new)
    for name in dict.fromkeys((*old.collections, *new.collections)):
        if name in old.collections and name in new.collections:
            yield from _collection(name, old.collections[name], new.collections[name])
    yield from _old_versions(old, new)
    yield from _buckets(old.buckets, new.buckets)
    yield from _purposes(old, new)
    yield from _named(
        "recipients",
        *({found.id: f"told by {found.protocol}" for found in one.recipients} for one in (old, new)),
        changed=Effect.SAME,
    )
    yield from _surfaces(old, new)
    yield from _beside(old.kept_elsewhere, new.kept_elsewhere)


def _named(
    what: str, old: Mapping[str, str], new: Mapping[str, str], *, changed: Effect = Effect.LESS
) -> Iterator[Change]:
    """Yield what is no longer there, what is new, and what differs, which has the effect *changed*."""
    for name in dict.fromkeys((*old, *new)):
        before, now = old.get(name, ABSENT), new.get(name, ABSENT)
        if before != now:
            effect = Effect.MORE if before == ABSENT else Effect.LESS if now == ABSENT else changed
            yield Change(place=f"{what}.{name}", before=before, now=now, effect=effect)


def _one(place: str, words: Iterable[str], effect: Effect = Effect.LESS) -> Iterator[Change]:
    before, now = words
    if before != now:
        yield Change(place=place, before=before, now=now, effect=effect)


def _person(old: DataMap, new: DataMap) -> Iterator[Change]:
    before, now = old.subject, new.subject
    yield from _one("subject.collection", (before.collection, now.collection))
    yield from _one("subject.key", (before.key, now.key))
    yield from _named("subject.keys", *({name: _key(key) for name, key in one.keys.items()} for one in (before, now)))
    tombstones = (ABSENT if one.tombstone is None else json_util.dumps(one.tombstone) for one in (before, now))
    yield from _one("subject.tombstone", tombstones, Effect.SAME)
    tenants = (ABSENT if one.tenant is None else f"{one.tenant.field} ({one.tenant.type})" for one in (old, new))
    yield from _one("tenant", tenants)


def _key(key: Key) -> str:
    ways = (*(["personal"] if key.personal else []), *map(str, key.normalise))
    return " ".join((f"{key.path} ({key.type})", *ways))


def _collection(name: str, old: Collection, new: Collection) -> Iterator[Change]:
    yield from _one(f"{name}.kind", (old.kind, new.kind))
    yield from _one(f"{name}, fields", ("closed" if one.closed else "open" for one in (old, new)), Effect.SAME)
    for path in dict.fromkeys((*old.fields, *new.fields)):
        said = (", ".join(one.fields[path].categories) if path in one.fields else "not listed" for one in (old, new))
        yield from _one(f"{name}.{path}, categories", said, Effect.SAME)
    ages = (
        {f"{one.purpose}.{one.age_of}": json_util.dumps(one.where) if one.where else "all" for one in each.retention}
        for each in (old, new)
    )
    yield from _named(f"{name}.retention", *ages)


def _old_versions(old: DataMap, new: DataMap) -> Iterator[Change]:
    said = (
        f"<collection>{one.history.suffix} by {one.history.id_path}" if one.history else ABSENT for one in (old, new)
    )
    effect = Effect.LESS if old.history else Effect.MORE
    yield from _one("history", said, effect)


def _buckets(old: Mapping[str, Buckets], new: Mapping[str, Buckets]) -> Iterator[Change]:
    for name in dict.fromkeys((*old, *new)):
        before, now = old.get(name), new.get(name)
        is_wider = before is None or (
            now is not None and now.every is before.every and now.since <= before.since and now.until >= before.until
        )
        words = (f"every {one.every}, {one.since} to {one.until}" if one else ABSENT for one in (before, now))
        yield from _one(f"buckets.{name}", words, Effect.MORE if is_wider else Effect.LESS)


def _purposes(old: DataMap, new: DataMap) -> Iterator[Change]:
    for name in dict.fromkeys((*old.purposes, *new.purposes)):
        before, now = old.purposes.get(name), new.purposes.get(name)
        bases = (one.basis if one else ABSENT for one in (before, now))
        yield from _one(f"purposes.{name}", bases, Effect.SAME)
        if before and now:
            yield from _period(f"purposes.{name}.retention", before.retention, now.retention, without=ALWAYS)


def _period(place: str, before: Period | None, now: Period | None, *, without: str) -> Iterator[Change]:
    """Yield that something lasts for longer or shorter; what has no end, or none that is known, lasts longest."""
    if before != now:
        is_longer = now is None or (before is not None and now.after(_FROM) > before.after(_FROM))
        yield Change(
            place=place,
            before=str(before or without),
            now=str(now or without),
            effect=Effect.LESS if is_longer else Effect.MORE,
        )


def _surfaces(old: DataMap, new: DataMap) -> Iterator[Change]:
    before, now = old.surfaces, new.surfaces
    yield from _period("surfaces.backups", before.backups, now.backups, without="not known")
    yield from _period("surfaces.logs", before.logs, now.logs, without="not known")
    effect = Effect.MORE if now.pre_images is PreImages.PURGE else Effect.LESS
    yield from _one("surfaces.pre_images", (before.pre_images, now.pre_images), effect)


def _beside(old: tuple[Kept, ...], new: tuple[Kept, ...]) -> Iterator[Change]:
    """Yield what is kept beside the collections: of that, less is better."""
    first, second = ({", ".join(one.fields): one for one in each} for each in (old, new))
    for fields in dict.fromkeys((*first, *second)):
        before, now = first.get(fields), second.get(fields)
        if before is None or now is None:
            effect = Effect.LESS if before is None else Effect.MORE
        else:
            effect = effect_of_ends(before, now)
        words = (f"{one.ground}, until {one.until or one.period or ALWAYS}" if one else ABSENT for one in (before, now))
        yield from _one(f"kept_elsewhere: {fields}", words, effect)
