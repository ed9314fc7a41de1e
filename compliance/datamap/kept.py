"""Keep every data map that a plan was made with, under its digest: what an old plan meant can be looked up.

Document shape (``data_maps``)::

    {_id: <SHA-256 of the map, as plans name it>, map: str (canonical Extended JSON), kept_at: date}

``map`` is the text that the digest is of, so that nobody needs to believe the database.
"""

import hashlib
from contextlib import suppress
from datetime import datetime

from pymongo.errors import DuplicateKeyError

from compliance.datamap.model import DataMap
from compliance.errors import UnknownName
from compliance.mongo import Databases, driver_errors

DATA_MAPS = "data_maps"


def keep_map(databases: Databases, data_map: DataMap, *, now: datetime) -> None:
    """Keep *data_map* if it is not kept yet; of many at once, one does."""
    digest, maps = data_map.digest, databases.compliance[DATA_MAPS]
    with driver_errors():
        if maps.find_one({"_id": digest}, {"_id": 1}) is not None:
            return
        with suppress(DuplicateKeyError):  # somebody else was faster
            maps.insert_one({"_id": digest, "map": data_map.canonical, "kept_at": now})


def get_map(databases: Databases, digest: str) -> str:
    """Return the text of the map with this *digest*.

    Raises:
        UnknownName: When it is not kept, or what is kept is another map.
    """
    with driver_errors():
        found = databases.compliance[DATA_MAPS].find_one({"_id": digest})
    if found is None:
        raise UnknownName("no data map with this digest is kept; `compliance erasure show` names that of a request")
    if hashlib.sha256(found["map"].encode()).hexdigest() != digest:
        raise UnknownName("what is kept under this digest is another data map: it was altered")
    return str(found["map"])
