"""Decide what an erasure does, in which order: children before parents, the person's own document last."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from compliance.datamap.collection import Kind
from compliance.datamap.form import is_under
from compliance.datamap.model import DataMap
from compliance.datamap.order import children_first
from compliance.datamap.person import KeyType
from compliance.datamap.rule import (
    Action,
    Archive,
    Delete,
    Edge,
    Encoding,
    Keep,
    Kept,
    Pull,
    RemoveKey,
    Rule,
    Update,
)
from compliance.datamap.subject import Identity, to_text
from compliance.erasure.values import forms_of, is_plain_name, pattern_of
from compliance.errors import ConfigurationError
from compliance.masking import STRATEGIES

Filter = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Documents of one collection that get one action.

    Attributes:
        key: The key of the person that ``path`` holds; None where ``of`` says whose ``_id`` it holds.
        is_scan: The key is personal or packed, so documents are found by reading them, never by a query that states it.
        is_root: This is the person's own document.
        is_tree: ``of`` is the collection itself.
        tenant: The field that says whose data a document is; None where one organisation has the database.
        tombstone: What ``relabel`` sets.
        kept: What stays, and why.
        but: Steps of the same collection whose documents are kept whole, so this one leaves them alone.
    """

    collection: str
    path: str
    action: Action
    key: str | None = None
    of: str | None = None
    where: Mapping[str, Any]
    kept: Kept | None = None
    edge: Edge = Edge.DEEP
    stored: tuple[KeyType, ...] = ()
    prefix: str | None = None
    suffix: str = ""
    encoded: tuple[Encoding, ...] = ()
    kind: Kind = Kind.ORDINARY
    tenant: str | None = None
    tombstone: Any = None
    is_scan: bool = False
    is_root: bool = False
    is_tree: bool = False
    but: tuple["Step", ...] = ()

    @property
    def verb(self) -> str:
        """What happens to a document, such as ``delete``."""
        return self.action.action

    @property
    def is_map_key(self) -> bool:
        """Whether the value is a field name."""
        return self.path.endswith("{}")

    @property
    def goes(self) -> bool:
        """Whether documents leave the collection."""
        return isinstance(self.action, Delete | Archive)

    @property
    def passes_on(self) -> bool:
        """Whether what refers to the documents is the person's, too."""
        return self.edge in (Edge.DEEP, Edge.OWNED)


def compile_steps(data_map: DataMap) -> tuple[Step, ...]:
    """Return every step of an erasure in the order of execution.

    Documents that refer to others (tracks to artists) go before those they refer to, and the root goes last, so that
    a crash never loses the way back in.

    Raises:
        ConfigurationError: When collections of the map refer to each other in a circle.
    """
    steps = [step for collection in children_first(data_map) for step in _rule_steps(collection, data_map)]
    return (*steps, *_root_steps(data_map))


def _rule_steps(collection: str, data_map: DataMap) -> Iterator[Step]:
    """Yield the steps of *collection*: trees from their leaves first, while their roots are still there."""
    steps = [step for rule in data_map.rules_of(collection) for step in _twins(collection, rule, data_map)]
    kept = [step for step in steps if isinstance(step.action, Keep)]
    trees = [step for step in steps if step.of == collection]
    if len([step for step in trees if step.is_tree]) > 1:
        raise ConfigurationError(f"the data map: {collection}: only one rule may refer to the collection itself")
    first = [step for step in trees if not step.is_tree] + [step for step in trees if step.is_tree]
    for step in first + [step for step in steps if step not in trees and step not in kept] + kept:
        back = tuple(other for other in kept if other.collection == step.collection and other != step)
        if any(other.is_scan or other.of is not None for other in back):
            raise ConfigurationError(
                f"the data map: {collection}: beside other rules keep takes a key that is not personal, not packed and "
                "no of, so that no other rule takes what is kept"
            )
        yield replace(step, but=back)


def _twins(collection: str, rule: Rule, data_map: DataMap) -> Iterator[Step]:
    yield _to_step(collection, rule, data_map)
    if data_map.history is not None:
        yield replace(_to_step(collection, rule, data_map, suffix=data_map.history.suffix), is_tree=False)


