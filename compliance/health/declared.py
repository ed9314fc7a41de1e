"""What migrations declared: the indexes and validators that should be there.

Document shape (``declared_schema``)::

    {_id: "index:<collection>.<name>", collection: str, name: str, keys: [[field, direction]], unique: bool,
     revision: str}
    {_id: "collection:<name>", collection: str, validator: object, level: str, revision: str}
"""

from collections.abc import Sequence
from typing import Any

from bson import json_util

from compliance.mongo import Databases, Document, driver_errors

DECLARED = "declared_schema"
Keys = Sequence[tuple[str, int | str]]


def index_document(collection: str, name: str, keys: Keys, *, unique: bool, revision: str) -> Document:
    """Return the declaration of an index."""
    return {
        "_id": f"index:{collection}.{name}",
        "collection": collection,
        "name": name,
        "keys": [list(key) for key in keys],
        "unique": unique,
        "revision": revision,
    }


def collection_document(collection: str, validator: Document, *, level: str, revision: str) -> Document:
    """Return the declaration of a collection; the validator as text, for its operators start with ``$``."""
    return {
        "_id": f"collection:{collection}",
        "collection": collection,
        "validator": json_util.dumps(validator, sort_keys=True),
        "level": level,
        "revision": revision,
    }


def declared(databases: Databases, kind: str) -> list[Document]:
    """Return the declarations of *kind*: ``index`` or ``collection``."""
    with driver_errors():
        return list(databases.compliance[DECLARED].find({"_id": {"$regex": f"^{kind}:"}}))


def same_validator(text: str, observed: Any) -> bool:
    """Whether an *observed* validator is the one declared as *text*."""
    return text == json_util.dumps(observed or {}, sort_keys=True)
