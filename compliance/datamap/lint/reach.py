"""Rules that find nothing, or find it slowly."""

from collections.abc import Iterator

from compliance.datamap.collection import Kind
from compliance.datamap.form import parts_of
from compliance.datamap.lint.rule import Case, Fault, Placed, Severity, rule
from compliance.datamap.model import DataMap
from compliance.datamap.person import KeyType, Normaliser
from compliance.datamap.rule import Edge, Locator
from compliance.datamap.taxonomy import is_within


@rule("DM101")
def chain_that_ends_nowhere(case: Case) -> Iterator[Fault]:
    """A collection is found by way of another one that no key of the person leads to."""
    reached = _reached(case.data_map)
    for placed in case.rules():
        of = placed.rule.locate.of
        if of is not None and of not in reached:
            yield Fault(
                f"{placed.place}.locate",
                f"{placed.collection} is found by way of {of}, and no key of the person leads there",
                f"{of}: [{{locate: {{path: ..., key: {case.data_map.subject.key}}}, on_erase: {{action: delete}}}}]",
            )


def _reached(data_map: DataMap) -> set[str]:
    """Return the collections that a chain of rules from a key leads to, and the root."""
    reached = {data_map.subject.collection}
    reached |= {name for name, rule_ in data_map.rules() if rule_.locate.key is not None}
    for _ in data_map.collections:  # a chain is no longer than there are collections
        reached |= {name for name, rule_ in data_map.rules() if rule_.locate.of in reached}
    return reached


@rule("DM102", Severity.WARNING)
def collection_that_is_not_there(case: Case) -> Iterator[Fault]:
    """A collection of the map is not in the database."""
    for name, collection in case.data_map.collections.items() if case.live else ():
        is_bucket = collection.kind is Kind.GRIDFS or name in case.buckets or name in case.data_map.buckets
        if name not in case.live and not is_bucket:
            yield Fault(
                f"collections.{name}",
                f"the database has no collection {name}: it may be misspelt",
                f"remove {name}, or correct its name",
            )


@rule("DM103", Severity.WARNING)
def locator_without_index(case: Case) -> Iterator[Fault]:
    """No index leads to the documents of a rule: each erasure reads the whole collection."""
    for placed in case.rules():
        locate = placed.rule.locate
        if locate.key is not None and case.data_map.subject.keys[locate.key].personal:
            continue  # a personal value stands in no query, so an index would not be used
        for name in case.with_history(placed.collection):
            held = case.held(name)
            if held.documents and not _is_led_to(case, name, placed):
                yield Fault(
                    f"{placed.place}.locate",
                    f"no index of {name} begins with {locate.path}: an erasure reads about {held.documents} documents",
                    _index_of(name, locate),
                )


def _is_led_to(case: Case, collection: str, placed: Placed) -> bool:
    """Whether an index begins with the path, behind what the query states as well."""
    locate, tenant = placed.rule.locate, case.data_map.tenant
    if locate.is_map_key or locate.encoded:
        return False
    path = ".".join(parts_of(locate.path))
    stated = {name for name, value in placed.rule.where.items() if not isinstance(value, dict)}
    stated |= {tenant.field} if tenant else set()
    for index in case.held(collection).indexes:
        before = index.keys[: index.keys.index(path)] if path in index.keys else None
        if before is not None and set(before) <= stated and not index.covers:
            return True
    return False


def _index_of(collection: str, locate: Locator) -> str:
    path = ".".join(parts_of(locate.path))
    if locate.is_map_key or locate.encoded:
        return f"store the id in a field of its own beside {locate.path}"
    name = f"ix_{collection}_{path.replace('.', '_')}"
    return f'ctx.create_index("{collection}", "{name}", [("{path}", 1)])'


@rule("DM104")
def id_of_another_type(case: Case) -> Iterator[Fault]:
    """Ids stand in documents as another BSON type than the map says: those documents are not found."""
    for placed in case.rules():
        locate = placed.rule.locate
        if locate.key is None or locate.encoded or locate.is_map_key:
            continue
        wanted = set(locate.stored or (case.data_map.subject.keys[locate.key].type,))
        for name in case.with_history(placed.collection):
            found = case.held(name).types.get(locate.path, frozenset()) - {"null"}
            if found - wanted:
                known = sorted({str(kind) for kind in wanted} | (found & {str(kind) for kind in KeyType}))
                yield Fault(
                    f"{placed.place}.locate",
                    f"{name} holds {locate.path} as {' and '.join(sorted(found))}, the map says "
                    f"{' or '.join(sorted(wanted))}",
                    f"locate: {{path: {locate.path}, key: {locate.key}, stored: [{', '.join(known)}]}}",
                )


