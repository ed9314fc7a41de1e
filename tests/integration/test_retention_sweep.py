"""Data goes when no purpose needs it any more: exactly that, the plan first, batch by batch."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId, Timestamp
from deployment import Deployment, provision_database
from every import sampled
from faults import Died, mortal
from waiting import wait_until

from compliance.datamap.model import DataMap
from compliance.erasure.holds import Holds
from compliance.errors import ConfigurationError
from compliance.jobs.job import Job, RequestId, State
from compliance.period import parse_period
from compliance.provision import ensure_roles
from compliance.retention.plan import NO_INDEX, Planned, plan_retention
from compliance.roles import Grants
from worker.attempt import carry_out
from worker.embedded import Stack
from worker.intake import submit
from worker.tasks import JOBS

ANN, BOB = ObjectId("65f0000000000000000000aa"), ObjectId("65f0000000000000000000bb")
NAMES = (
    "people",
    "orders",
    "orders_old",
    "lines",
    "trees",
    "photos.files",
    "photos.chunks",
    "audit_log",
    "consent_history",
)
DELETE = {"action": "delete"}
PURPOSES = {
    "delivery": {"basis": "contract", "why": "to deliver", "retention": "P1Y"},
    "books": {"basis": "legal_obligation", "why": "to keep books", "retention": "P10Y"},
    "service": {"basis": "contract", "why": "to serve"},
}
BY_AGE = {"purpose": "delivery", "age_of": "at"}
ORDERS = {"rules": [{"locate": {"path": "user_id", "key": "id"}, "on_erase": DELETE}], "retention": [BY_AGE]}


class World:
    """A database with people, swept by a map of the test's own."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.data_map = DataMap.model_validate(map_of({}))

    def begin(self, collections: dict[str, Any], **more: Any) -> Any:
        admin = self.deployment.admin
        for name in admin.app.list_collection_names(filter={"type": {"$in": ["collection", "timeseries"]}}):
            if not name.startswith("system."):
                admin.app[name].drop()
        for name in ("jobs", "holds"):
            admin.compliance[name].delete_many({})
        self.data_map = DataMap.model_validate(map_of(collections, **more))
        admin.app["people"].insert_many([{"_id": ANN, "email": "ann@x.org"}, {"_id": BOB, "email": "bob@x.org"}])
        self.now = admin.server_time()
        return admin.app

    def ago(self, period: str, **more: Any) -> datetime:
        return parse_period(period).before(self.now) + timedelta(**more)

    def services(self, **changes: Any) -> Any:
        found = self.deployment.services()
        settings = found.settings.model_copy(update={"batch_docs": 3, "lease": timedelta(seconds=1)})
        return replace(found, data_map=self.data_map, settings=settings, **changes)

    def sweep(self, request_id: str | None = None, **changes: Any) -> Job:
        id_, services = request_id or f"t-{uuid.uuid4().hex}", self.services(**changes)
        submit(JOBS["retention.sweep"], {}, request_id=id_, origin="test", services=services)
        carry_out(JOBS["retention.sweep"], RequestId(id_), services=services, on_progress=lambda _: None)
        job = services.ledger.find(id_)
        assert job is not None
        return job

    def plan(self) -> dict[str, Planned]:
        found = plan_retention(self.deployment.worker, self.data_map, now=self.now)
        return {one.collection: one for one in found}

    def hold(self, subject: ObjectId) -> None:
        services = self.services()
        Holds(services.databases).place(
            subject, "C-1", until=None, now=services.clock.now(), actor="test", log=services.log
        )

    def entries(self, job: Job) -> list[dict[str, Any]]:
        return self.deployment.entries(request_id=job.request_id)


def map_of(collections: dict[str, Any], **more: Any) -> dict[str, Any]:
    keys = {"id": {"path": "_id", "type": "objectId"}, "email": {"path": "email", "type": "string", "personal": True}}
    subject = {"collection": "people", "key": "id", "keys": keys}
    return {
        "apiVersion": "datamap/v1",
        "subject": subject,
        "purposes": PURPOSES,
        "collections": collections,
        **more,
    }


@pytest.fixture(scope="module")
def made(stack: Stack) -> Iterator[World]:
    with ExitStack() as cleanup:
        deployment = provision_database(stack, f"t_{uuid.uuid4().hex[:12]}", cleanup)
        deployment.migrate()
        ensure_roles(deployment.admin, grants=Grants(erasable=NAMES, importable=NAMES))
        yield World(deployment)


