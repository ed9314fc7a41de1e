"""A validator is rolled out phase by phase; no moment passes without the old rules or the new ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from deployment import Deployment
from faults import Died, mortal
from pymongo.errors import WriteError
from stepping import declaration, dry, problems, stepping

from compliance.errors import StepFailed
from compliance.mongo import Databases, Document
from migrations.ops.validator import find_violators

OLD: Document = {"bsonType": "object", "required": ["a"]}
NEW: Document = {"bsonType": "object", "required": ["a", "b"]}


def options(admin: Databases) -> tuple[Any, Any, Any]:
    (found,) = admin.app.list_collections(filter={"name": "things"})
    given = found["options"]
    return given.get("validator", {}).get("$jsonSchema"), given.get("validationLevel"), given.get("validationAction")


def arrange(empty: Deployment, *documents: Document, old: bool) -> Databases:
    empty.runner().up("000")
    if old:
        with stepping(empty) as ctx:
            ctx.create_collection("things", schema=OLD)
    if documents:
        empty.admin.app["things"].insert_many(documents, bypass_document_validation=True)
    return empty.admin


@contextmanager
def watched(admin: Databases) -> Iterator[list[Document]]:
    """Yield what validators the collection gets inside the block, in order."""
    seen: list[Document] = []
    with admin.app["things"].watch(show_expanded_events=True) as stream:
        yield seen
        while (event := stream.try_next()) is not None:
            change = event.get("operationDescription", {})
            if "validator" in change:
                seen.append(change)


def test_a_validator_is_rolled_out_without_a_moment_that_refuses_less(empty: Deployment) -> None:
    admin = arrange(empty, {"_id": 1, "a": 1, "b": 1}, old=True)
    lines: list[str] = []

    with watched(admin) as seen, stepping(empty, lines=lines) as ctx:
        ctx.roll_out_validator("things", NEW)

    assert lines == [
        "the old validator of things stays in force until the new one is",
        "0 documents of things break its new validator",
        "enforce the new validator of things (moderate)",
        "enforce the new validator of things (strict)",
    ]
    assert [
        (change["validator"]["$jsonSchema"], change["validationLevel"], change["validationAction"]) for change in seen
    ] == [
        (NEW, "moderate", "error"),
        (NEW, "strict", "error"),
    ]
    assert options(admin) == (NEW, "strict", "error")
    assert problems(empty, "declared_validators") == ()


def test_where_nothing_was_enforced_the_server_warns_first(empty: Deployment) -> None:
    admin = arrange(empty, {"_id": 1, "a": 1}, old=False)

    with watched(admin) as seen, stepping(empty) as ctx:
        ctx.roll_out_validator("things", NEW, to="moderate")

    assert [(change["validationLevel"], change["validationAction"]) for change in seen] == [
        ("strict", "warn"),
        ("moderate", "error"),
    ]
    admin.app["things"].update_one({"_id": 1}, {"$set": {"c": 1}})  # was wrong before
    with pytest.raises(WriteError):
        admin.app["things"].insert_one({"a": 1})


def test_strict_is_refused_while_documents_break_it_and_names_and_counts_them(empty: Deployment) -> None:
    admin = arrange(empty, *({"_id": n, "a": 1} for n in range(7)), {"_id": 9, "a": 1, "b": 1}, old=True)
    lines: list[str] = []

    with (
        stepping(empty, lines=lines) as ctx,
        pytest.raises(StepFailed, match=r"there: .* \(and 2 more\); corr"),
    ):
        ctx.roll_out_validator("things", NEW)

    assert lines[1].startswith("7 documents of things break its new validator: ")
    assert options(admin) == (NEW, "moderate", "error")
    assert problems(empty, "declared_validators") == ()
    admin.app["things"].update_many({}, {"$set": {"b": 1}})
    with watched(admin) as seen, stepping(empty, lines=lines) as ctx:
        ctx.roll_out_validator("things", NEW)
    assert [change["validationLevel"] for change in seen] == ["strict"]
    with watched(admin) as seen, stepping(empty) as ctx:
        ctx.roll_out_validator("things", NEW, to="moderate")
        ctx.roll_out_validator("things", NEW)
    assert seen == []
    assert options(admin) == (NEW, "strict", "error")


@pytest.mark.parametrize("at", [1, 2, 3, 4])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_roll_out_goes_on_whatever_dies_between_its_phases(empty: Deployment, at: int, moment: str) -> None:
    admin = arrange(empty, {"_id": 1, "a": 1, "b": 1}, old=False)
    databases = mortal(empty.runner().databases, at=at, committed=moment == "after")

    with pytest.raises(Died), stepping(empty, databases=databases) as ctx:
        ctx.roll_out_validator("things", NEW)
    with stepping(empty) as ctx:
        ctx.roll_out_validator("things", NEW)

    assert options(admin) == (NEW, "strict", "error")
    assert problems(empty, "declared_validators") == ()


def test_a_dry_run_counts_and_changes_nothing(empty: Deployment) -> None:
    admin = arrange(empty, {"_id": 1, "a": 1}, old=True)
    declared = declaration(empty, "collection:things")
    lines: list[str] = []

    with dry(empty, lines=lines) as ctx:
        ctx.roll_out_validator("things", NEW)
        ctx.create_collection("more", schema=OLD)
        ctx.roll_out_validator("more", NEW)

    assert "1 documents of things break its new validator: 1" in lines
    assert options(admin) == (OLD, "strict", "error")
    assert declaration(empty, "collection:things") == declared


def test_a_roll_out_needs_a_collection_and_a_level(empty: Deployment) -> None:
    empty.runner().up("000")

    with stepping(empty) as ctx:
        with pytest.raises(StepFailed, match="things does not exist; create it first"):
            ctx.roll_out_validator("things", NEW)
        with pytest.raises(StepFailed, match="to is moderate or strict"):
            ctx.roll_out_validator("things", NEW, to="off")


def test_violators_are_exactly_those_that_the_server_would_refuse(empty: Deployment) -> None:
    documents: list[Document] = [{"_id": 1}, {"_id": 2, "a": None}, {"_id": 3, "a": 1, "b": []}, {"_id": 4, "b": 1}]
    arrange(empty, *documents, old=False)

    with stepping(empty) as ctx:
        found = find_violators(ctx, "things", {"$jsonSchema": NEW})

    assert found is not None
    assert (found.number, set(found.ids)) == (3, {1, 2, 4})