def _to_step(collection: str, rule: Rule, data_map: DataMap, *, suffix: str = "") -> Step:
    locate, key = rule.locate, rule.locate.key
    kind = data_map.collections[collection].kind
    for fault in _faults(rule, collection, kind, data_map):
        raise ConfigurationError(f"the data map: {collection}: {fault}")
    return Step(
        collection=collection + suffix,
        path=locate.path,
        key=key,
        of=locate.of,
        where=rule.where,
        action=rule.on_erase,
        kept=rule.kept,
        edge=locate.edge,
        stored=locate.stored,
        prefix=locate.prefix,
        suffix=locate.suffix,
        encoded=locate.encoded,
        kind=kind,
        tenant=data_map.tenant.field if data_map.tenant else None,
        tombstone=data_map.subject.tombstone,
        is_scan=bool(locate.encoded) or (key is not None and data_map.subject.keys[key].personal),
        is_tree=locate.of == collection,
    )


def _faults(rule: Rule, collection: str, kind: Kind, data_map: DataMap) -> Iterator[str]:
    """Yield what a map can say and an erasure cannot do: nothing is skipped in silence."""
    locate, action = rule.locate, rule.on_erase
    if locate.is_map_key and "[]" in locate.path:
        yield "a path that ends in {} cannot go through an array"
    if locate.edge is Edge.OWNED and locate.path.count("[]") > 1:
        yield "edge owned takes a path through one array"
    if locate.of == collection and locate.edge is not Edge.DEEP:
        yield "a reference to the collection itself takes edge deep"
    if isinstance(action, Pull) and action.match and not _inside(locate.path, action.array):
        yield "match is for arrays of documents"
    if isinstance(action, Keep) and not _covers(rule, locate.path):
        yield f"keep: kept.fields must hold {locate.path}, for an identifier that no law demands is a residue"
    if isinstance(action, Update):
        yield from (f"mask: no strategy {name}" for name in action.mask.values() if name not in STRATEGIES)
    if kind is Kind.TIME_SERIES and (_is_scan(rule, data_map) or locate.is_map_key):
        yield "of a time series documents are deleted by what their meta field holds: take a key that can be queried"


def _is_scan(rule: Rule, data_map: DataMap) -> bool:
    locate = rule.locate
    return bool(locate.encoded) or (locate.key is not None and data_map.subject.keys[locate.key].personal)


def _covers(rule: Rule, path: str) -> bool:
    return rule.kept is not None and any(is_under(path, field) for field in rule.kept.fields)


def _root_steps(data_map: DataMap) -> Iterator[Step]:
    subject, root, gone = data_map.subject, data_map.root_key, Delete(action="delete")
    tenant = data_map.tenant.field if data_map.tenant else None
    if data_map.history is not None:
        old = subject.collection + data_map.history.suffix
        by_id = data_map.history.id_path
        yield Step(
            collection=old, path=by_id, key=subject.key, where={}, action=gone, is_scan=root.personal, tenant=tenant
        )
        for name, key in subject.keys.items():
            yield Step(
                collection=old, path=key.path, key=name, where={}, action=gone, is_scan=key.personal, tenant=tenant
            )
    yield Step(
        collection=subject.collection,
        path=root.path,
        key=subject.key,
        where={},
        action=gone,
        is_scan=root.personal,
        is_root=True,
        tenant=tenant,
    )


def filter_for(step: Step, identity: Identity, referenced: Sequence[Any]) -> Filter | None:
    """Return the query that finds the documents of *step*; None when there is nothing to look for.

    Args:
        step: A step that is no scan.
        identity: The person.
        referenced: The ``_id`` of the documents of ``step.of`` that belong to the person.
    """
    values = values_for(step, identity, referenced)
    return {"$and": [_condition(step, values), *narrowed(step, identity)]} if values else None


