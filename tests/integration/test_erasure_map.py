"""Everything that a data map can say of documents, carried out on a real database."""

import base64
import gzip
import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Binary, ObjectId
from mapped import ANN, ANN_MAIL, BOB, LAW, World, rule

from compliance.erasure.frozen import require_rest, require_same
from compliance.erasure.sweep import collection_names
from compliance.errors import StoreUnavailable
from compliance.roles import PRE_IMAGES
from worker.embedded import Stack

NOBODY = ObjectId("0" * 24)


@pytest.fixture(scope="module")
def world(stack: Stack) -> Iterator[World]:
    with ExitStack() as cleanup:
        yield World.make(stack, cleanup)


def left(world: World, name: str = "c0") -> list[Any]:
    return list(world.app[name].find(sort=[("_id", 1)]))


def packed(value: Any) -> str:
    return base64.b64encode(gzip.compress(json.dumps({"by": value}).encode())).decode()


@pytest.mark.parametrize(
    ("a_rule", "hers", "others"),
    [
        (rule(stored=["string", "objectId"]), [{"user_id": ANN}, {"user_id": str(ANN)}], [{"user_id": str(BOB)}]),
        (
            rule("path", prefix="users/", suffix="/"),
            [{"path": f"users/{ANN}/photo.jpg"}],
            [{"path": f"users/{BOB}/photo.jpg"}, {"path": f"usersX{BOB}/"}],
        ),
        (rule("path", prefix=""), [{"path": str(ANN)}, {"path": f"{ANN}/a"}], [{"path": f"{BOB}"}]),
        (rule("seen{}"), [{"seen": {str(ANN): 1, str(BOB): 2}}], [{"seen": {str(BOB): 2}}, {"seen": 5}]),
        (rule("blob", encoded=["base64", "gzip", "json"]), [{"blob": packed(str(ANN))}], [{"blob": packed("x")}]),
        (rule("blob", encoded=["hex"]), [{"blob": str(ANN).encode().hex()}], [{"blob": "zz"}, {"blob": 5}]),
        (rule("blob", encoded=["url"], key="email"), [{"blob": "to=ann.example%40x.org"}], [{"blob": "to=%40"}]),
        (rule("mail", key="email"), [{"mail": ANN_MAIL.upper()}], [{"mail": f"x{ANN_MAIL}"}]),
        (rule("mail", key="email", where={"kind": 1}), [{"mail": ANN_MAIL, "kind": 1}], [{"mail": "a", "kind": 2}]),
        (rule("a[].b[].c"), [{"a": [{"b": [{"c": BOB}, {"c": ANN}]}]}], [{"a": [{"b": [{"c": BOB}]}]}]),
    ],
)  # fmt: skip
def test_a_locator_finds_the_persons_documents_and_no_others(
    world: World, a_rule: Any, hers: list[Any], others: list[Any]
) -> None:
    app = world.begin({"c0": [a_rule]})
    app["c0"].insert_many([{"_id": -number, **one} for number, one in enumerate(hers, 1)])
    app["c0"].insert_many([{"_id": number, **one} for number, one in enumerate(others)])
    job = world.erase()

    assert job.state == "done", job.error
    assert left(world) == [{"_id": number, **one} for number, one in enumerate(others)]
    assert world.request(job)["affected"] == {"c0": {"delete": len(hers)}, "people": {"delete": 1}}
    assert sum(step["documents"] for step in world.request(job)["plan"]) == len(hers) + 1


