"""Who a request is about: ids as they arrive (text) and as documents hold them (BSON)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from bson import Binary, Int64, ObjectId
from bson.errors import InvalidId

from compliance.audit.entry import EntityId
from compliance.datamap.model import DataMap
from compliance.datamap.person import KeyType
from compliance.datamap.pseudonym import is_pseudonym
from compliance.errors import InvalidPayload

OPAQUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
SubjectId = ObjectId | str | Binary


@dataclass(frozen=True, slots=True)
class Identity:
    """The values by which documents refer to one person, by name of the key; those known, at least the id.

    Personal values (an e-mail address) live in memory only, for as long as an erasure looks for them.

    Attributes:
        tenant: Whose data it is, where several organisations share the database.
    """

    values: Mapping[str, Any]
    tenant: Any = None

    def __repr__(self) -> str:
        return f"Identity(keys={sorted(self.values)})"


def parse_subject_id(text: str, data_map: DataMap) -> SubjectId:
    """Return the id of a person as the documents hold it, or the pseudonym where that id is personal.

    Raises:
        InvalidPayload: When *text* is no id of the type that the data map declares; it is not repeated.
    """
    if data_map.root_key.personal:
        return _parse_pseudonym(text)
    return _parse_id(text, data_map.root_key.type, what="subject_id")


def _parse_id(text: str, kind: KeyType, *, what: str) -> SubjectId:
    try:
        if kind is KeyType.OBJECT_ID:
            return ObjectId(text)
        if kind is KeyType.UUID:
            return Binary.from_uuid(UUID(text))
    except (InvalidId, ValueError, TypeError, AttributeError):
        raise InvalidPayload(f"{what}: expected {_EXPECTED[kind]}") from None
    if not OPAQUE.fullmatch(text):
        raise InvalidPayload(f"{what}: expected {_EXPECTED[kind]}")
    return text


def _parse_pseudonym(text: str) -> SubjectId:
    if not is_pseudonym(text):
        raise InvalidPayload(
            "subject_id: expected a pseudonym, hmac-sha256:<key name>:<64 hex digits>, for the ids of this data map "
            "are personal; `compliance datamap pseudonym` makes it"
        )
    return text


_EXPECTED = {
    KeyType.OBJECT_ID: "an ObjectId of 24 hexadecimal digits",
    KeyType.UUID: "a UUID",
    KeyType.LONG: "a number",
    KeyType.STRING: "an opaque id of letters, digits and _ . : - (no name, no e-mail address)",
}


def parse_tenant(text: str | None, data_map: DataMap) -> Any:
    """Return whose data it is as the documents hold it; None where one organisation has the database.

    Raises:
        InvalidPayload: When the data map has tenants and none is named, or the other way round; or it is no id.
    """
    if data_map.tenant is None:
        if text is not None:
            raise InvalidPayload("tenant: the data map has none; leave it out")
        return None
    if text is None:
        raise InvalidPayload("tenant: several organisations share this database; say whose person it is")
    if data_map.tenant.type is KeyType.LONG and text.isascii() and text.isdecimal():
        return Int64(text)
    return _parse_id(text, data_map.tenant.type, what="tenant")


def to_text(subject_id: Any) -> str:
    """Return *subject_id* as requests write it."""
    return str(subject_id.as_uuid()) if isinstance(subject_id, Binary) else str(subject_id)


def to_entity_id(subject_id: SubjectId) -> EntityId:
    """Return *subject_id* as audit entries name it."""
    return subject_id if isinstance(subject_id, ObjectId) else to_text(subject_id)


def read_identity(document: Mapping[str, Any], data_map: DataMap) -> Identity:
    """Return the identity that the root *document* of a person states."""
    values = {name: value_at(document, key.path) for name, key in data_map.subject.keys.items()}
    return Identity({name: value for name, value in values.items() if value not in (None, "")})


def value_at(document: Mapping[str, Any], path: str) -> Any:
    """Return the value at the dotted *path* of *document*, or None."""
    value: Any = document
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