@pytest.fixture
def world(made: World) -> World:
    return made


def left(app: Any, name: str = "orders") -> set[Any]:
    return {one["_id"] for one in app[name].find({}, {"_id": 1})}


def test_what_is_as_old_as_the_period_goes_and_what_is_a_moment_younger_stays(world: World) -> None:
    app = world.begin({"orders": ORDERS})
    app["orders"].insert_many(
        [
            {"_id": "old", "user_id": ANN, "at": world.ago("P1Y")},
            {"_id": "young", "user_id": ANN, "at": world.ago("P1Y", minutes=5)},
        ]
    )
    job = world.sweep()

    assert left(app) == {"young"}
    assert job.result == {"documents": {"orders": 1}, "held": {}, "referred": {}, "problems": []}


def test_the_plan_is_recorded_before_anything_goes(world: World) -> None:
    app = world.begin({"orders": ORDERS})
    app["orders"].insert_many([{"_id": n, "user_id": ANN, "at": world.ago("P2Y")} for n in range(7)])
    job = world.sweep()
    told = [(entry["action"], entry["details"].get("documents")) for entry in world.entries(job)]

    assert told[0] == ("retention.planned", {"orders": 7})
    assert sorted(told[1:], key=str) == [
        ("retention.batch", 1),
        ("retention.batch", 3),
        ("retention.batch", 3),
        ("retention.completed", {"orders": 7}),
    ]


def test_of_several_purposes_the_one_that_needs_a_document_longest_counts(world: World) -> None:
    both = [BY_AGE, {"purpose": "books", "age_of": "paid.at", "where": {"invoice": {"$exists": True}}}]
    app = world.begin({"orders": {**ORDERS, "retention": both}})
    app["orders"].insert_many(
        [
            {"_id": "plain", "at": world.ago("P2Y")},
            {"_id": "invoiced", "at": world.ago("P2Y"), "invoice": 1, "paid": {"at": world.ago("P2Y")}},
            {"_id": "invoiced long ago", "at": world.ago("P11Y"), "invoice": 2, "paid": {"at": world.ago("P10Y")}},
            {"_id": "not paid", "at": world.ago("P11Y"), "invoice": 3},
        ]
    )
    planned = world.plan()["orders"]
    world.sweep()

    assert (planned.documents, planned.undated) == (2, 1)
    assert left(app) == {"invoiced", "not paid"}


def test_where_alone_narrows_what_goes(world: World) -> None:
    app = world.begin({"orders": {**ORDERS, "retention": [{**BY_AGE, "where": {"kind": "visit"}}]}})
    app["orders"].insert_many(
        [{"_id": kind, "kind": kind, "at": world.ago("P2Y")} for kind in ("visit", "order")] + [{"_id": "none"}]
    )
    planned = world.plan()["orders"]
    world.sweep()

    assert left(app) == {"order", "none"}
    assert (planned.documents, planned.problems) == (1, ())


WRONG = [
    ("missing", {}),
    ("null", {"at": None}),
    ("text", {"at": "2001-01-01"}),
    ("number", {"at": 0}),
    ("timestamp", {"at": Timestamp(1, 1)}),
    ("dates", {"at": [datetime(2001, 1, 1, tzinfo=UTC)]}),
]


def test_what_has_no_date_or_something_else_for_it_is_reported_and_stays(world: World) -> None:
    app = world.begin({"orders": ORDERS})
    app["orders"].insert_many([{"_id": name, **fields} for name, fields in WRONG])
    planned, job = world.plan()["orders"], world.sweep()

    assert (planned.documents, planned.undated) == (0, 2)
    assert planned.wrong_type == {"string": 1, "int": 1, "timestamp": 1, "array": 1}
    assert left(app) == {name for name, _ in WRONG}
    assert "orders: 2 documents have no date, so they stay" in (job.result or {})["problems"]
    assert "orders: 1 documents have a value of type string for their date; they stay" in planned.problems


def test_a_date_within_an_array_proves_no_age(world: World) -> None:
    app = world.begin({"orders": {**ORDERS, "retention": [{"purpose": "delivery", "age_of": "stops.at"}]}})
    app["orders"].insert_one({"_id": 1, "stops": [{"at": world.ago("P5Y")}, {"at": world.now}]})
    planned = world.plan()["orders"]
    world.sweep()

    assert left(app) == {1}
    assert planned.wrong_type == {"array": 1}


