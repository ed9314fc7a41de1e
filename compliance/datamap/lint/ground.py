"""What stays without a ground, and what contradicts itself."""

from collections.abc import Iterator

from compliance.datamap.form import is_under
from compliance.datamap.lint.rule import Case, Fault, Placed, Severity, rule
from compliance.datamap.paths import declaring
from compliance.datamap.rule import Archive, Delete, Edge, Keep, Update, leaves


@rule("DM201")
def kept_without_ground(case: Case) -> Iterator[Fault]:
    """A personal field stays where the document stays, and the map gives no ground for it."""
    for placed in case.rules():
        action, kept = placed.rule.on_erase, placed.rule.kept
        is_kept_whole = isinstance(action, Keep)
        if not isinstance(action, Update | Keep) or placed.rule.locate.edge is Edge.SHARED:
            continue
        grounded = kept.fields if kept else ()
        for path, field in case.data_map.collections[placed.collection].fields.items():
            goes = not is_kept_whole and leaves(action, path)
            if field.is_personal and not goes and not any(is_under(path, whole) for whole in grounded):
                yield Fault(
                    f"{placed.place}.kept",
                    f"{path} is personal, and stays without a ground",
                    f"unset: [{path}]  # or kept: {{fields: [{path}], ground: GDPR Art. 17(3)(...), why: ...}}",
                )


@rule("DM202", Severity.WARNING)
def ground_that_names_no_law(case: Case) -> Iterator[Fault]:
    """A ground names neither an exception of GDPR nor the law that obliges."""
    for placed in case.rules():
        kept = placed.rule.kept
        if kept is not None and kept.article is None and kept.basis is None:
            yield Fault(
                f"{placed.place}.kept.ground",
                f"the ground on which {placed.collection} keeps data names no exception and no law",
                "ground: GDPR Art. 17(3)(b), basis: the law",
            )


@rule("DM203")
def kept_and_taken(case: Case) -> Iterator[Fault]:
    """A rule takes away what it says it keeps."""
    for placed in case.rules():
        for path in placed.rule.kept.fields if placed.rule.kept else ():
            if _takes(placed, path):
                yield Fault(
                    f"{placed.place}.kept.fields",
                    f"{path} is kept, and {placed.rule.on_erase.action} takes it away",
                    f"remove {path} from kept.fields, or take another action",
                )


def _takes(placed: Placed, path: str) -> bool:
    action = placed.rule.on_erase
    match action:
        case Delete():
            return True
        case Archive():
            return not any(is_under(path, copied) for copied in action.fields)
        case Update():
            return any(is_under(path, touched) for touched in (*action.set, *action.unset))
        case _:
            return False


@rule("DM204")
def same_documents_twice(case: Case) -> Iterator[Fault]:
    """Two rules find the same documents and do different things."""
    seen: dict[tuple[object, ...], Placed] = {}
    for placed in case.rules():
        locate = placed.rule.locate
        same = (placed.collection, locate.path, locate.key, locate.of, locate.prefix, repr(placed.rule.where))
        earlier = seen.setdefault(same, placed)
        if earlier is not placed and earlier.rule.on_erase != placed.rule.on_erase:
            yield Fault(
                placed.place,
                f"rule {earlier.number} finds the same documents and does {earlier.rule.on_erase.action}",
                "where: {...}  # tell the two apart, or remove one",
            )


@rule("DM205")
def rule_for_an_unlisted_field(case: Case) -> Iterator[Fault]:
    """A collection is closed, and a rule names a path that is not among its fields."""
    for placed in case.rules():
        collection = case.data_map.collections[placed.collection]
        for path in _paths(placed) if collection.closed else ():
            if declaring(path, collection.fields) is None and not any(is_under(one, path) for one in collection.fields):
                yield Fault(
                    f"collections.{placed.collection}.fields",
                    f"{placed.collection} is closed, and its rule {placed.number} names {path}, which is not listed",
                    f"{path}: {{type: ..., categories: [...]}}",
                )


def _paths(placed: Placed) -> tuple[str, ...]:
    action, kept = placed.rule.on_erase, placed.rule.kept
    touched = action.touched if isinstance(action, Update) else action.fields if isinstance(action, Archive) else ()
    return (placed.rule.locate.path, *touched, *(kept.fields if kept else ()))


@rule("DM206", Severity.WARNING)
def origin_that_is_not_listed(case: Case) -> Iterator[Fault]:
    """A field is derived from one that the map does not list."""
    collections = case.data_map.collections
    for name, collection in collections.items():
        for path, field in collection.fields.items() if name not in case.buckets else ():
            for source in field.derived_from:
                owner = max((one for one in collections if source.startswith(f"{one}.")), key=len, default=None)
                if owner is None or declaring(source.removeprefix(f"{owner}."), collections[owner].fields) is None:
                    yield Fault(
                        f"collections.{name}.fields.{path}.derived_from",
                        f"{path} is derived from {source}, which the map does not list",
                        f"list {source}, or correct its name",
                    )
