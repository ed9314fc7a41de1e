"""What an erasure must leave behind, worked out from the data map without any code of ``compliance.erasure``.

Everything is plain Python over documents in memory, so that tests can compare whole databases.
"""

import copy
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

import bson
from bson import ObjectId

from compliance.datamap.model import DataMap
from compliance.datamap.rule import Delete, Pull, Rule, Update

Document = dict[str, Any]
Documents = Mapping[str, list[Document]]
MIN_LENGTH = 6

# Where documents of the reference domain hold what says who somebody is.
PERSONAL_PATHS: dict[str, tuple[str, ...]] = {
    "users": ("email", "preferences"),
    "artists": ("display_name", "bio"),
    "playlists": ("name",),
    "analytics": ("payload",),
    "ai_content": ("payload",),
    "security_events": ("details",),
    "geo_events": ("details",),
    "multilingual_content": ("author",),
}


def expected_after_erasure(documents: Documents, subject_id: ObjectId, data_map: DataMap) -> dict[str, list[Document]]:
    """Return *documents* as they must be once *subject_id* is erased; those of others are the same objects."""
    suffix = data_map.history.suffix if data_map.history else ""
    address = email_of(documents, subject_id)
    expected: dict[str, list[Document]] = {}
    for collection, stored in documents.items():
        base = collection.removesuffix(suffix) if suffix else collection
        if base == data_map.subject.collection:
            expected[collection] = [found for found in stored if not _is_of(found, subject_id, address)]
            continue
        rules = data_map.rules_of(base)
        after = (_apply(found, rules, documents, subject_id, data_map) for found in stored)
        expected[collection] = [found for found in after if found is not None]
    return expected


def email_of(documents: Documents, subject_id: ObjectId) -> str:
    """Return the e-mail address of the person."""
    return str(next(user["email"] for user in documents["users"] if user["_id"] == subject_id))


def personal_values(documents: Documents, subject_id: ObjectId) -> set[str]:
    """Return every text that says who the person is, the e-mail address in every letter case it is known in.

    Texts under six characters and texts that documents without any trace of the person hold too are left out.
    """
    address = email_of(documents, subject_id)
    artists = artists_of(documents, subject_id)
    values = {address, address.upper(), address.lower(), address.swapcase()}
    strangers: list[str] = []
    for collection, stored in documents.items():
        paths = PERSONAL_PATHS.get(collection.removesuffix("_history"), ())
        for found in stored:
            if _belongs_to(found, subject_id, address):
                values |= {text for path in paths for text in _texts(found.get(path))}
            elif not _mentions(found, {subject_id, *artists}):
                strangers.extend(_texts(found))
    elsewhere = "\n".join(strangers)
    return {value for value in values if len(value) >= MIN_LENGTH and value not in elsewhere}


def artists_of(documents: Documents, subject_id: ObjectId) -> set[ObjectId]:
    """Return the ids of the artists that the person is or was."""
    now = {found["_id"] for found in documents.get("artists", ()) if found["user_id"] == subject_id}
    then = {
        found.get("document_id", found["_id"])
        for found in documents.get("artists_history", ())
        if found["user_id"] == subject_id
    }
    return now | then


def mentions(document: Document, subject_id: ObjectId, address: str) -> bool:
    """Whether the id of the person, as it is or as text, or the e-mail address stands anywhere in *document*."""
    folded = fold(address)
    if any(str(subject_id) in text.lower() or folded in fold(text) for text in _texts(document)):
        return True
    return _mentions(document, {subject_id})


def fold(text: str) -> str:
    """Return *text* without its letter case and Unicode form."""
    return unicodedata.normalize("NFKC", text).casefold()


def _is_of(document: Document, subject_id: ObjectId, address: str) -> bool:
    """Whether a user, or an old version of one, is the person: by id, by reference, or by e-mail address alone."""
    return subject_id in (document["_id"], document.get("document_id")) or fold(document["email"]) == fold(address)


def _apply(
    document: Document, rules: tuple[Rule, ...], documents: Documents, subject_id: ObjectId, data_map: DataMap
) -> Document | None:
    for rule in rules:
        wanted = {subject_id} if rule.locate.of is None else artists_of(documents, subject_id)
        assert rule.locate.of in (None, "artists"), "the oracle knows the reference domain"
        if not _matches(document, rule, wanted):
            continue
        if isinstance(rule.on_erase, Delete):
            return None
        document = _changed(copy.deepcopy(document), rule.on_erase, rule.locate.path, wanted)
    return document


def _matches(document: Document, rule: Rule, wanted: set[ObjectId]) -> bool:
    assert set(rule.where) <= {"collaborative"}, "the oracle knows the reference domain"
    if rule.where and (document.get("collaborative") is True) != (rule.where["collaborative"] is True):
        return False
    return any(value in wanted for value in _at(document, rule.locate.path.split(".")) if isinstance(value, ObjectId))


def _at(value: Any, path: list[str]) -> Iterator[Any]:
    if not path:
        yield value
        return
    name, rest = path[0], path[1:]
    inner = value.get(name.removesuffix("[]")) if isinstance(value, dict) else None
    for each in (inner or []) if name.endswith("[]") else [inner]:
        yield from _at(each, rest)


def _changed(document: Document, action: Update | Pull, path: str, wanted: set[ObjectId]) -> Document:
    if isinstance(action, Pull):
        inside = path.removeprefix(f"{action.array}[].")
        document[action.array] = [each for each in document[action.array] if each[inside] not in wanted]
        return document
    for name, value in action.set.items():
        *parents, last = name.split(".")
        _walk(document, parents)[last] = value
    for name in action.unset:
        *parents, last = name.split(".")
        _walk(document, parents).pop(last, None)
    return document


def _walk(document: Document, parents: list[str]) -> Document:
    for parent in parents:
        document = document[parent]
    return document


def _belongs_to(document: Document, subject_id: ObjectId, address: str) -> bool:
    owners = (document.get(name) for name in ("_id", "document_id", "user_id", "owner_id"))
    inner = (document.get(name) for name in ("details", "payload", "author"))
    referenced = (value.get("user_id") for value in inner if isinstance(value, dict))
    by_address = "email" in document and fold(document["email"]) == fold(address)
    return by_address or subject_id in {*owners, *referenced}


def _mentions(document: Document, ids: set[ObjectId]) -> bool:
    raw = bson.encode(document)
    return any(id_.binary in raw for id_ in ids)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