def test_data_of_people_under_a_legal_hold_stays_also_what_refers_to_theirs(world: World) -> None:
    lines = {"rules": [{"locate": {"path": "order", "of": "orders"}, "on_erase": DELETE}], "retention": [BY_AGE]}
    app = world.begin({"orders": ORDERS, "lines": lines})
    old = world.ago("P2Y")
    app["orders"].insert_many(
        [{"_id": name, "user_id": who, "at": old} for name, who in (("anns", ANN), ("bobs", BOB))]
        + [{"_id": "by address", "note": "ask Ann@X.org", "at": old}]
    )
    app["lines"].insert_many([{"_id": of, "order": of, "at": old} for of in ("anns", "bobs")])
    world.hold(ANN)
    planned, job = world.plan(), world.sweep()

    assert (left(app), left(app, "lines")) == ({"anns", "by address"}, {"anns"})
    assert (planned["orders"].documents, planned["orders"].held, planned["lines"].held) == (3, 2, 1)
    assert (job.result or {})["held"] == {"orders": 2, "lines": 1}


def test_a_hold_that_is_placed_meanwhile_counts_from_the_next_batch_on(world: World) -> None:
    app = world.begin({"orders": ORDERS})
    app["orders"].insert_many([{"_id": n, "user_id": ANN, "at": world.ago("P2Y")} for n in range(6)])
    services = world.services()
    submit(JOBS["retention.sweep"], {}, request_id="t-placed", origin="test", services=services)

    def place(checkpoint: Any) -> None:
        if checkpoint["documents"] == {"orders": 3}:
            world.hold(ANN)

    carry_out(JOBS["retention.sweep"], RequestId("t-placed"), services=services, on_progress=place)

    assert len(left(app)) == 3


def test_a_hold_on_somebody_whom_nobody_can_recognise_removes_nothing(world: World) -> None:
    keys = {"email": {"path": "email", "type": "string", "personal": True}}
    subject = {"collection": "people", "key": "email", "keys": keys}
    orders = {"rules": [{"locate": {"path": "email", "key": "email"}, "on_erase": DELETE}], "retention": [BY_AGE]}
    app = world.begin({"orders": orders}, subject=subject)
    app["orders"].insert_one({"_id": 1, "email": "ann@x.org", "at": world.ago("P2Y")})
    world.deployment.admin.compliance["holds"].insert_one(
        {"_id": "h", "subject_id": f"hmac-sha256:old:{'0' * 64}", "case_id": "C", "until": None, "released_at": None}
    )
    job = world.sweep()

    assert (job.state, (job.error or {})["code"]) == (State.PARKED, ConfigurationError.__name__)
    assert left(app) == {1}


def test_what_others_refer_to_stays_until_those_are_gone(world: World) -> None:
    lines = {"rules": [{"locate": {"path": "orders[]", "of": "orders"}, "on_erase": DELETE}]}
    app = world.begin({"orders": ORDERS, "lines": lines})
    app["orders"].insert_many([{"_id": name, "at": world.ago("P2Y")} for name in ("used", "free")])
    app["lines"].insert_one({"_id": 1, "orders": ["other", "used"]})
    job = world.sweep()

    assert left(app) == {"used"}
    assert (job.result or {})["referred"] == {"orders": 1}


def test_files_take_their_chunks_along(world: World) -> None:
    photos = {
        "kind": "gridfs",
        "rules": [{"locate": {"path": "metadata.user_id", "key": "id"}, "on_erase": DELETE}],
        "retention": [{"purpose": "delivery", "age_of": "uploadDate"}],
    }
    app = world.begin({"photos": photos})
    for name, age in (("old", "P2Y"), ("young", "P1M")):
        app["photos.files"].insert_one({"_id": name, "uploadDate": world.ago(age)})
        app["photos.chunks"].insert_many([{"_id": f"{name}{n}", "files_id": name, "n": n} for n in range(3)])
    world.sweep()

    assert left(app, "photos.files") == {"young"}
    assert left(app, "photos.chunks") == {"young0", "young1", "young2"}


def test_old_versions_go_by_their_own_date(world: World) -> None:
    app = world.begin({"orders": ORDERS}, history={"suffix": "_old", "id_path": "document_id"})
    app["orders"].insert_one({"_id": 1, "at": world.ago("P1M")})
    app["orders_old"].insert_many([{"_id": n, "document_id": 1, "at": world.ago(f"P{n}Y")} for n in range(3)])
    world.sweep()

    assert (left(app), left(app, "orders_old")) == ({1}, {0})


