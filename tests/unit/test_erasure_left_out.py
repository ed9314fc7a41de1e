"""What a legal hold leaves out of an erasure: its documents, the way to them, and nothing else."""

from typing import Any

import pytest

from compliance.datamap.model import DataMap
from compliance.erasure.left_out import Hold, kept_by, left_out, refuse_unknown
from compliance.erasure.plan import compile_steps
from compliance.errors import InvalidPayload

GOES = {"action": "delete"}
CONTENT: dict[str, Any] = {
    "apiVersion": "datamap/v1",
    "subject": {
        "collection": "customers",
        "key": "id",
        "keys": {"id": {"path": "_id", "type": "objectId"}},
    },
    "history": {"suffix": "_old", "id_path": "document_id"},
    "collections": {
        "shops": [{"locate": {"path": "owner", "key": "id"}, "on_erase": GOES}],
        "orders": [{"locate": {"path": "shop", "of": "shops"}, "on_erase": GOES}],
        "lines": [{"locate": {"path": "order", "of": "orders"}, "on_erase": GOES}],
        "leads": [{"locate": {"path": "who", "key": "id"}, "on_erase": GOES}],
        "notes": [
            {
                "locate": {"path": "by", "key": "id"},
                "on_erase": {"action": "update", "unset": ["by", "address.city"]},
            }
        ],
        "teams": [
            {"locate": {"path": "members[].id", "key": "id"}, "on_erase": {"action": "pull", "array": "members"}}
        ],
        "scans": {"kind": "gridfs", "rules": [{"locate": {"path": "metadata.who", "key": "id"}, "on_erase": GOES}]},
    },
}
MAP = DataMap.model_validate(CONTENT)
STEPS = compile_steps(MAP)


def hold(collection: str | None, field: str | None = None) -> Hold:
    return Hold(id="h", case_id="C-1", until=None, collection=collection, field=field)


def collections(collection: str | None, field: str | None = None) -> set[str]:
    return {STEPS[number].collection for number in left_out(hold(collection, field), STEPS, MAP)}


def both(*names: str) -> set[str]:
    return {name + end for name in names for end in ("", "_old")}


@pytest.mark.parametrize(
    ("held", "stays"),
    [
        ("leads", both("leads", "customers")),
        ("shops", both("shops", "customers")),
        ("orders", both("orders", "shops", "customers")),
        ("lines", both("lines", "orders", "shops", "customers")),
        ("customers", both("customers")),
        ("scans", both("scans.files", "scans.chunks", "customers")),
        ("scans.files", both("scans.files", "scans.chunks", "customers")),
        ("scans.chunks", both("scans.files", "scans.chunks", "customers")),
        ("unknown", set()),
    ],
)
def test_a_collection_stays_with_the_way_to_it(held: str, stays: set[str]) -> None:
    assert collections(held) == stays


def test_a_hold_on_everything_leaves_all_out() -> None:
    assert left_out(hold(None), STEPS, MAP) == frozenset(range(len(STEPS)))


@pytest.mark.parametrize(
    ("collection", "field"),
    [
        ("notes", "address.city"),
        ("notes", "address"),
        ("notes", "address.city.part"),
        ("teams", "members.name"),
        ("teams", "members"),
        ("leads", "anything"),
    ],
)
def test_a_field_leaves_out_what_would_take_it(collection: str, field: str) -> None:
    assert collections(collection, field) == both(collection, "customers")


@pytest.mark.parametrize(
    ("collection", "field"), [("notes", "address.city_old"), ("notes", "text"), ("teams", "membership")]
)
def test_a_field_that_nothing_takes_leaves_nothing_out(collection: str, field: str) -> None:
    assert collections(collection, field) == set()


def test_what_stays_is_told_by_collection_with_its_case_and_where_there_is_any() -> None:
    numbers = left_out(hold("leads"), STEPS, MAP)
    counts = [3 if step.collection == "leads" else 1 if step.collection == "customers_old" else 0 for step in STEPS]
    old = sum(step.collection == "customers_old" for step in STEPS)
    told = {item["collection"]: item["documents"] for item in kept_by(hold("leads"), STEPS, counts, numbers)}
    (one,) = kept_by(
        hold("notes", "address"),
        STEPS,
        [int(step.collection == "notes") for step in STEPS],
        numbers | left_out(hold("notes"), STEPS, MAP),
    )

    assert told == {"leads": 3, "customers_old": old}
    assert (one["fields"], one["ground"], one["until"]) == (["address"], "GDPR Art. 17(3)(e), case C-1", None)


@pytest.mark.parametrize(
    ("collection", "field", "why"),
    [(None, "a", "give the collection"), ("nowhere", None, "does not know it"), ("notes", "a..b", "expected a path")],
)
def test_a_hold_on_what_is_not_there_is_refused(collection: str | None, field: str | None, why: str) -> None:
    with pytest.raises(InvalidPayload, match=why):
        refuse_unknown(collection, field, MAP)


@pytest.mark.parametrize("collection", [None, "customers", "notes", "scans", "scans.files"])
def test_a_hold_on_what_is_there_is_taken(collection: str | None) -> None:
    refuse_unknown(collection, None, MAP)
    refuse_unknown("notes", "address.city", MAP)