@pytest.mark.parametrize(
    ("a_rule", "before", "after"),
    [
        (rule("seen{}", {"action": "remove_key"}), {"seen": {str(ANN): 1, str(BOB): 2}}, {"seen": {str(BOB): 2}}),
        (
            rule("m[].id", {"action": "pull", "array": "m", "match": {"role": "guest"}}),
            {"m": [{"id": ANN, "role": "guest"}, {"id": BOB, "role": "guest"}]},
            {"m": [{"id": BOB, "role": "guest"}]},
        ),
        (rule("m[].id", edge="owned"), {"m": [{"id": ANN}, {"id": BOB}, {"id": ANN}]}, {"m": [{"id": BOB}]}),
        (rule("m[]", edge="owned"), {"m": [ANN, BOB]}, {"m": [BOB]}),
        (rule("m[]", edge="owned"), {"m": [ANN, ANN]}, None),
        (rule("m[].id", edge="owned"), {"m": [{"id": ANN}, {"name": "x"}]}, {"m": [{"name": "x"}]}),
        (rule("by", {"action": "update", "relabel": ["by"]}), {"by": ANN, "a": 1}, {"by": NOBODY, "a": 1}),
        (
            rule("by", {"action": "update", "relabel": ["by"], "mask": {"ip": "network_v1", "none": "text_v1"}}),
            {"by": ANN, "ip": "192.0.2.7"},
            {"by": NOBODY, "ip": "192.0.2.0"},
        ),
        (
            rule("mail", {"action": "update", "mask": {"mail": "text_v1"}, "unset": ["name"]}, key="email"),
            {"mail": ANN_MAIL, "name": "Ann"},
            {"mail": "[erased]"},
        ),
        (
            rule("mail", {"action": "update", "mask": {"mail": "null_v1"}}, key="email"),
            {"mail": ANN_MAIL},
            {"mail": None},
        ),
    ],
)  # fmt: skip
def test_an_action_leaves_what_it_says(world: World, a_rule: Any, before: Any, after: Any) -> None:
    app = world.begin({"c0": [a_rule]})
    app["c0"].insert_many([{"_id": number, **before} for number in range(5)])
    job = world.erase()

    assert job.state == "done", job.error
    assert left(world) == ([] if after is None else [{"_id": number, **after} for number in range(5)])
    planned = sum(step["documents"] for step in world.request(job)["plan"])
    assert planned == sum(count for verbs in world.request(job)["affected"].values() for count in verbs.values()) == 6


def test_an_element_that_does_not_match_stays_and_is_a_residue(world: World) -> None:
    app = world.begin({"c0": [rule("m[].id", {"action": "pull", "array": "m", "match": {"role": "guest"}})]})
    app["c0"].insert_one({"_id": 1, "m": [{"id": ANN, "role": "host"}]})
    job = world.erase()

    assert (job.state, (job.error or {})["code"]) == ("parked", "ErasureIncomplete")
    assert left(world) == [{"_id": 1, "m": [{"id": ANN, "role": "host"}]}]


def test_a_mask_that_would_miss_elements_of_an_array_is_refused(world: World) -> None:
    action = {"action": "update", "relabel": ["by"], "mask": {"contacts.mail": "text_v1"}}
    app = world.begin({"c0": [rule("by", action)]})
    app["c0"].insert_one({"by": ANN, "contacts": [{"mail": "a"}]})
    job = world.erase()

    assert "mask contacts.mail goes through an array" in (job.error or {})["message"]


def test_hashed_values_are_equal_where_they_were(world: World) -> None:
    action = {"action": "update", "relabel": ["by"], "mask": {"name": "keyed_hash_v1"}}
    app = world.begin({"c0": [rule("by", action)]})
    app["c0"].insert_many([{"by": ANN, "name": "Ann"}, {"by": ANN, "name": "Ann"}, {"by": ANN, "name": "Anne"}])
    world.erase()
    names = [one["name"] for one in left(world)]

    assert len(set(names)) == 2
    assert all(name.startswith("erased-") for name in names)


def test_what_is_archived_is_copied_without_the_person_and_goes(world: World) -> None:
    app = world.begin({"c0": [rule(on_erase={"action": "archive", "to": "c5", "fields": ["total", "at.day"]})]})
    app["c0"].insert_many([{"_id": n, "user_id": ANN, "total": n, "at": {"day": 1, "by": ANN}} for n in range(4)])
    job = world.erase()
    copies = left(world, "c5")

    assert job.state == "done", job.error
    assert left(world) == []
    assert [{**one, "archived_at": None} for one in copies] == [
        {"_id": n, "total": n, "at": {"day": 1}, "archived_at": None} for n in range(4)
    ]
    assert all(isinstance(one["archived_at"], datetime) for one in copies)
    assert world.request(job)["affected"]["c0"] == {"archive": 4}