def test_what_must_not_go_by_age_stays_and_the_reason_is_told(world: World) -> None:
    series = {
        "kind": "timeseries",
        "rules": [{"locate": {"path": "meta", "key": "id"}, "on_erase": DELETE}],
        "retention": [BY_AGE],
    }
    evidence = {"retention": [BY_AGE]}
    app = world.begin({"people": evidence, "audit_log": evidence, "consent_history": evidence, "lines": series})
    for name in ("people", "audit_log", "consent_history"):
        app[name].insert_one({"_id": "old", "at": world.ago("P9Y")})
    app.create_collection("lines", timeseries={"timeField": "at", "metaField": "meta"})
    app["lines"].insert_one({"_id": "old", "at": world.ago("P9Y"), "meta": ANN})
    job = world.sweep()
    told = (job.result or {})["problems"]

    assert [left(app, name) & {"old"} for name in ("people", "audit_log", "consent_history", "lines")] == [{"old"}] * 4
    assert sorted(problem.split(":")[0] for problem in told) == ["audit_log", "consent_history", "lines", "people"]


def test_the_plan_says_which_index_serves_and_which_ttl_index_removes_by_itself(world: World) -> None:
    app = world.begin({"orders": ORDERS, "lines": {"retention": [BY_AGE]}, "trees": {"retention": [BY_AGE]}})
    oldest = world.ago("P5Y")
    app["orders"].insert_many([{"_id": n, "at": at} for n, at in enumerate((world.ago("P2Y"), oldest))])
    app["orders"].create_index("at", name="by_age")
    app["lines"].create_index("at", name="by_itself", expireAfterSeconds=10**9)
    planned = world.plan()

    assert sorted(planned) == ["lines", "orders"]  # trees is not there
    assert (planned["orders"].index, planned["orders"].oldest, planned["orders"].problems) == ("by_age", oldest, ())
    assert planned["lines"].index == "by_itself"
    assert "lets the server remove documents after 1000000000 s" in planned["lines"].problems[0]
    app["orders"].drop_index("by_age")
    assert world.plan()["orders"].index == NO_INDEX


def test_a_map_without_retention_removes_and_plans_nothing(world: World) -> None:
    app = world.begin({"orders": {"rules": ORDERS["rules"]}})
    app["orders"].insert_one({"_id": 1, "at": world.ago("P99Y")})
    job = world.sweep()

    assert (left(app), world.plan()) == ({1}, {})
    assert (job.result or {})["documents"] == {}


def test_a_wrong_clock_of_a_worker_removes_nothing_too_early(world: World) -> None:
    class YearsAhead:
        def now(self) -> datetime:
            return world.now + timedelta(days=9000)

        def sleep(self, duration: timedelta) -> None:
            raise NotImplementedError

    app = world.begin({"orders": ORDERS})
    app["orders"].insert_one({"_id": 1, "at": world.ago("P1M")})
    world.sweep(clock=YearsAhead())

    assert left(app) == {1}


@pytest.mark.parametrize("at", sampled(range(1, 7), each=2))
@pytest.mark.parametrize("committed", [True, False])
def test_a_worker_that_dies_at_any_transaction_leaves_the_rest_to_its_successor(
    world: World, at: int, *, committed: bool
) -> None:
    app = world.begin({"orders": ORDERS})
    app["orders"].insert_many([{"_id": n, "user_id": (ANN, BOB)[n % 2], "at": world.ago("P2Y")} for n in range(8)])
    world.hold(BOB)
    id_ = f"t-{uuid.uuid4().hex}"
    with pytest.raises(Died):
        world.sweep(id_, databases=mortal(world.deployment.worker, at=at, committed=committed))

    def succeeded() -> bool:
        return world.sweep(id_).state is State.DONE

    wait_until(succeeded, timeout=20, what="a successor is done")
    job = world.services().ledger.find(id_)
    entries = world.entries(job)
    removed = [entry["details"]["documents"] for entry in entries if entry["action"] == "retention.batch"]

    assert left(app) == {1, 3, 5, 7}
    assert (job.result["documents"], job.result["held"]) == ({"orders": 4}, {"orders": 4})
    assert sum(removed) == 4
    assert [entry["action"] for entry in entries].count("retention.planned") == 1
    assert [entry["action"] for entry in entries].count("retention.completed") == 1
