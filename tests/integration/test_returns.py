"""Data of an erased person that comes back is seen and erased again, once, whatever dies; nobody else is touched."""

import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import bson
import pytest
from bson import ObjectId
from every import sampled
from faults import Died, mortal
from mapped import ANN, BOB, LAW, World, rule
from waiting import wait_until

from compliance.clock import SystemClock
from compliance.erasure.holds import Holds
from compliance.erasure.returns import AT_ONCE, FIRST_PAUSE, RETURNS
from compliance.erasure.stage import Stage
from compliance.errors import InvalidPayload
from compliance.foundation import ensure_own
from compliance.jobs.job import Job, RequestId, State
from compliance.mongo import Databases
from compliance.roles import Role
from worker.attempt import carry_out
from worker.comeback import Comeback
from worker.embedded import Stack
from worker.intake import submit
from worker.services import Services
from worker.tasks import JOBS

MAP = {"c0": [rule()], "c1": [rule("members[].user_id", {"action": "pull", "array": "members"})]}


@pytest.fixture(scope="module")
def made(stack: Stack) -> Iterator[World]:
    with ExitStack() as cleanup:
        world = World.make(stack, cleanup)
        ensure_own(world.deployment.admin)
        yield world


@pytest.fixture
def world(made: World) -> World:
    """Ann was erased, Bob was not."""
    begin(made)
    return made


def begin(world: World, collections: dict[str, Any] = MAP, *, erase: bool = True, **more: Any) -> Any:
    own = world.deployment.admin.compliance
    for name in ("jobs", "erasure_requests", "holds", "watch_tokens", RETURNS):
        own[name].delete_many({})
    app = world.begin(collections, **more)
    if erase:
        tenant = {"tenant": "t1"} if world.data_map.tenant else {}
        assert world.erase(**tenant).state is State.DONE
    return app


@contextmanager
def watching(world: World, *, databases: Databases | None = None, **changes: Any) -> Iterator[list[Job]]:
    """Follow as the watcher does; yield what it rings for."""
    rung: list[Job] = []
    sealer = world.deployment.services(Role.SEALER)
    services = replace(
        sealer,
        data_map=world.data_map,
        publish=rung.append,
        databases=databases or sealer.databases,
        **changes,
    )
    stop, failed = threading.Event(), []

    def follow() -> None:
        try:
            Comeback(services, stop.is_set).follow()
        except Died as died:
            failed.append(died)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        wait_until(lambda: token(world) or failed, timeout=20, what="the watcher follows")
        yield rung
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


def token(world: World) -> Any:
    saved = world.deployment.admin.compliance["watch_tokens"].find_one({"_id": f"{world.deployment.name}:returns"})
    return saved and saved["token"]


def services_of(world: World, **changes: Any) -> Services:
    found = world.deployment.services()
    settings = found.settings.model_copy(update={"batch_docs": 3, "lease": timedelta(seconds=1)})
    return replace(found, data_map=world.data_map, settings=settings, **changes)


def jobs(world: World, kind: str = "erasure.returned") -> list[dict[str, Any]]:
    return list(world.deployment.admin.compliance["jobs"].find({"kind": kind}).sort("created_at"))


def work(world: World, **changes: Any) -> list[str]:
    """Carry out what waits and is due, as workers would; return the states."""
    services = services_of(world, **changes)
    for kind in ("erasure.look", "erasure.returned"):
        for waiting in jobs(world, kind):
            if waiting["state"] in ("queued", "running"):
                carry_out(JOBS[kind], RequestId(waiting["_id"]), services=services, on_progress=lambda _: None)
    return [one["state"] for one in jobs(world)]


def seen(world: World, count: int = 1) -> None:
    wait_until(lambda: len(jobs(world)) >= count, timeout=20, what="an erasure is asked for")


def entries(world: World, action: str = "erasure.returned") -> list[dict[str, Any]]:
    ids = [job["_id"] for job in jobs(world)]
    return world.deployment.entries(action=action, request_id={"$in": ids})


def requests(world: World) -> list[dict[str, Any]]:
    return list(world.deployment.admin.compliance["erasure_requests"].find().sort("received_at"))


def look(world: World, request_id: str | None = None, **changes: Any) -> Job:
    id_, services = request_id or uuid.uuid4().hex, services_of(world, **changes)
    submit(JOBS["erasure.look"], {}, request_id=id_, origin="test", services=services)
    carry_out(JOBS["erasure.look"], RequestId(id_), services=services, on_progress=lambda _: None)
    job = services.ledger.find(id_)
    assert job is not None
    return job