@rule("DM105")
def reference_of_another_type(case: Case) -> Iterator[Fault]:
    """A reference has another BSON type than the ids that it refers to."""
    for placed in case.rules():
        locate = placed.rule.locate
        ids = case.held(locate.of).types.get("_id", frozenset()) if locate.of else frozenset()
        found = case.held(placed.collection).types.get(locate.path, frozenset()) - {"null"}
        if ids and found - ids:
            yield Fault(
                f"{placed.place}.locate",
                f"{placed.collection} holds {locate.path} as {' and '.join(sorted(found))}, the _id of {locate.of} is "
                f"{' or '.join(sorted(ids))}",
                f"convert {locate.path} with ctx.backfill",
            )


@rule("DM106")
def contact_that_is_a_plain_key(case: Case) -> Iterator[Fault]:
    """A key says who the person is, and is not declared personal: it would stand in queries, which servers log."""
    for name, key in case.data_map.subject.keys.items():
        if not key.personal and _holds(case, key.path, "user.contact", "user.name", "user.government_id"):
            yield Fault(
                f"subject.keys.{name}",
                f"the key {name} holds what says who the person is, and would stand in queries",
                f"{name}: {{path: {key.path}, type: {key.type}, personal: true}}",
            )


@rule("DM107", Severity.WARNING)
def key_that_is_not_normalised(case: Case) -> Iterator[Fault]:
    """People write a key in more than one way, and it is compared as it stands."""
    for name, key in case.data_map.subject.keys.items():
        is_phone = _holds(case, key.path, "user.contact.phone_number", "user.contact.fax_number")
        needed = (Normaliser.E164,) if is_phone else (Normaliser.TRIM, Normaliser.NFKC, Normaliser.CASEFOLD)
        given = key.normalise or ((Normaliser.TRIM, Normaliser.NFKC, Normaliser.CASEFOLD) if key.personal else needed)
        if key.type is KeyType.STRING and not set(needed) <= set(given):
            yield Fault(
                f"subject.keys.{name}.normalise",
                f"the key {name} is compared without {', '.join(one for one in needed if one not in given)}",
                f"normalise: [{', '.join(needed)}]",
            )


def _holds(case: Case, path: str, *wider: str) -> bool:
    root = case.data_map.collections.get(case.data_map.subject.collection)
    field = root.fields.get(path) if root else None
    return field is not None and any(is_within(name, one) for name in field.categories for one in wider)


@rule("DM108")
def way_that_is_cut_off(case: Case) -> Iterator[Fault]:
    """A collection is found by way of another one of which every locator is shallow or shared."""
    for placed in case.rules():
        of = placed.rule.locate.of
        edges = {rule_.locate.edge for rule_ in case.data_map.rules_of(of)} if of else set()
        if edges and edges <= {Edge.SHALLOW, Edge.SHARED} and of != placed.collection:
            yield Fault(
                f"{placed.place}.locate",
                f"{placed.collection} is found by way of {of}, whose locators are {' and '.join(sorted(edges))}: "
                "what refers to it is not reached",
                f"edge: deep  # in the rules of {of}",
            )


@rule("DM109")
def view_of_what_is_not_in_the_map(case: Case) -> Iterator[Fault]:
    """A view reads a collection that the map does not know."""
    history = case.data_map.history
    suffix = history.suffix if history else ""
    known = {*case.data_map.collections, case.data_map.subject.collection}
    known |= {name + suffix for name in known}
    for name, held in case.live.items():
        for read in held.reads if held.kind == "view" else ():
            if read not in known and case.held(read).kind != "view":
                yield Fault(
                    f"collections.{read}",
                    f"the view {name} reads {read}, which the map does not know",
                    f"{read}: {{closed: true, rules: [...], fields: {{...}}}}",
                )