KEEP = {"action": "keep"}


def test_what_a_law_keeps_whole_stays_and_nothing_else(world: World) -> None:
    kept = LAW | {"fields": ["user_id", "invoice"]}
    rules = [rule(), rule(on_erase=KEEP, where={"kind": "invoice"}, kept=kept)]
    app = world.begin({"c0": rules})
    invoice = {"_id": 1, "user_id": ANN, "kind": "invoice", "invoice": {"to": ANN_MAIL}}
    app["c0"].insert_many([invoice, {"_id": 2, "user_id": ANN, "kind": "note"}])
    job = world.erase()

    assert job.state == "done", job.error
    assert left(world) == [invoice]
    assert world.request(job)["state"] == "completed_with_retention"
    assert [(item["collection"], item["documents"]) for item in world.request(job)["kept"]] == [("c0", 1)]


@pytest.mark.parametrize(
    "stray",
    [
        {"_id": 1, "user_id": ANN, "kind": "invoice", "note": str(ANN)},
        {"_id": 1, "kind": "invoice", "invoice": {"to": ANN_MAIL}},
        {"_id": 1, "user_id": BOB, "kind": "invoice", "invoice": {"to": ANN_MAIL}},
    ],
)
def test_an_identifier_beside_what_is_kept_is_a_residue(world: World, stray: Any) -> None:
    kept = LAW | {"fields": ["user_id", "invoice"]}
    app = world.begin({"c0": [rule(on_erase=KEEP, where={"kind": "invoice"}, kept=kept)]})
    app["c0"].insert_one(stray)
    job = world.erase()

    assert (job.state, (job.error or {})["code"]) == ("parked", "ErasureIncomplete")


def test_a_shallow_or_shared_edge_ends_what_is_reached(world: World) -> None:
    update = {"action": "update", "relabel": ["user_id"]}
    app = world.begin(
        {
            "c0": [rule()],
            "c1": [rule("of", of="c0")],
            "c2": [rule(edge="shallow")],
            "c3": [rule("of", of="c2")],
            "c4": [rule(on_erase=update, edge="shared")],
            "c5": [rule("of", of="c4")],
        }
    )
    for parent, child in (("c0", "c1"), ("c2", "c3"), ("c4", "c5")):
        app[parent].insert_one({"_id": 1, "user_id": ANN})
        app[child].insert_one({"_id": 2, "of": 1})
    world.erase()

    assert [len(left(world, name)) for name in ("c0", "c1", "c2", "c3", "c4", "c5")] == [0, 0, 0, 1, 1, 1]


def test_what_is_owned_by_others_too_reaches_nothing(world: World) -> None:
    app = world.begin({"c0": [rule("m[]", edge="owned")], "c1": [rule("of", of="c0")]})
    app["c0"].insert_many([{"_id": 1, "m": [ANN]}, {"_id": 2, "m": [ANN, BOB]}])
    app["c1"].insert_many([{"_id": 1, "of": 1}, {"_id": 2, "of": 2}])
    job = world.erase()

    assert job.state == "done", job.error
    assert left(world, "c1") == [{"_id": 2, "of": 2}]
    assert world.request(job)["affected"]["c0"] == {"delete": 1, "pull": 1}


def test_other_tenants_are_not_touched_whoever_they_name(world: World) -> None:
    tenant = {"tenant": {"field": "tenant", "type": "string"}}
    app = world.begin({"c0": [rule()], "c1": [rule("mail", key="email")]}, **tenant)
    app["c0"].insert_many([{"_id": 1, "user_id": ANN, "tenant": "t1"}, {"_id": 2, "user_id": ANN, "tenant": "t2"}])
    app["c1"].insert_many([{"_id": n, "mail": ANN_MAIL, "tenant": f"t{n}"} for n in (1, 2)])
    job = world.erase(tenant="t1")

    assert job.state == "done", job.error
    assert [one["_id"] for one in (*left(world), *left(world, "c1"))] == [2, 2]


