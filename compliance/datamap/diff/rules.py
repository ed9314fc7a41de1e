"""What the rules of two maps do with the same documents; pure."""

from collections.abc import Iterator, Mapping

from bson import json_util

from compliance.datamap.collection import Collection
from compliance.datamap.diff.change import Change, Effect
from compliance.datamap.diff.fate import GONE, LEFT, NOT_FOUND, effect_of, fate
from compliance.datamap.model import DataMap
from compliance.datamap.paths import declaring
from compliance.datamap.rule import Archive, Edge, Locator, Rule, Update

REST = "what is not listed"
_EMPTY = Collection()
_REACHING = (Edge.DEEP, Edge.OWNED)  # what refers to a document is found by way of it


def changes_of_rules(old: DataMap, new: DataMap) -> Iterator[Change]:
    """Yield what is found, or done with it, in another way than before; time buckets as the collection they are of."""
    before, now = _written(old), _written(new)
    for name in dict.fromkeys((*before, *now)):
        yield from _of_collection(name, before.get(name, _EMPTY), now.get(name, _EMPTY))


def _written(data_map: DataMap) -> Mapping[str, Collection]:
    copies = {bucket for name, found in data_map.buckets.items() for bucket in found.named(name)}
    return {name: found for name, found in data_map.collections.items() if name not in copies}


def _of_collection(name: str, old: Collection, new: Collection) -> Iterator[Change]:
    left = list(new.rules)
    for rule in old.rules:
        same = _counterpart(rule, left) or _counterpart(rule, new.rules)
        if same is None:
            yield _unfound(f"{name} by {_documents(rule)}", rule)
            continue
        left = [one for one in left if one is not same]
        yield from _of_documents(f"{name} by {_documents(same)}", rule, same)
        yield from _of_paths(name, (old, rule), (new, same), several=max(len(old.rules), len(new.rules)) > 1)
    for rule in left:
        what = fate(rule, "").words
        yield Change(
            place=f"{name} by {_documents(rule)}", before=NOT_FOUND.words, now=f"found, {what}", effect=Effect.MORE
        )


def _unfound(place: str, rule: Rule) -> Change:
    return Change(place=place, before=f"found, {fate(rule, '').words}", now=NOT_FOUND.words, effect=Effect.LESS)


def _counterpart(rule: Rule, others: Iterator[Rule] | list[Rule] | tuple[Rule, ...]) -> Rule | None:
    """Return the rule that finds the same documents, else one that finds all of them and more, else a narrower one."""
    same = [other for other in others if _way(other.locate) == _way(rule.locate)]
    for is_match in (lambda other: other.where == rule.where, lambda other: not other.where, lambda _: len(same) == 1):
        found = next(filter(is_match, same), None)
        if found is not None:
            return found
    return None


def _way(locate: Locator) -> tuple[object, ...]:
    return (locate.path, locate.key, locate.of, locate.prefix, locate.suffix, locate.encoded)


def _documents(rule: Rule) -> str:
    locate = rule.locate
    narrowed = f" where {json_util.dumps(rule.where)}" if rule.where else ""
    return f"{locate.path} of {locate.of or locate.key}{narrowed}"


def _of_documents(place: str, old: Rule, new: Rule) -> Iterator[Change]:
    """Yield in what the two find other documents, or reach others by way of them."""
    if old.where != new.where:
        before, now = (json_util.dumps(one.where) if one.where else "all" for one in (old, new))
        yield Change(place=place, before=before, now=now, effect=Effect.LESS if new.where else Effect.MORE)
    before_types, now_types = set(old.locate.stored), set(new.locate.stored)
    if before_types != now_types:
        yield Change(
            place=f"{place}, stored",
            before=", ".join(sorted(before_types)) or "the type of the key",
            now=", ".join(sorted(now_types)) or "the type of the key",
            effect=Effect.MORE if before_types and before_types < now_types else Effect.LESS,
        )
    was, is_ = old.locate.edge, new.locate.edge
    if was is not is_:
        loses = was in _REACHING and is_ not in _REACHING
        gains = is_ in _REACHING and was not in _REACHING
        effect = Effect.LESS if loses else Effect.MORE if gains else Effect.SAME
        yield Change(place=f"{place}, edge", before=str(was), now=str(is_), effect=effect)


def _of_paths(
    name: str, old: tuple[Collection, Rule], new: tuple[Collection, Rule], *, several: bool
) -> Iterator[Change]:
    (was, before), (is_, now) = old, new
    suffix = f" (by {_documents(now)})" if several else ""
    for path in _paths(was, before, is_, now):
        first, second = fate(before, path), fate(now, path)
        if first.words != second.words:
            yield Change(
                place=f"{name}.{path}{suffix}" if path else f"{name}{suffix}, {REST}",
                before=first.words,
                now=second.words,
                effect=effect_of(first, second),
            )


def _paths(was: Collection, before: Rule, is_: Collection, now: Rule) -> Iterator[str]:
    """Yield every path of which either map says that it is personal or does something, and at last all others."""
    said = {**was.fields, **is_.fields}
    named = dict.fromkeys(path for path, field in said.items() if field.is_personal)
    for rule in (before, now):
        named |= dict.fromkeys(path for path in _touched(rule) if declaring(path, said) is None)
    yield from named
    if not (was.closed and is_.closed) and {fate(before, "").rank, fate(now, "").rank} == {GONE, LEFT}:
        yield ""


def _touched(rule: Rule) -> tuple[str, ...]:
    action, kept = rule.on_erase, rule.kept
    touched = action.touched if isinstance(action, Update) else action.fields if isinstance(action, Archive) else ()
    return (*touched, *(kept.fields if kept else ()))