def values_for(step: Step, identity: Identity, referenced: Sequence[Any]) -> list[Any]:
    """Return what stands at the path of *step* in a document of the person; empty when that is not known."""
    if step.of is not None:
        return [form for value in referenced for form in forms_of(value, step.stored)]
    if step.key is None or step.key not in identity.values:
        return []
    return forms_of(identity.values[step.key], step.stored)


def narrowed(step: Step, identity: Identity) -> list[Filter]:
    """Return the conditions on documents of *step* beside the one that states the person."""
    kept = [query for other in step.but if (query := filter_for(other, identity, ())) is not None]
    return [dict(step.where), *tenant_filter(step, identity), *([{"$nor": kept}] if kept else [])]


def tenant_filter(step: Step, identity: Identity) -> list[Filter]:
    """Return the condition that a document is of the person's organisation."""
    return [] if step.tenant is None else [{step.tenant: identity.tenant}]


def sole_owner(step: Step, identity: Identity, referenced: Sequence[Any]) -> Filter:
    """Return the condition that nobody but the person stands in the array of *step*, which is owned."""
    array, inside = owned_array(step)
    others: Filter = {"$nin": values_for(step, identity, referenced)}
    return {array: {"$not": {"$elemMatch": {inside: others} if inside else others}}}


def owned_array(step: Step) -> tuple[str, str]:
    """Return the array of *step*, which is owned, and where its elements state the person."""
    array, _, inside = step.path.partition("[]")
    return array, inside.removeprefix(".")


def _condition(step: Step, values: list[Any]) -> Filter:
    path = step.path.replace("[]", "").removesuffix("{}")
    if step.is_map_key:
        return _any_of([_has_name(path, to_text(value)) for value in values])
    if step.prefix is not None:
        pattern = pattern_of(values[0], prefix=step.prefix, suffix=step.suffix)
        return {path: {"$regex": pattern}}
    stated = values[0] if len(values) == 1 and step.of is None else {"$in": values}
    if isinstance(step.action, Pull) and step.action.match:
        inside = _inside(step.path, step.action.array)
        return {step.action.array.replace("[]", ""): {"$elemMatch": {inside: stated, **step.action.match}}}
    return {path: stated}


def _any_of(conditions: list[Filter]) -> Filter:
    return conditions[0] if len(conditions) == 1 else {"$or": conditions}


def _has_name(path: str, name: str) -> Filter:
    if is_plain_name(name):
        return {f"{path}.{name}": {"$exists": True}}
    value = {"$getField": {"field": {"$literal": name}, "input": f"${path}"}}
    is_there = {"$ne": [{"$type": value}, "missing"]}
    return {"$expr": {"$cond": [{"$eq": [{"$type": f"${path}"}, "object"]}, is_there, False]}}


def _inside(path: str, array: str) -> str:
    """Return where the elements of *array* state what stands at *path*; empty where they are it."""
    return path.removeprefix(f"{array}[]").removeprefix(".").replace("[]", "")


def update_for(
    action: Action, step: Step, identity: Identity, referenced: Sequence[Any]
) -> Filter | list[Mapping[str, Any]]:
    """Return the update that makes a document of *step* forget the person; repeating it changes nothing.

    What is masked depends on what stands there, and is not in it.
    """
    values = values_for(step, identity, referenced)
    if isinstance(action, RemoveKey):
        return [_without_name(step.path.removesuffix("{}"), to_text(value)) for value in values]
    if isinstance(action, Update):
        operators: Filter = {"$unset": dict.fromkeys(action.unset, "")} if action.unset else {}
        values_set = dict(action.set) | dict.fromkeys(action.relabel, step.tombstone)
        return ({"$set": values_set} if values_set else {}) | operators
    value: Any = values[0] if len(values) == 1 and step.of is None else {"$in": values}
    if not isinstance(action, Pull):
        array, inside = owned_array(step)
        return {"$pull": {array: {inside: value} if inside else value}}
    inside, array = _inside(step.path, action.array), action.array.replace("[]", ".$[]")
    return {"$pull": {array: {inside: value, **action.match} if inside else value}}


def _without_name(path: str, name: str) -> Filter:
    return {"$set": {path: {"$unsetField": {"field": {"$literal": name}, "input": f"${path}"}}}}