@pytest.mark.parametrize(("map_has", "given"), [(True, {}), (False, {"tenant": "t1"})])
def test_a_request_names_a_tenant_where_the_map_has_them(world: World, map_has: bool, given: Any) -> None:  # noqa: FBT001
    world.begin({"c0": [rule()]}, **({"tenant": {"field": "tenant", "type": "string"}} if map_has else {}))
    job = world.erase(**given)

    assert (job.state, (job.error or {})["code"]) == ("rejected", "InvalidPayload")
    assert len(left(world, "people")) == 2


def test_a_tree_goes_to_its_last_leaf_circles_and_all(world: World) -> None:
    app = world.begin({"c0": [rule(), rule("parent", of="c0")], "c1": [rule("of", of="c0")]})
    chain = [{"_id": n, "parent": n - 1} for n in range(2, 30)]
    app["c0"].insert_many([{"_id": 1, "user_id": ANN, "parent": 29}, *chain, {"_id": 90, "user_id": BOB}])
    app["c0"].insert_one({"_id": 91, "parent": 90})
    app["c1"].insert_many([{"_id": n, "of": n} for n in (1, 29, 91)])
    job = world.erase()

    assert job.state == "done", job.error
    assert [one["_id"] for one in left(world)] == [90, 91]
    assert [one["_id"] for one in left(world, "c1")] == [91]
    planned = sum(step["documents"] for step in world.request(job)["plan"])
    assert planned == sum(count for verbs in world.request(job)["affected"].values() for count in verbs.values())
    assert planned == 29 + 2 + 1


def test_files_go_with_their_chunks_and_files_that_stay_keep_theirs(world: World) -> None:
    update = {"action": "update", "unset": ["metadata.by"]}
    rules = [rule("metadata.owner"), rule("metadata.by", update)]
    app = world.begin({"photos": {"kind": "gridfs", "rules": rules}})
    app["photos.files"].insert_many(
        [{"_id": 1, "metadata": {"owner": ANN}}, {"_id": 2, "metadata": {"by": ANN}}, {"_id": 3, "metadata": {}}]
    )
    app["photos.chunks"].insert_many([{"_id": n, "files_id": n % 3 + 1, "n": n, "data": b"x"} for n in range(9)])
    job = world.erase()

    assert job.state == "done", job.error
    assert left(world, "photos.files") == [{"_id": 2, "metadata": {}}, {"_id": 3, "metadata": {}}]
    assert [one["files_id"] for one in left(world, "photos.chunks")] == [2, 3, 2, 3, 2, 3]


def test_an_identifier_across_two_chunks_is_found(world: World) -> None:
    app = world.begin({"photos": {"kind": "gridfs", "rules": [rule("metadata.owner")]}})
    half = f"xx {ANN} yy".encode()
    app["photos.chunks"].insert_many(
        [{"files_id": 7, "n": n, "data": Binary(data)} for n, data in enumerate((half[:12], half[12:]))]
    )
    job = world.erase()

    assert "1 in photos.chunks" in (job.error or {})["message"]


def test_a_time_series_is_deleted_from_by_its_meta_field(world: World) -> None:
    app = world.begin({"c0": {"kind": "timeseries", "rules": [rule("meta.user_id")]}})
    app.create_collection("c0", timeseries={"timeField": "at", "metaField": "meta"})
    at = datetime(2026, 3, 31, tzinfo=UTC)
    app["c0"].insert_many([{"at": at, "meta": {"user_id": who}, "n": n} for n in range(7) for who in (ANN, BOB)])
    job = world.erase()

    assert job.state == "done", job.error
    assert [one["meta"]["user_id"] for one in app["c0"].find()] == [BOB] * 7
    assert world.request(job)["affected"]["c0"] == {"delete": 7}
    told = [entry["action"] for entry in world.deployment.entries(request_id=job.request_id)]
    assert told.index("erasure.intended") < told.index("erasure.batch")


