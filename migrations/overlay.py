"""What the commands of a dry run would have changed so far, so that later steps are planned on it; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from compliance.health.observed import Observed
from compliance.mongo import Document
from migrations.command import Command

ID_SPEC: Document = {"v": 2, "key": {"_id": 1}, "name": "_id_"}
VALIDATION = ("validator", "validationLevel", "validationAction")


@dataclass(slots=True)
class Overlay:
    """Collections and indexes as they would be.

    Attributes:
        made: The options of collections that would be created.
        gone: Collections that would be dropped.
        options: Options that would be changed, by collection.
        indexes: Indexes that would be built; None for those that would be dropped.
        changes: What would be changed of indexes, by collection and name.
        partitioned: What would be declared of collections that are to be shared out among buckets.
        written: Collections whose documents would be changed: what is found in them now may not be found then.
    """

    made: dict[str, Document] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    options: dict[str, Document] = field(default_factory=dict)
    indexes: dict[str, dict[str, Document | None]] = field(default_factory=dict)
    changes: dict[tuple[str, str], Document] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    partitioned: dict[str, Document] = field(default_factory=dict)

    def apply(self, command: Command) -> None:
        """Take *command* for carried out."""
        if command.name == "renameCollection":
            self._rename(command.body)
        if command.database:
            return
        change = {
            "create": self._create,
            "drop": self._drop,
            "createIndexes": self._build,
            "dropIndexes": self._drop_index,
            "collMod": self._modify,
        }.get(command.name, self._write)
        change(command.collection, command.body)

    def know(self, collection: str, options: Document, indexes: Mapping[str, Document]) -> None:
        """Take *collection*, which is there, for what a rename is to find."""
        self.made[collection], self.indexes[collection] = options, dict(indexes)

    def _write(self, collection: str, _: Mapping[str, Any]) -> None:
        self.written.add(collection)

    def _create(self, collection: str, body: Mapping[str, Any]) -> None:
        self.made[collection] = {key: body[key] for key in body if key not in ("create", "writeConcern")}
        self.indexes[collection] = {} if "viewOn" in body else {"_id_": ID_SPEC}

    def _rename(self, body: Mapping[str, Any]) -> None:
        """Take a collection that would be created for another one, whose place it takes."""
        source, target = (str(body[name]).partition(".")[2] for name in ("renameCollection", "to"))
        self.made[target] = {**self.made.pop(source, {}), **self.options.pop(source, {})}
        self.indexes[target] = self.indexes.pop(source, {})
        self.options.pop(target, None)
        changes = {name: self.changes.pop((at, name)) for at, name in list(self.changes) if at == source}
        for at, name in [key for key in self.changes if key[0] == target]:
            del self.changes[(at, name)]
        self.changes |= {(target, name): change for name, change in changes.items()}
        self.gone.add(source)
        self.written -= {source}
        self.written.add(target)

    def _drop(self, collection: str, _: Mapping[str, Any]) -> None:
        self.made.pop(collection, None)
        self.options.pop(collection, None)
        self.indexes.pop(collection, None)
        self.gone.add(collection)

    def _build(self, collection: str, body: Mapping[str, Any]) -> None:
        for index in body["indexes"]:
            self._set_index(collection, index["name"], index)

    def _drop_index(self, collection: str, body: Mapping[str, Any]) -> None:
        self._set_index(collection, body["index"], None)

    def _set_index(self, collection: str, name: str, spec: Document | None) -> None:
        self.indexes.setdefault(collection, {})[name] = spec
        self.changes.pop((collection, name), None)

    def _modify(self, collection: str, body: Mapping[str, Any]) -> None:
        given = {key: body[key] for key in (*VALIDATION, "viewOn", "pipeline") if key in body}
        if given:
            self.options.setdefault(collection, {}).update(given)
        index = dict(body.get("index", {}))
        if index:
            self.changes.setdefault((collection, index.pop("name")), {}).update(index)

    def names(self, observed: Iterable[str]) -> set[str]:
        """Return the collections that there would be, where *observed* are there now."""
        return {*(name for name in observed if name not in self.gone), *self.made}

    def collection(self, name: str, observed: Document | None) -> Document | None:
        """Return the options that *name* would have, which has *observed* now; None where it would not be there."""
        is_replaced = name in self.made or name in self.gone
        found = self.made.get(name) if is_replaced else observed
        if found is None:
            is_implied = any(spec for spec in self.indexes.get(name, {}).values()) or name in self.written
            return {} if is_implied else None
        return {**found, **self.options.get(name, {})}

    def indexes_of(self, collection: str, observed: Mapping[str, Observed]) -> dict[str, Observed]:
        """Return the indexes that *collection* would have, which has *observed* now."""
        is_replaced = collection in self.made or collection in self.gone
        found = {} if is_replaced else dict(observed)
        for name, spec in self.indexes.get(collection, {}).items():
            found.pop(name, None)
            if spec is not None:
                found[name] = Observed(dict(spec), is_building=False)
        return {name: self._changed(collection, name, index) for name, index in found.items()}

    def _changed(self, collection: str, name: str, index: Observed) -> Observed:
        change = self.changes.get((collection, name))
        if not change:
            return index
        spec = {key: value for key, value in {**index.spec, **change}.items() if value is not False}
        return Observed(spec, index.is_building)
