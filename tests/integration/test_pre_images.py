"""What a migration overwrote is given back, but never to who was erased, and never beyond its time."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import ObjectId
from deployment import Deployment
from every import sampled
from faults import Died, mortal
from migrated import leave_the_lease_behind, write_scripts
from parameters import parameter
from pymongo.errors import OperationFailure
from waiting import wait_until

from compliance.errors import LockHeld, StepFailed
from compliance.health import CHECKS, Scope
from compliance.mongo import Databases, Document, Session
from compliance.roles import Role
from migrations.ops.difference import digest
from migrations.runner import Runner
from worker.services import connect

DAY, AGO = "timedelta(days=1)", datetime(2026, 1, 1, tzinfo=UTC)
ANN, BOB = ObjectId("65e5f0a1b2c3d4e5f6a7b8c1"), ObjectId("65e5f0a1b2c3d4e5f6a7b8c2")
SCRIPT = '''
        """Overwrite, and give back."""

        from migrations.context import timedelta


        def change(document):
            return {"n": document["n"] * 10, "home": {**document["home"], "zip": None}}


        def up(ctx):
            """Overwrite."""
            UP


        def down(ctx):
            """Give back."""
            ctx.restore("things")
'''
WALK = f'ctx.walk("things", where={{}}, update={{"$inc": {{"n": 1}}, "$unset": {{"old": ""}}}}, keep_before={DAY})'
BACKFILL = (
    'ctx.backfill("things", where={"new": {"$exists": False}}, update=[{"$set": {"new": {"$add": ["$n", 1]}}}, '
    f'{{"$unset": "old"}}], keep_before={DAY})'
)
TRANSFORM = f'ctx.transform("things", where={{}}, fields=("n", "home"), function=change, keep_before={DAY})'
TWICE = f"{WALK}\n            {TRANSFORM}"


def arranged(empty: Deployment, folder: Path, up: str, documents: list[Document], **settings: Any) -> Deployment:
    """A database of one script, whose foundation is there."""
    scripts = write_scripts(folder / "scripts", {"v001_data_it.py": SCRIPT.replace("UP", up)})
    arranged = empty.with_settings(migrations=scripts, batch_docs=4, **settings)
    arranged.runner().up("000")
    empty.admin.app["things"].insert_many(documents)
    return arranged


def some(number: int = 11) -> list[Document]:
    return [{"_id": n, "n": n, "old": [n], "home": {"city": "Ulm", "zip": str(n)}} for n in range(number)]


def things(empty: Deployment, name: str = "things") -> list[Document]:
    return [
        bson.decode(bson.encode(dict(sorted(one.items())))) for one in empty.admin.app[name].find(sort=[("_id", 1)])
    ]


def images(empty: Deployment, **query: Any) -> list[Document]:
    return list(empty.admin.app["compliance_pre_images"].find(query, sort=[("_id", 1)]))


@pytest.mark.parametrize("up", [WALK, BACKFILL, TRANSFORM, TWICE])
def test_what_a_step_overwrote_is_given_back(empty: Deployment, tmp_path: Path, up: str) -> None:
    runner = arranged(empty, tmp_path, up, some()).runner()
    before = things(empty)
    runner.up()
    overwritten = things(empty)

    runner.down("000")

    assert (overwritten != before, things(empty)) == (True, before)
    assert images(empty) == []
    assert list(empty.admin.compliance["pre_image_sets"].find()) == []
    (entry,) = empty.entries(**{"details.op": "restore", "details.is_done": True})
    assert (entry["details"]["documents"], entry["details"]["changed_since"]) == (11 * (1 + (up == TWICE)), 0)


def test_only_what_changes_is_kept_and_for_as_long_as_the_script_says(empty: Deployment, tmp_path: Path) -> None:
    arranged(empty, tmp_path, TRANSFORM, some(1)).runner().up()

    (image,) = images(empty)

    assert image["before"] == [{"path": "home.zip", "value": "0"}]  # n is 0, and stays 0
    assert image["expires_at"] - image["kept_at"] == timedelta(days=1)
    indexes = empty.admin.app["compliance_pre_images"].index_information()
    assert indexes["ttl_pre_image"]["expireAfterSeconds"] == 0
    assert {name: image[name] for name in ("collection", "document_id", "revision", "step")} == {
        "collection": "things",
        "document_id": 0,
        "revision": "v001_data_it",
        "step": 1,
    }


def test_what_somebody_changed_since_stays_and_is_told_of(empty: Deployment, tmp_path: Path) -> None:
    lines: list[str] = []
    runner = arranged(empty, tmp_path, WALK, some()).runner(report=lines.append)
    runner.up()
    app = empty.admin.app["things"]
    app.update_one({"_id": 3}, {"$set": {"n": 77}})
    app.update_one({"_id": 4}, {"$set": {"other": 1}})
    app.delete_one({"_id": 5})

    runner.down("000")

    found = {one["_id"]: one for one in things(empty)}
    assert found[3] == {"_id": 3, "n": 77, "home": {"city": "Ulm", "zip": "3"}}
    assert found[4] == {**some()[4], "other": 1}
    assert 5 not in found
    assert "  1 documents of things were changed since and stay as they are: 3" in lines
    assert [(image["document_id"], image["left"]) for image in images(empty)] == [(3, "changed")]


def test_a_document_that_is_filled_twice_gets_back_what_the_application_wrote_last(
    empty: Deployment, tmp_path: Path
) -> None:
    runner = arranged(empty, tmp_path, BACKFILL, some(3)).runner()
    runner.up()
    empty.admin.app["things"].replace_one({"_id": 1}, {"_id": 1, "n": 50, "old": "again"})
    runner.down("000")
    assert things(empty)[1] == {"_id": 1, "n": 50, "old": "again"}
    runner.up()

    runner.down("000")

    assert things(empty)[1] == {"_id": 1, "n": 50, "old": "again"}
    assert images(empty) == []


def test_a_document_whose_field_no_path_can_name_is_set_aside_unchanged(empty: Deployment, tmp_path: Path) -> None:
    up = f'ctx.walk("things", where={{}}, update=[{{"$replaceWith": {{"_id": "$_id"}}}}], keep_before={DAY})'
    runner = arranged(empty, tmp_path, up, [{"_id": 1, "a.b": 1}, {"_id": 2, "a": 1}]).runner()

    runner.up()

    assert things(empty) == [{"_id": 1, "a.b": 1}, {"_id": 2}]
    (aside,) = empty.admin.compliance["set_aside"].find()
    assert (aside["document_id"], aside["code"]) == (1, 57)


@pytest.mark.parametrize("length", ["timedelta(days=91)", "timedelta(seconds=59)", "timedelta(days=-1)"])
def test_nothing_is_kept_for_ever(empty: Deployment, tmp_path: Path, length: str) -> None:
    runner = arranged(empty, tmp_path, WALK.replace(DAY, length), some(1)).runner()

    with pytest.raises(StepFailed, match="from 0:01:00 to 90 days"):
        runner.up()

    assert things(empty) == [dict(sorted(one.items())) for one in some(1)]


def test_what_has_expired_is_not_given_back_by_half(empty: Deployment, tmp_path: Path) -> None:
    runner = arranged(empty, tmp_path, WALK, some()).runner()
    runner.up()
    empty.admin.compliance["pre_image_sets"].update_one({}, {"$set": {"expires_at": AGO}})
    before = things(empty)

    with pytest.raises(StepFailed, match="was kept until"):
        runner.down("000")

    assert things(empty) == before
    assert empty.entries(action="migration.reverting") == []  # refused before it began


def test_the_server_removes_what_has_expired(empty: Deployment, tmp_path: Path) -> None:
    arranged(empty, tmp_path, WALK, some(3)).runner().up()
    with parameter(empty, "ttlMonitorSleepSecs", 1):
        empty.admin.app["compliance_pre_images"].update_many({"document_id": {"$lt": 2}}, {"$set": {"expires_at": AGO}})

        wait_until(lambda: len(images(empty)) == 1, timeout=30, what="expired ones go")


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("at", sampled(range(1, 9)))
def test_a_restoration_that_dies_is_finished_by_the_next_one(
    empty: Deployment,
    tmp_path: Path,
    at: int,
    committed: bool,  # noqa: FBT001
) -> None:
    deployment = arranged(empty, tmp_path, TWICE, some(), lease=timedelta(seconds=0.5))
    before = things(empty)
    deployment.runner().up()
    runner: Runner = deployment.runner(most_docs=4)
    with pytest.raises(Died):
        replace(runner, databases=mortal(runner.databases, at=at, committed=committed)).down("000")
    leave_the_lease_behind(empty.admin)

    down(deployment)

    assert (things(empty), images(empty)) == (before, [])


def down(deployment: Deployment) -> None:
    def is_down() -> bool:
        try:
            deployment.runner().down("000")
        except LockHeld:
            return False
        return True

    wait_until(is_down, timeout=30, what="a successor finishes")


def people(empty: Deployment, folder: Path, up: str, collection: str = "users") -> Deployment:
    """Two people of the reference data map, and one script."""
    source = SCRIPT.replace("UP", up).replace('ctx.restore("things")', f'ctx.restore("{collection}")')
    scripts = write_scripts(folder / "scripts", {"v001_data_it.py": source})
    deployment = empty.with_settings(migrations=scripts, batch_docs=1)
    deployment.runner().up("000")
    empty.admin.app["users"].insert_many(
        [{"_id": ANN, "email": "Ann@example.org"}, {"_id": BOB, "email": "Bob@example.org"}]
    )
    return deployment


def erase(deployment: Deployment, request_id: str = "r-1") -> None:
    job = deployment.run("erasure.request", {"subject_id": str(ANN)}, request_id)
    assert (job.state, deployment.entries(action="erasure.residual_found")) == ("done", [])


def residual(deployment: Deployment) -> tuple[str, ...]:
    services = deployment.services()
    scope = Scope(databases=services.databases, data_map=services.data_map, subject_id=ANN, trust=services.trust)
    return CHECKS["no_residual"](scope).problems


class Meddling(Databases):
    """Databases beside whose n-th transaction something else begins, while that holds what it wrote."""

    def __init__(self, databases: Databases, at: int, deed: Callable[[], object]) -> None:
        super().__init__(databases.client, databases.name, databases.participant)
        object.__setattr__(self, "waiting", {at: deed})
        object.__setattr__(self, "calls", [])

    waiting: dict[int, Callable[[], object]]
    calls: list[None]

    def transact(self, work: Callable[[Session], Any]) -> Any:
        self.calls.append(None)
        deed = self.waiting.pop(len(self.calls), None)
        if deed is None:
            return super().transact(work)
        with ThreadPoolExecutor(1) as pool:
            begun: list[Future[object]] = []

            def meddled(session: Session) -> Any:
                found = work(session)
                begun[:] = begun or [pool.submit(deed)]
                wait(begun, timeout=0.3)
                return found

            found = super().transact(meddled)
            begun[0].result()
            return found


USERS = f'ctx.walk("users", where={{}}, update=[{{"$set": {{"email": {{"$toLower": "$email"}}}}}}], keep_before={DAY})'
NOTES = USERS.replace('"users"', '"notes"').replace("email", "text")


def test_who_is_erased_between_up_and_down_does_not_come_back(empty: Deployment, tmp_path: Path) -> None:
    deployment = people(empty, tmp_path, USERS)
    deployment.runner().up()
    assert {image["document_id"] for image in images(empty)} == {ANN, BOB}

    erase(deployment)

    assert [image["document_id"] for image in images(empty)] == [BOB]
    deployment.runner().down("000")
    assert things(empty, "users") == [{"_id": BOB, "email": "Bob@example.org"}]
    assert residual(deployment) == ()


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("at", sampled(range(1, 6), each=2))
def test_who_is_erased_while_it_runs_does_not_come_back(empty: Deployment, tmp_path: Path, way: str, at: int) -> None:
    deployment = people(empty, tmp_path, USERS)
    if way == "down":
        deployment.runner().up()
    runner: Runner = deployment.runner(most_docs=1)
    databases = Meddling(runner.databases, at, lambda: erase(deployment))

    meddled = replace(runner, databases=databases)
    meddled.up() if way == "up" else meddled.down("000")

    email = "bob@example.org" if way == "up" else "Bob@example.org"
    assert (databases.waiting, things(empty, "users")) == ({}, [{"_id": BOB, "email": email}])
    assert [image["document_id"] for image in images(empty)] == ([BOB] if way == "up" else [])
    assert residual(deployment) == ()


def test_an_address_in_what_was_overwritten_is_found_wherever_it_stood(empty: Deployment, tmp_path: Path) -> None:
    up = f'ctx.walk("notes", where={{}}, update={{"$set": {{"text": "-"}}}}, keep_before={DAY})'
    deployment = people(empty, tmp_path, up, "notes")
    empty.admin.app["notes"].insert_many([{"_id": 1, "text": "ask ann@EXAMPLE.org"}, {"_id": 2, "text": "nobody"}])
    deployment.runner().up()

    erase(deployment)

    assert [image["document_id"] for image in images(empty)] == [2]
    (entry,) = deployment.entries(**{"details.collection": "compliance_pre_images"})
    assert (entry["action"], entry["details"]["documents"]) == ("erasure.batch", 1)
    deployment.runner().down("000")
    assert things(empty, "notes") == [{"_id": 1, "text": "-"}, {"_id": 2, "text": "nobody"}]


def test_an_id_in_what_was_overwritten_is_what_a_check_finds(empty: Deployment, tmp_path: Path) -> None:
    deployment = people(empty, tmp_path, USERS)
    erase(deployment)

    empty.admin.app["compliance_pre_images"].insert_one({"collection": "notes", "before": [{"value": str(ANN)}]})

    assert residual(deployment) == ("1 documents of compliance_pre_images hold an identifier of an erased person",)


def test_what_was_overwritten_in_a_document_that_is_gone_goes_with_the_next_erasure(
    empty: Deployment, tmp_path: Path
) -> None:
    deployment = people(empty, tmp_path, NOTES, "notes")
    empty.admin.app["notes"].insert_many([{"_id": 1, "text": "At the Sea"}, {"_id": 2, "text": "At Home"}])
    deployment.runner().up()
    empty.admin.app["notes"].delete_one({"_id": 1})

    erase(deployment)

    assert [image["document_id"] for image in images(empty)] == [2]


def test_what_names_an_erased_person_is_not_put_back_even_where_it_was_kept(empty: Deployment, tmp_path: Path) -> None:
    deployment = people(empty, tmp_path, NOTES, "notes")
    empty.admin.app["notes"].insert_many([{"_id": 1, "text": f"AB{ANN}"}, {"_id": 2, "text": "Nobody"}])
    deployment.runner().up()
    kept = images(empty)
    empty.admin.app["notes"].update_one({"_id": 1}, {"$set": {"text": "-"}})
    erase(deployment)
    stale = kept[0] | {"after": digest({"text": "-"}, ["text"])}
    empty.admin.app["compliance_pre_images"].insert_one(stale)  # as from a backup

    deployment.runner().down("000")

    assert things(empty, "notes") == [{"_id": 1, "text": "-"}, {"_id": 2, "text": "Nobody"}]
    assert images(empty) == []


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.SENDER, Role.SEALER])
def test_nobody_writes_and_the_auditor_does_not_read_what_was_overwritten(deployment: Deployment, role: Role) -> None:
    databases = connect(deployment.addresses, role, app_name="test")
    kept = databases.app["compliance_pre_images"]

    with databases.client:
        with pytest.raises(OperationFailure, match="not authorized"):
            kept.delete_many({})
        if role is not Role.SEALER:  # it follows the application's data, and so reads it all
            with pytest.raises(OperationFailure, match="not authorized"):
                kept.find_one({})
