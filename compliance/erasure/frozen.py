"""Collections whose writes are refused for a moment, because a copy is about to take their place.

The validator that refuses says by itself whose it is and what was there before it, so whoever finds it can let writes
in again, whatever became of the record in ``migration_control``::

    {$expr: {$eq: [0, 1]}, $comment: "{fence: int, before: {validator, level, action}, ...} in canonical Extended JSON"}
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bson import Binary, json_util

from compliance.errors import StoreUnavailable
from compliance.mongo import Databases, Document, driver_errors
from compliance.roles import CONTROL

NEVER: Document = {"$eq": [0, 1]}
WHY = "a migration lets a copy take the place of this collection; see docs/migrations.md"
EXACT = json_util.CANONICAL_JSON_OPTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """A collection that refuses every insert and update.

    Attributes:
        fence: Of the lease under which that was begun.
        before: ``validator``, ``level`` and ``action`` as they were.
    """

    collection: str
    uuid: Binary
    fence: int
    before: Mapping[str, Any]


def refusing(before: Mapping[str, Any], *, fence: int | str) -> Document:
    """Return the validator that nothing passes, and that holds what was there *before*."""
    told = {"compliance": WHY, "fence": fence, "before": dict(before)}
    return {"$expr": NEVER, "$comment": json_util.dumps(told, json_options=EXACT)}


def find_frozen(databases: Databases) -> list[Frozen]:
    """Return the collections that refuse writes now, whatever is recorded."""
    with driver_errors():
        listed = list(databases.app.list_collections(filter={"options.validator": {"$exists": True}}))
    found = (_read(info["name"], info["info"].get("uuid"), info["options"]["validator"]) for info in listed)
    return [frozen for frozen in found if frozen is not None]


def _read(name: str, uuid: Any, validator: Mapping[str, Any]) -> Frozen | None:
    """Return what the *validator* of a collection says of writes that are refused; None where it is another one."""
    if validator.get("$expr") != NEVER:
        return None
    with suppress(ValueError, TypeError, KeyError):
        told = json_util.loads(validator["$comment"], json_options=EXACT)
        return Frozen(collection=name, uuid=Binary(uuid, 4), fence=int(told["fence"]), before=told["before"])
    return None


def recorded(databases: Databases) -> list[str]:
    """Return the collections of which it is recorded that writes are refused, or that an exchange is not settled."""
    with driver_errors():
        found = databases.compliance[CONTROL].find({"frozen": {"$exists": True}}, {"collection": 1})
        return [str(record["collection"]) for record in found]


def is_frozen(databases: Databases) -> bool:
    """Whether writes to some collection are refused for a moment, because it is being rebuilt."""
    return bool(recorded(databases) or find_frozen(databases))


@dataclass(frozen=True, slots=True)
class Moment:
    """Which collections stand behind their names, and how often each began to be exchanged."""

    behind: Mapping[str, Any]
    begun: Mapping[str, int]


def require_rest(databases: Databases) -> Moment:
    """Return the moment in which no collection is being exchanged.

    Raises:
        StoreUnavailable: When one is: who looks for a document could look past it.
    """
    being = sorted({*recorded(databases), *(frozen.collection for frozen in find_frozen(databases))})
    if being:
        raise StoreUnavailable(f"a migration exchanges {', '.join(being)}; looked at again soon")
    with driver_errors():
        listed = databases.app.list_collections(filter={"type": "collection"})
        behind = {info["name"]: info["info"].get("uuid") for info in listed}
        records = databases.compliance[CONTROL].find({"freezes": {"$gt": 0}}, {"freezes": 1})
        begun = {str(record["_id"]): int(record["freezes"]) for record in records}
    return Moment(behind, begun)


def require_same(databases: Databases, before: Moment) -> None:
    """Return if nothing took the place of a collection since *before*, nor began to, and none has another name.

    Raises:
        StoreUnavailable: When something did: what was looked at may not be what is there.
    """
    now = require_rest(databases)
    names = {uuid: name for name, uuid in before.behind.items()}
    moved = [name for name, uuid in now.behind.items() if names.get(uuid, name) != name]
    others = [name for name in before.behind.keys() & now.behind.keys() if before.behind[name] != now.behind[name]]
    if others or now.begun != before.begun:
        raise StoreUnavailable("a collection was exchanged while it was looked through; looked at again soon")
    if moved:
        raise StoreUnavailable("a collection got another name while all were looked through; looked at again soon")
