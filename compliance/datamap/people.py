"""Find the person whom a pseudonym names: read the keys of every root document, and compare.

No value is stated in a query, which a server would log. It takes time that grows with the number of people, and memory
that does not.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from compliance.datamap.model import DataMap
from compliance.datamap.pseudonym import VARIABLE, Pseudonyms
from compliance.datamap.subject import Identity, SubjectId, read_identity, value_at
from compliance.errors import ConfigurationError
from compliance.mongo import Db, Document, driver_errors

BATCH_DOCS = 1000


def find_by_pseudonym(
    database: Db,
    data_map: DataMap,
    pseudonym: SubjectId,
    *,
    tenant: Any = None,
    pseudonyms: Pseudonyms | None,
    check: Callable[[], None] = lambda: None,
) -> Identity | None:
    """Return what the document of the person says about who it is; None when there is no such person.

    *check* is called for every batch, and may end the search by an error; *tenant* says whose people are looked through
    where several organisations share the database.

    Raises:
        InvalidPayload: When the key that *pseudonym* was made with is not there.
    """
    if pseudonyms is None:
        raise ConfigurationError(f"this process has no {VARIABLE}, and cannot tell whom a pseudonym names")
    named, path = str(pseudonym), data_map.root_key.path
    known = pseudonyms.only(named)
    for document in read_keys(database, data_map, tenant=tenant, check=check):
        value = value_at(document, path)
        if isinstance(value, str) and known.is_of(named, value):
            return replace(read_identity(document, data_map), tenant=tenant)
    return None


def read_keys(
    database: Db, data_map: DataMap, *, tenant: Any = None, check: Callable[[], None] = lambda: None
) -> Iterator[Document]:
    """Yield the keys of every person, of one organisation where several share the database; nothing else of them."""
    query = {data_map.tenant.field: tenant} if data_map.tenant else {}
    fields = {"_id": 0} | {key.path: 1 for key in data_map.subject.keys.values()}
    found = database[data_map.subject.collection].find(query, fields, batch_size=BATCH_DOCS)
    with driver_errors(), found:
        for number, document in enumerate(found):
            if number % BATCH_DOCS == 0:
                check()
            yield document
