"""Documents in which an identifier may stand after an erasure: what a law keeps whole, and what is another tenant's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bson

from compliance.datamap.model import DataMap
from compliance.datamap.rule import Keep
from compliance.datamap.subject import value_at
from compliance.erasure.locate import read_raw
from compliance.erasure.plan import Step, compile_steps
from compliance.erasure.sweep import Finder
from compliance.erasure.values import values_at
from compliance.mongo import Db, driver_errors


@dataclass(frozen=True, slots=True)
class Spared:
    """Tells which of the documents that a sweep found are as they should be.

    Attributes:
        needles: What the sweep looked for.
        steps: Those of the map that keep documents.
        tenant: Whose data was erased; None where the sweep looks for people of any.
    """

    database: Db
    data_map: DataMap
    needles: Finder
    steps: tuple[Step, ...]
    tenant: Any = None

    @classmethod
    def of(cls, database: Db, data_map: DataMap, needles: Finder, *, tenant: Any = None) -> "Spared":
        """Return what *data_map* allows to stay."""
        kept = tuple(step for step in compile_steps(data_map) if isinstance(step.action, Keep))
        return cls(database, data_map, needles, kept, tenant)

    def spares(self, collection: str, document: Any) -> bool:
        """Whether *document* may stay as it is: it is another tenant's, or kept in the fields that a law names."""
        if not self.steps and self.tenant is None:
            return False
        content = read_raw(document)
        return self._is_of_another(content) or any(
            self._keeps(step, content) for step in self.steps if step.collection == collection
        )

    def _is_of_another(self, content: Mapping[str, Any]) -> bool:
        if self.data_map.tenant is None or self.tenant is None:
            return False
        return value_at(content, self.data_map.tenant.field) not in (None, self.tenant)

    def _keeps(self, step: Step, content: Mapping[str, Any]) -> bool:
        fields = step.kept.fields if step.kept else ()
        rest = _without(content, [field.replace("[]", "").removesuffix("{}").split(".") for field in fields])
        names_person = any(self.needles.found_in(bson.encode({"": value})) for value in values_at(content, step.path))
        return names_person and not self.needles.found_in(bson.encode(rest)) and self._is_narrowed_to(step, content)

    def _is_narrowed_to(self, step: Step, content: Mapping[str, Any]) -> bool:
        if not step.where:
            return True
        query = {"$and": [{"_id": content["_id"]}, dict(step.where)]}
        with driver_errors():
            return self.database[step.collection].find_one(query, {"_id": 1}) is not None


def _without(value: Any, paths: list[list[str]]) -> Any:
    """Return *value* without what stands at *paths*, through every array on the way."""
    if isinstance(value, list):
        return [_without(each, paths) for each in value]
    if not isinstance(value, Mapping):
        return value
    gone = {path[0] for path in paths if len(path) == 1}
    return {
        name: _without(inner, [path[1:] for path in paths if path[0] == name])
        for name, inner in value.items()
        if name not in gone
    }
