"""What migrations declared: the indexes and validators that should be there.

Document shape (``declared_schema``)::

    {_id: "index:<collection>.<name>", collection: str, name: str, keys: [[field, direction]], unique: bool,
     options?: str, hidden_since?: date, revision: str}
    {_id: "collection:<name>", collection: str, validator: object, level: str, revision: str}
"""

from typing import Any

from bson import json_util

from compliance.health.index_spec import Keys, Options
from compliance.mongo import CODEC, Databases, Document, driver_errors

DECLARED = "declared_schema"
_JSON = json_util.JSONOptions(tz_aware=True, tzinfo=CODEC.tzinfo)


def index_id(collection: str, name: str) -> str:
    """Return the id of the declaration of an index."""
    return f"index:{collection}.{name}"


def index_document(
    collection: str, name: str, keys: Keys, *, unique: bool, revision: str, options: Options | None = None
) -> Document:
    """Return the declaration of an index; its options as text, for a filter among them starts with ``$``."""
    return {
        "_id": index_id(collection, name),
        "collection": collection,
        "name": name,
        "keys": [list(key) for key in keys],
        "unique": unique,
        **({"options": json_util.dumps(dict(options), sort_keys=True)} if options else {}),
        "revision": revision,
    }


def declared_options(index: Document) -> dict[str, Any]:
    """Return the options of a declared index by the server's names, ``unique`` among them."""
    options: dict[str, Any] = json_util.loads(index.get("options", "{}"), json_options=_JSON)
    return {"unique": index["unique"], **options}


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