def test_a_time_series_that_hides_the_person_elsewhere_is_refused_before_anything_runs(world: World) -> None:
    app = world.begin({"c0": {"kind": "timeseries", "rules": [rule("user_id")]}})
    app.create_collection("c0", timeseries={"timeField": "at", "metaField": "meta"})
    job = world.erase()

    assert "c0: a time series is deleted from by its meta field (meta) alone" in (job.error or {})["message"]
    assert len(left(world, "people")) == 2


def test_a_child_that_comes_while_parents_go_is_gone_too(world: World) -> None:
    app = world.begin({"c0": [rule()], "c1": [rule("of", of="c0")]})
    app["c0"].insert_many([{"_id": n, "user_id": ANN} for n in range(9)])
    seen: list[int] = []

    def write(checkpoint: Any) -> None:
        if checkpoint.get("collection") == "c0" and not seen:
            seen.append(1)
            app["c1"].insert_many([{"_id": n, "of": 8} for n in range(4)])

    job = world.erase(on_progress=write)

    assert seen
    assert job.state == "done", job.error
    assert left(world, "c1") == []


def test_a_packed_identifier_that_no_rule_names_is_a_residue(world: World) -> None:
    app = world.begin({"c0": [rule()]})
    app["c5"].insert_one({"_id": 1, "token": base64.b64encode(f"user={ANN}".encode()).decode()})
    job = world.erase()

    assert "1 in c5" in (job.error or {})["message"]


def test_the_definition_of_a_view_that_names_the_person_is_a_residue(world: World) -> None:
    app = world.begin({"c0": [rule()]})
    app.create_collection("hers", viewOn="c0", pipeline=[{"$match": {"user_id": ANN}}])
    try:
        job = world.erase()
    finally:
        app["hers"].drop()

    assert "1 in hers" in (job.error or {})["message"]


def test_what_the_second_look_leaves_out_is_named(world: World) -> None:
    app = world.begin({"c0": {"kind": "timeseries", "rules": [rule("meta.user_id")]}})
    app.create_collection("c0", timeseries={"timeField": "at", "metaField": "meta"})
    app.create_collection("a_view", viewOn="people", pipeline=[])
    try:
        job = world.erase()
    finally:
        app["a_view"].drop()
    verified = next(
        entry for entry in world.deployment.entries(request_id=job.request_id) if entry["action"] == "erasure.verified"
    )

    assert job.state == "done", job.error
    assert verified["details"]["unread"] == ["a_view", "system.buckets.c0", "system.views"]
    assert verified["details"]["collections"] == len(collection_names(app))
    assert [item["collection"] for item in world.request(job)["unread"]] == verified["details"]["unread"]


def test_a_collection_that_gets_another_name_under_the_second_look_makes_it_count_for_nothing(world: World) -> None:
    app = world.begin({"c0": [rule()]})
    app["c0"].insert_one({"_id": 1})
    databases = world.deployment.admin
    before = require_rest(databases)
    app["c0"].rename("c9")
    app["c0"].insert_one({"_id": 1})

    with pytest.raises(StoreUnavailable):
        require_same(databases, before)
    app["c0"].drop()
    with pytest.raises(StoreUnavailable, match="another name"):
        require_same(databases, before)
    app["c9"].rename("c0")

    require_same(databases, before)


def test_a_document_that_went_to_somebody_else_meanwhile_stays_with_what_was_kept_of_it(world: World) -> None:
    app = world.begin({"c0": [rule()]})
    app["c0"].insert_many([{"_id": n, "user_id": ANN} for n in range(4)])
    app[PRE_IMAGES].insert_many([{"collection": "c0", "document_id": n, "before": []} for n in range(4)])

    def give_away(checkpoint: Any) -> None:
        if checkpoint.get("step"):
            app["c0"].update_one({"_id": 3}, {"$set": {"user_id": BOB}})

    job = world.erase(on_progress=give_away)

    assert job.state == "done", job.error
    assert left(world) == [{"_id": 3, "user_id": BOB}]
    assert [kept["document_id"] for kept in app[PRE_IMAGES].find()] == [3]
