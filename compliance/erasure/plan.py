"""Decide what an erasure does, in which order: children before parents, the person's own document last."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from compliance.datamap.collection import Kind
from compliance.datamap.model import DataMap
from compliance.datamap.rule import Delete, Edge, Kept, Pull, Rule, Update
from compliance.datamap.subject import Identity
from compliance.errors import ConfigurationError

Filter = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Documents of one collection that get one action.

    Attributes:
        key: The key of the person that ``path`` holds; None where ``of`` says whose ``_id`` it holds.
        is_scan: The key is personal, so documents are found by reading them, never by a query that states it.
        is_root: This is the person's own document.
    """

    collection: str
    path: str
    action: Delete | Update | Pull
    key: str | None = None
    of: str | None = None
    where: Mapping[str, Any]
    kept: Kept | None = None
    is_scan: bool = False
    is_root: bool = False

    @property
    def verb(self) -> str:
        """What happens to a document: ``delete``, ``update`` or ``pull``."""
        return self.action.action


def compile_steps(data_map: DataMap) -> tuple[Step, ...]:
    """Return every step of an erasure in the order of execution.

    Documents that refer to others (tracks to artists) go before those they refer to, and the root goes last, so that
    a crash never loses the way back in.

    Raises:
        ConfigurationError: When collections of the map refer to each other in a circle.
    """
    steps = [step for collection in _children_first(data_map) for step in _rule_steps(collection, data_map)]
    return (*steps, *_root_steps(data_map))


def _children_first(data_map: DataMap) -> Iterator[str]:
    graph: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(data_map.collections, ()))
    for collection, rule in data_map.rules():
        if rule.locate.of not in (None, collection):
            graph.add(rule.locate.of, collection)
    try:
        yield from graph.static_order()
    except CycleError as error:
        raise ConfigurationError(f"the data map refers in a circle: {' -> '.join(error.args[1])}") from None


def _rule_steps(collection: str, data_map: DataMap) -> Iterator[Step]:
    for rule in data_map.rules_of(collection):
        yield _to_step(collection, rule, data_map)
        if data_map.history is not None:
            yield _to_step(collection + data_map.history.suffix, rule, data_map)


def _to_step(collection: str, rule: Rule, data_map: DataMap) -> Step:
    key = rule.locate.key
    return Step(
        collection=collection,
        path=rule.locate.path,
        key=key,
        of=rule.locate.of,
        where=rule.where,
        action=_what_is_built(collection, rule, data_map),
        kept=rule.kept,
        is_scan=key is not None and data_map.subject.keys[key].personal,
    )


def _what_is_built(collection: str, rule: Rule, data_map: DataMap) -> Delete | Update | Pull:
    """Refuse what a map can say and an erasure does not carry out: nothing is skipped in silence."""
    locate, action = rule.locate, rule.on_erase
    if not isinstance(action, Delete | Update | Pull):
        raise ConfigurationError(f"the data map: {collection}: {action.action} cannot be carried out yet")
    asked = {
        "tenant": data_map.tenant,
        "a path that ends in {}": locate.is_map_key,
        "prefix": locate.prefix is not None,
        "encoded": locate.encoded,
        "stored": locate.stored,
        "a collection that refers to itself": locate.of == collection,
        "edge": locate.edge is not Edge.DEEP,
        "time series": data_map.collections[collection.removesuffix(_suffix(data_map))].kind is Kind.TIME_SERIES,
        "relabel and mask": isinstance(action, Update) and (action.relabel or action.mask),
        "match": isinstance(action, Pull) and action.match,
    }
    for what, is_asked in asked.items():
        if is_asked:
            raise ConfigurationError(f"the data map: {collection}: {what} cannot be carried out yet")
    return action


def _suffix(data_map: DataMap) -> str:
    return data_map.history.suffix if data_map.history else ""


def _root_steps(data_map: DataMap) -> Iterator[Step]:
    subject, root, gone = data_map.subject, data_map.root_key, Delete(action="delete")
    if data_map.history is not None:
        old = subject.collection + data_map.history.suffix
        by_id = data_map.history.id_path
        yield Step(collection=old, path=by_id, key=subject.key, where={}, action=gone, is_scan=root.personal)
        for name, key in subject.keys.items():
            yield Step(collection=old, path=key.path, key=name, where={}, action=gone, is_scan=key.personal)
    yield Step(
        collection=subject.collection,
        path=root.path,
        key=subject.key,
        where={},
        action=gone,
        is_scan=root.personal,
        is_root=True,
    )


def filter_for(step: Step, identity: Identity, referenced: Sequence[Any]) -> Filter | None:
    """Return the query that finds the documents of *step*; None when there is nothing to look for.

    Args:
        step: A step that is no scan.
        identity: The person.
        referenced: The ``_id`` of the documents of ``step.of`` that belong to the person.
    """
    path = step.path.replace("[]", "")
    if step.of is not None:
        return {"$and": [{path: {"$in": list(referenced)}}, dict(step.where)]} if referenced else None
    if step.key is None or step.key not in identity.values:
        return None
    return {"$and": [{path: identity.values[step.key]}, dict(step.where)]}


def update_for(action: Update | Pull, step: Step, identity: Identity, referenced: Sequence[Any]) -> Filter:
    """Return the update that makes a document of *step* forget the person; repeating it changes nothing."""
    if isinstance(action, Update):
        operators: Filter = {"$set": dict(action.set)} if action.set else {}
        return operators | ({"$unset": dict.fromkeys(action.unset, "")} if action.unset else {})
    inside = step.path.removeprefix(f"{action.array}[]").removeprefix(".").replace("[]", "")
    value: Any = {"$in": list(referenced)} if step.of is not None else identity.values[str(step.key)]
    array = action.array.replace("[]", ".$[]")
    return {"$pull": {array: {inside: value} if inside else value}}