def test_what_a_late_writer_writes_is_erased_again_and_nobody_else_is_touched(world: World) -> None:
    others = [{"_id": 2, "user_id": BOB}, {"_id": 3, "members": [{"user_id": BOB}]}]
    with watching(world) as rung:
        world.app["c0"].insert_many([{"_id": 1, "user_id": ANN, "note": "late"}, others[0]])
        seen(world)
        wait_until(lambda: len(rung) == 2, timeout=5, what="it is rung for")  # the look at the beginning is the other
    before = [bson.encode(one) for one in world.app["c0"].find({"_id": 2})]

    assert work(world) == ["done"]
    assert [bson.encode(one) for one in world.app["c0"].find()] == before
    first, second = requests(world)
    assert (second["state"], second["earlier"], second["subject_id"]) == ("completed", first["_id"], ANN)
    assert "grace_until" not in second
    (entry,) = entries(world)
    assert (entry["entity_id"], entry["entity_type"], entry["source"]["channel"]) == (ANN, "user", "watcher")
    assert entry["details"] == {
        "earlier": first["_id"],
        "seen_in": "stream",
        "collections": ["c0"],
        "times": 1,
        "pause_seconds": 0,
    }


WRITES = {
    "a document of another collection": lambda app: app["c5"].insert_one({"deep": [{"er": str(ANN)}]}),
    "an element of a list": lambda app: app["c1"].update_one({"_id": "club"}, {"$push": {"members": {"user_id": ANN}}}),
    "a replaced document": lambda app: app["c1"].replace_one({"_id": "club"}, {"owner": ANN}),
    "the person": lambda app: app["people"].insert_one({"_id": ANN, "email": "other@x.org"}),
    "an upsert": lambda app: app["c0"].update_one({"user_id": ANN}, {"$set": {"n": 1}}, upsert=True),
}


@pytest.mark.parametrize("how", WRITES)
def test_whatever_way_it_comes_back_it_is_seen(world: World, how: str) -> None:
    world.app["c1"].insert_one({"_id": "club", "members": [{"user_id": BOB}]})
    with watching(world):
        WRITES[how](world.app)
        seen(world)

    assert [job["payload"]["subject_id"] for job in jobs(world)] == [str(ANN)]


def test_what_is_written_of_others_asks_for_nothing(world: World) -> None:
    with watching(world):
        world.app["c0"].insert_many([{"user_id": BOB}, {"user_id": ObjectId(), "text": "anything"}])
        world.app["c0"].update_many({}, {"$set": {"again": BOB}})
        world.app["c0"].delete_many({})
        world.app["c0"].insert_one({"_id": "last", "user_id": ANN})
        seen(world)

    assert [job["payload"]["subject_id"] for job in jobs(world)] == [str(ANN)]
    assert entries(world)[0]["details"]["collections"] == ["c0"]


def test_a_burst_is_one_erasure_and_what_comes_while_it_runs_is_another(world: World) -> None:
    def writes_in_the_middle(checkpoint: Any) -> None:
        if checkpoint.get("planned") is not None:
            world.app["c1"].insert_one({"members": [{"user_id": ANN}]})
            seen(world, 2)

    with watching(world):
        world.app["c0"].insert_many([{"user_id": ANN} for _ in range(700)])
        seen(world)
        world.app["c0"].insert_many([{"user_id": ANN} for _ in range(20)])
        (first,) = jobs(world)
        services = services_of(world)
        carry_out(JOBS[first["kind"]], first["_id"], services=services, on_progress=writes_in_the_middle)

    assert [job["state"] for job in jobs(world)] == ["done", "queued"]
    assert work(world) == ["done", "done"]
    assert world.app["c0"].count_documents({}) == world.app["c1"].count_documents({"members.user_id": ANN}) == 0


def test_what_is_written_during_the_last_look_of_the_first_erasure_is_not_missed(made: World) -> None:
    begin(made, erase=False)
    id_ = uuid.uuid4().hex
    services = services_of(made)
    submit(JOBS["erasure.request"], {"subject_id": str(ANN)}, request_id=id_, origin="test", services=services)

    def late(_: Any) -> None:
        if (services.databases.compliance["erasure_requests"].find_one({"_id": id_}) or {})["state"] == "verifying":
            made.app["c5"].insert_one({"_id": "late", "user_id": BOB})
            made.app["c5"].update_one({"_id": "late"}, {"$set": {"user_id": ANN}})
            seen(made)
            made.app["c5"].delete_many({})  # so that the look behind it finds nothing
            made.app["c0"].insert_one({"_id": "later", "user_id": BOB})

    with watching(made):
        carry_out(JOBS["erasure.request"], RequestId(id_), services=services, on_progress=late)
        assert requests(made)[0]["state"] == Stage.COMPLETED
        assert work(made) == ["done"]

    assert requests(made)[1]["earlier"] == id_


