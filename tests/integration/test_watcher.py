"""The watcher: every change event that matters becomes one follow-up job, whatever dies."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from bson import ObjectId
from deployment import Deployment
from faults import Died, mortal
from waiting import wait_until

from compliance.clock import SystemClock
from compliance.datamap.person import Key, KeyType
from compliance.roles import Role
from worker.routing import sources
from worker.watcher import Watcher, watch_all


@contextmanager
def watching(deployment: Deployment, **changes: Any) -> Iterator[None]:
    stop = threading.Event()
    services = replace(deployment.services(Role.SEALER), **changes)
    thread = threading.Thread(target=watch_all, args=(services, stop.is_set))
    before = token(deployment)
    thread.start()
    try:
        wait_until(lambda: token(deployment) is not None, timeout=20, what="the watcher follows")
        del before
        yield
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


def token(deployment: Deployment) -> object:
    saved = deployment.admin.compliance["watch_tokens"].find_one({"_id": deployment.name})
    return saved["token"] if saved else None


def follow_ups(deployment: Deployment) -> list[dict[str, object]]:
    query = {"origin": "watcher", "_id": {"$not": {"$regex": "^watch-(baseline|look)"}}}
    return [job["payload"] for job in deployment.admin.compliance["jobs"].find(query)]


def add_person(deployment: Deployment) -> ObjectId:
    user = {
        "email": f"{ObjectId()}@example.org",
        "role": "listener",
        "status": "ACTIVE",
        "subscription_type": "FREE",
        "created_at": SystemClock().now(),
    }
    return deployment.admin.app["users"].insert_one(user).inserted_id


def residual_check(person: ObjectId) -> dict[str, object]:
    return {"checks": ["no_residual"], "subject_id": str(person), "cause": "change"}


def test_a_person_who_goes_away_asks_whether_all_is_gone(deployment: Deployment) -> None:
    person = add_person(deployment)
    with watching(deployment):
        deployment.admin.app["users"].delete_one({"_id": person})
        wait_until(lambda: bool(follow_ups(deployment)), timeout=10, what="a follow-up is recorded")

    assert follow_ups(deployment) == [residual_check(person)]
    assert deployment.published[-1].payload == residual_check(person)


def test_where_the_root_is_not_known_by_its_id_the_completed_request_asks(deployment: Deployment) -> None:
    data_map = deployment.services().data_map
    keys = {**data_map.subject.keys, "user_id": Key(path="person.id", type=KeyType.OBJECT_ID)}
    other = data_map.model_copy(update={"subject": data_map.subject.model_copy(update={"keys": keys})})
    requests, person = deployment.admin.compliance["erasure_requests"], ObjectId()
    requests.insert_one({"_id": "r-1", "subject_id": person, "state": "executing"})
    with watching(deployment, data_map=other):
        wait_until(lambda: tokens(deployment) == 2, timeout=20, what="both streams are followed")
        deployment.admin.app["users"].delete_one({"_id": add_person(deployment)})
        requests.update_one({"_id": "r-1"}, {"$set": {"state": "completed"}})
        wait_until(lambda: bool(follow_ups(deployment)), timeout=10, what="a follow-up is recorded")

    assert follow_ups(deployment) == [residual_check(person)]


def tokens(deployment: Deployment) -> int:
    followed = [deployment.name, f"{deployment.name}_compliance"]
    return deployment.admin.compliance["watch_tokens"].count_documents({"_id": {"$in": followed}})


def test_a_lost_index_is_noticed_and_named(deployment: Deployment) -> None:
    with watching(deployment):
        deployment.admin.app["users"].drop_index("ix_user_email")
        wait_until(lambda: bool(follow_ups(deployment)), timeout=10, what="a follow-up is recorded")
    (payload,) = follow_ups(deployment)
    deployment.run("health.check", payload)

    (found,) = deployment.admin.compliance["health_checks"].find({"status": "failed"})
    assert found["problems"] == ["users.ix_user_email is missing (declared by v002_pre_core_indexes)"]


def test_what_happened_while_the_watcher_was_away_is_seen_when_it_is_back(deployment: Deployment) -> None:
    person = add_person(deployment)
    with watching(deployment):
        pass
    deployment.admin.app["users"].delete_one({"_id": person})

    with watching(deployment):
        wait_until(lambda: bool(follow_ups(deployment)), timeout=10, what="a follow-up is recorded")

    assert follow_ups(deployment) == [residual_check(person)]


@pytest.mark.parametrize("committed", [False, True])
def test_a_watcher_that_dies_around_its_commit_loses_and_repeats_nothing(
    deployment: Deployment, *, committed: bool
) -> None:
    person = add_person(deployment)
    with watching(deployment):
        pass
    deployment.admin.app["users"].delete_one({"_id": person})
    services = deployment.services(Role.SEALER)
    dying = replace(services, databases=mortal(services.databases, at=1, committed=committed))
    with pytest.raises(Died):
        Watcher(dying, sources(dying.data_map)[0], lambda: False).run()

    with watching(deployment):
        wait_until(lambda: bool(follow_ups(deployment)), timeout=10, what="a follow-up is recorded")

    assert follow_ups(deployment) == [residual_check(person)]


def test_a_lost_oplog_starts_over_with_a_look_at_everything(deployment: Deployment) -> None:
    with watching(deployment):
        pass
    stream = f"{deployment.name}.$cmd.aggregate"  # the outbox is followed by the same user
    fault = {"failCommands": ["aggregate"], "errorCode": 286, "appName": Role.SEALER.value, "namespace": stream}
    deployment.admin.client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=fault)

    with watching(deployment):
        wait_until(lambda: token(deployment) is None, timeout=20, what="the watcher starts over")
        deployment.admin.client.admin.command("configureFailPoint", "failCommand", mode="off")
        wait_until(lambda: baselines(deployment) == 2, timeout=20, what="the second baseline is recorded")

    assert baselines(deployment) == 2


def baselines(deployment: Deployment) -> int:
    return deployment.admin.compliance["jobs"].count_documents({"_id": {"$regex": "^watch-baseline"}})


def test_the_watcher_needs_no_more_rights_than_its_role_has(deployment: Deployment) -> None:
    sealer = deployment.services(Role.SEALER).databases

    with pytest.raises(Exception, match="not authorized"):
        sealer.app["users"].delete_many({})