def test_where_the_earlier_erasure_is_not_completed_it_goes_on_by_itself(world: World) -> None:
    (first,) = requests(world)
    world.deployment.admin.compliance["erasure_requests"].update_one(
        {"_id": first["_id"]}, {"$set": {"state": "verifying"}}
    )
    world.app["c0"].insert_one({"_id": 1, "user_id": ANN})
    look(world)

    assert work(world) == ["done"]
    assert jobs(world)[0]["result"] == {"state": "skipped", "earlier_is": "verifying"}
    assert world.app["c0"].count_documents({}) == 1


def test_nothing_that_was_written_while_no_watcher_ran_is_missed(world: World) -> None:
    with watching(world):
        pass
    world.app["c0"].insert_one({"user_id": ANN})
    with watching(world):
        seen(world)

    assert work(world) == ["done"]


def test_at_its_first_start_the_watcher_asks_for_a_look_at_everything(world: World) -> None:
    world.app["c0"].insert_one({"user_id": ANN})
    with watching(world):
        pass

    assert [job["state"] for job in jobs(world, "erasure.look")] == ["queued"]
    assert work(world) == ["done"]
    assert entries(world)[0]["details"]["seen_in"] == "database"
    assert world.app["c0"].count_documents({}) == 0


def test_where_the_history_is_lost_everything_is_looked_at(world: World) -> None:
    with watching(world):
        pass
    world.deployment.admin.compliance["jobs"].delete_many({"kind": "erasure.look"})
    fault = {"failCommands": ["aggregate"], "errorCode": 286, "appName": Role.SEALER.value}
    world.deployment.admin.client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=fault)
    with watching(world):  # it ends, and begins without a token
        wait_until(lambda: token(world) is None, timeout=20, what="the watcher starts over")
    with watching(world):
        pass

    assert [job["state"] for job in jobs(world, "erasure.look")] == ["queued"]


def test_who_goes_on_writing_waits_longer_and_longer(world: World) -> None:
    for times in range(1, AT_ONCE + 3):
        world.app["c0"].insert_one({"user_id": ANN})
        look(world)
        work(world)
        if times > AT_ONCE:  # it waits; a person who does not want to wait lets it run
            (stored,) = (job for job in jobs(world) if job["state"] == "queued")
            query = {"_id": stored["_id"]}
            world.deployment.admin.compliance["jobs"].update_one(query, {"$set": {"run_at": None}})
            work(world)
    pauses = [entry["details"]["pause_seconds"] for entry in entries(world)]
    first = int(FIRST_PAUSE.total_seconds())

    assert pauses == [0] * AT_ONCE + [first, 2 * first]
    assert [job["state"] for job in jobs(world)] == ["done"] * (AT_ONCE + 2)
    assert world.app["c0"].count_documents({}) == 0


def test_while_one_waits_for_its_time_no_other_is_asked_for(world: World) -> None:
    returns = world.deployment.admin.compliance[RETURNS]
    now = SystemClock().now()
    returns.insert_one({"_id": str(ANN), "times": 9, "recent": AT_ONCE, "last_at": now, "job": "gone"})
    for _ in range(3):
        world.app["c0"].insert_one({"user_id": ANN})
        look(world)

    assert [job["state"] for job in jobs(world)] == ["queued"]
    assert entries(world)[0]["details"]["times"] == 10
    assert jobs(world)[0]["run_at"] > now + FIRST_PAUSE / 2
    assert work(world) == ["queued"]


def test_after_a_day_of_quiet_the_first_ones_are_carried_out_at_once_again(world: World) -> None:
    then = SystemClock().now() - timedelta(days=1, minutes=1)
    returns = world.deployment.admin.compliance[RETURNS]
    returns.insert_one({"_id": str(ANN), "times": 9, "recent": 9, "last_at": then, "job": "gone"})
    world.app["c0"].insert_one({"user_id": ANN})
    look(world)

    assert (returns.find_one() or {})["recent"] == 1
    assert work(world) == ["done"]


def test_what_a_law_keeps_is_no_return(made: World) -> None:
    kept = rule(on_erase={"action": "keep"}, kept={"fields": ["user_id", "total"], **LAW})
    app = begin(made, {"c0": [rule()], "c2": [kept]}, erase=False)
    app["c2"].insert_one({"_id": 1, "user_id": ANN, "total": 5})
    assert made.erase().state is State.DONE
    with watching(made):
        app["c2"].update_one({"_id": 1}, {"$set": {"total": 6}})
        app["c2"].update_one({"_id": 1}, {"$set": {"user_id": ANN, "total": 7}})
        app["c2"].insert_one({"_id": 2, "user_id": ANN})
        look(made)
        assert jobs(made) == []
        app["c2"].update_one({"_id": 1}, {"$set": {"note": str(ANN)}})
        seen(made)


def test_people_of_another_organisation_with_the_same_id_are_not_meant(made: World) -> None:
    app = begin(made, {"c0": [rule()]}, tenant={"field": "tenant", "type": "string"})
    with watching(made):
        app["c0"].insert_one({"_id": "other", "tenant": "t2", "user_id": ANN})
        app["c0"].insert_one({"_id": "own", "tenant": "t1", "user_id": ANN})
        seen(made)
    payload = jobs(made)[0]["payload"]

    assert (payload["tenant"], payload["subject_id"]) == ("t1", str(ANN))
    assert work(made) == ["done"]
    assert [one["_id"] for one in app["c0"].find()] == ["other"]


def test_a_hold_keeps_what_came_back(world: World) -> None:
    services = services_of(world)
    Holds(services.databases).place(ANN, "C-1", until=None, now=services.clock.now(), actor="test", log=services.log)
    world.app["c0"].insert_one({"user_id": ANN})
    look(world)

    assert work(world) == ["rejected"]
    assert world.app["c0"].count_documents({}) == 1


def test_an_erasure_again_takes_an_earlier_one_of_this_person(world: World) -> None:
    world.app["c0"].insert_one({"user_id": BOB})
    values = {"subject_id": str(BOB), "earlier": requests(world)[0]["_id"]}
    services = services_of(world)
    submit(JOBS["erasure.returned"], values, request_id="t-wrong", origin="test", services=services)
    carry_out(JOBS["erasure.returned"], RequestId("t-wrong"), services=services, on_progress=lambda _: None)
    job = services.ledger.find("t-wrong")

    assert job is not None
    assert (job.state, (job.error or {})["code"]) == (State.REJECTED, InvalidPayload.__name__)
    assert world.app["c0"].count_documents({}) == 1


@pytest.mark.parametrize("cause", ["schedule", "change", "request"])
def test_a_check_that_finds_something_asks_whose_it_is(world: World, cause: str) -> None:
    world.app["c0"].insert_one({"user_id": ANN})
    services = services_of(world)
    values = {"checks": ["no_residual"], "cause": cause}
    submit(JOBS["health.check"], values, request_id=f"h-{cause}", origin="test", services=services)
    carry_out(JOBS["health.check"], RequestId(f"h-{cause}"), services=services, on_progress=lambda _: None)
    work(world)

    assert world.app["c0"].count_documents({}) == (1 if cause == "request" else 0)


@pytest.mark.parametrize("committed", [True, False])
def test_a_watcher_that_dies_at_the_transaction_loses_nothing_and_asks_once(world: World, *, committed: bool) -> None:
    with watching(world):
        pass
    world.app["c0"].insert_one({"user_id": ANN})
    sealer = world.deployment.services(Role.SEALER).databases
    with watching(world, databases=mortal(sealer, at=1, committed=committed)):
        if committed:
            seen(world)
        else:
            wait_until(lambda: True, timeout=1, what="nothing")
    with watching(world):
        seen(world)
        world.app["c5"].insert_one({"user_id": BOB})

    assert work(world) == ["done"]
    assert len(entries(world)) == 1


@pytest.mark.parametrize("at", sampled(range(1, 9), each=4))
@pytest.mark.parametrize("committed", [True, False])
def test_a_worker_that_dies_at_any_transaction_leaves_the_rest_to_its_successor(
    world: World, at: int, *, committed: bool
) -> None:
    world.app["c0"].insert_many([{"user_id": ANN} for _ in range(7)] + [{"user_id": BOB}])
    look(world)
    with pytest.raises(Died):
        work(world, databases=mortal(world.deployment.worker, at=at, committed=committed))
    wait_until(lambda: work(world) == ["done"], timeout=20, what="a successor is done")

    assert [one["user_id"] for one in world.app["c0"].find()] == [BOB]
    assert len(requests(world)) == 2
    assert [entry["details"]["documents"] for entry in entries(world, "erasure.completed")] == [7]


@pytest.mark.parametrize("at", sampled(range(1, 8), each=4))
@pytest.mark.parametrize("committed", [True, False])
def test_a_look_that_dies_at_any_transaction_is_gone_on_with(world: World, at: int, *, committed: bool) -> None:
    world.app["c0"].insert_many([{"user_id": ANN} for _ in range(3)])
    world.app["c5"].insert_one({"user_id": ANN})
    id_ = uuid.uuid4().hex
    with pytest.raises(Died):
        look(world, id_, databases=mortal(world.deployment.worker, at=at, committed=committed))
    wait_until(lambda: look(world, id_).state is State.DONE, timeout=20, what="a successor is done")

    assert len(jobs(world)) == len(entries(world)) == 1
