"""What a rebuilding leaves behind that died, slept or was outrun: the next one, or a person, settles it."""

import importlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from deployment import Deployment
from every import sampled
from faults import Died, mortal
from migrated import leave_the_lease_behind, write_scripts
from pymongo.errors import WriteError
from remade import (
    MAKE,
    PLACES,
    SCRIPT,
    arranged,
    assert_nothing_lost,
    beside,
    control,
    is_done,
    names,
    some,
    things,
    writing,
)
from shaped import NAME, shaped
from waiting import wait_until

from compliance.erasure import frozen, verify
from compliance.errors import (
    GateClosed,
    LeaseLost,
    LockHeld,
    RejectedError,
    RevisionMissing,
    StepFailed,
    StoreUnavailable,
)
from migrations import command
from migrations.ledger import lease
from migrations.ops.rebuild import freeze, going, put_back
from migrations.ops.rebuild.changes import HistoryLost
from migrations.ops.rebuild.exchange import Exchange
from migrations.ops.rebuild.following import Following
from migrations.ops.rebuild.going import Rebuilding
from migrations.refused import Rescue, find_abandoned
from migrations.runner import Runner
from migrations.wish import Wish

recovering = importlib.import_module("migrations.ops.rebuild.recover")  # its package names the function alike


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("at", sampled(range(3, 15), each=4))
def test_who_dies_is_followed_by_one_who_lets_writes_in_and_goes_on(
    empty: Deployment,
    tmp_path: Path,
    at: int,
    committed: bool,  # noqa: FBT001
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some(), lease=timedelta(seconds=0.5))
    with writing(empty, writers=1) as wanted:
        runner: Runner = deployment.runner(most_docs=4)
        with suppress(Died):
            replace(runner, databases=mortal(runner.databases, at=at, committed=committed)).up()
        leave_the_lease_behind(empty.admin)
        wait_until(lambda: is_done(deployment), timeout=30, what="a successor finishes")

    assert_nothing_lost(empty, wanted)
    assert names(empty) == {"things"}


def die_while_writes_are_refused(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(Exchange, "_rename", die)
        with pytest.raises(Died):
            deployment.runner().up()


def test_who_dies_while_writes_are_refused_is_followed_by_whoever_migrates_next(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some(), lease=timedelta(seconds=0.5))

    die_while_writes_are_refused(deployment, monkeypatch)
    with pytest.raises(WriteError):
        empty.admin.app["things"].insert_one({"_id": 50})
    (exchanging,) = names(empty) - {"things"}
    leave_the_lease_behind(empty.admin)

    def is_down() -> bool:
        with suppress(LockHeld):
            deployment.runner().down("000")
            return True
        return False

    wait_until(is_down, timeout=30, what="the next one")

    assert exchanging.startswith("things_shadow_")
    empty.admin.app["things"].insert_one({"_id": 50})
    assert names(empty) == {"things"}


def test_writes_are_let_in_again_though_the_script_is_gone(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a rollback of the code: what is wrong with scripts is said afterwards."""
    deployment = arranged(empty, tmp_path, MAKE, some(), lease=timedelta(seconds=0.5))

    die_while_writes_are_refused(deployment, monkeypatch)
    leave_the_lease_behind(empty.admin)
    (tmp_path / "scripts" / "v001_data_it.py").unlink()

    def is_refused() -> bool:
        with suppress(LockHeld):
            with pytest.raises(RevisionMissing):
                deployment.runner().up()
            return True
        return False

    wait_until(is_refused, timeout=30, what="the next one")
    empty.admin.app["things"].insert_one({"_id": 50})


def test_too_small_a_budget_lets_writes_in_again_and_the_next_run_goes_on(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())
    lines: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(Following, "left", lambda _: timedelta())
        with pytest.raises(GateClosed, match="3 times; writes go on, and things_shadow stays"):
            deployment.runner(report=lines.append).up()
    empty.admin.app["things"].insert_one({"_id": 50, "n": 1, "m": 1})
    assert names(empty) == {"things", "things_shadow"}

    deployment.runner(report=lines.append).up()

    assert things(empty)[50] == {"_id": 50, "n": 1, "m": 1, "total": 2}
    assert sum("copy about" in line for line in lines) == 2
    assert names(empty) == {"things"}


@pytest.mark.parametrize("method", PLACES)
def test_who_is_erased_while_it_is_rebuilt_is_in_neither(
    empty: Deployment, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = 'ctx.rebuild("users", pipeline=[{"$set": {"seen": True}}])'
    deployment = arranged(empty, tmp_path, up, [])
    ann, bob = ObjectId("65e5f0a1b2c3d4e5f6a7b8c1"), ObjectId("65e5f0a1b2c3d4e5f6a7b8c2")
    people = [{"_id": ann, "email": "ann@example.org"}, {"_id": bob, "email": "bob@example.org"}]
    empty.admin.app["users"].insert_many(people)

    def erase() -> None:
        deployment.run("erasure.request", {"subject_id": str(ann)})

    with beside(method, erase, monkeypatch):
        deployment.runner().up()

    def is_erased() -> bool:  # in the moment of the exchange it is tried again
        return deployment.carry_out("erasure.request", {"subject_id": str(ann)}).state == "done"

    wait_until(is_erased, timeout=60, what="the erasure")
    assert [one["_id"] for one in empty.admin.app["users"].find()] == [bob]
    assert "users_shadow" not in empty.admin.app.list_collection_names()
    assert deployment.entries(action="erasure.residual_found") == []


def test_what_is_removed_from_the_copy_is_asked_of_the_collection(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())

    with beside("go", lambda: empty.admin.app["things_shadow"].delete_many({"_id": {"$lt": 5}}), monkeypatch):
        deployment.runner().up()

    assert sorted(things(empty)) == list(range(11))


def test_what_is_deleted_at_the_last_moment_is_deleted_behind_it(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())

    with beside("_rename", lambda: empty.admin.app["things"].delete_one({"_id": 3}), monkeypatch):
        deployment.runner().up()

    assert 3 not in things(empty)
    (entry,) = empty.entries(**{"details.op": "rebuild", "details.is_done": True})
    assert entry["details"]["deleted_late"] == 1


def test_what_is_written_past_the_validator_at_the_last_moment_is_told(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())
    lines: list[str] = []

    def bypass() -> None:
        empty.admin.app["things"].update_one({"_id": 3}, {"$set": {"m": 9}}, bypass_document_validation=True)

    with beside("_rename", bypass, monkeypatch):
        deployment.runner(report=lines.append).up()

    assert things(empty)[3]["m"] == 1
    assert any("1 documents of things were written past the validator" in line for line in lines)


def overtake(empty: Deployment, deed: Callable[[], object]) -> None:
    """Take the lease from whoever has it and cannot renew it, and do something in its place."""
    lease = {"state": "queued", "lease": None, "run_at": None}
    empty.admin.compliance["migration_lease"].update_one({"_id": "migrations"}, {"$set": lease})
    deed()


def sleep_before_writes_are_refused(
    deployment: Deployment, meanwhile: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let a runner lose its lease between its last look at it and the command that refuses writes."""
    slept: list[bool] = []

    def send(*arguments: Any) -> Any:
        if not slept:
            slept.append(True)
            overtake(deployment, meanwhile)
        return command.send(*arguments)

    monkeypatch.setattr(freeze, "send", send)
    with pytest.raises(LeaseLost):
        deployment.runner().up()
    assert slept


def is_let_in(empty: Deployment, id_: int = 50) -> bool:
    with suppress(WriteError):
        empty.admin.app["things"].insert_one({"_id": id_, "n": id_, "m": 1})
        return True
    return False


RULES = {"validator": {"n": {"$gte": 0}}, "validationLevel": "moderate", "validationAction": "error"}


def test_who_slept_past_its_lease_before_it_refused_writes_lets_them_in_again(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())
    empty.admin.app.command("collMod", "things", **RULES)
    successor = deployment.runner()

    sleep_before_writes_are_refused(deployment, successor.let_writes_in, monkeypatch)

    assert empty.admin.app["things"].options() == RULES
    assert is_let_in(empty)
    (entry,) = empty.entries(**{"details.op": "thaw", "details.recorded": False})
    assert entry["details"]["collection"] == "things"


def test_who_slept_past_its_lease_refuses_nothing_of_the_copy_that_took_the_place(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())

    sleep_before_writes_are_refused(deployment, deployment.runner().up, monkeypatch)

    assert things(empty)[3] == {"_id": 3, "n": 3, "m": 1, "total": 4}
    assert is_let_in(empty)
    assert empty.entries(**{"details.op": "thaw", "details.recorded": False}) == []


def leave_writes_refused_without_a_record(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, *, meanwhile: Callable[[], object]
) -> None:
    """Let a runner sleep past its lease, refuse writes, and die before it looks."""

    def die(*_: object, **__: object) -> None:
        raise LeaseLost("it died")

    with monkeypatch.context() as patched:
        patched.setattr(freeze, "put_back", die)
        patched.setattr(going, "put_back", die)
        sleep_before_writes_are_refused(deployment, meanwhile, patched)
    assert not is_let_in(deployment)
    assert "frozen" not in control(deployment)


def test_writes_that_are_refused_without_a_record_are_let_in_by_whoever_migrates_next(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())
    empty.admin.app.command("collMod", "things", **RULES)

    leave_writes_refused_without_a_record(deployment, monkeypatch, meanwhile=deployment.runner().let_writes_in)
    assert frozen.is_frozen(deployment.services().databases)
    deployment.runner().let_writes_in()

    assert empty.admin.app["things"].options() == RULES
    assert is_let_in(empty)


def test_who_is_asked_to_put_back_what_another_lease_refuses_leaves_it(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some(), lease=timedelta(seconds=0.5))
    die_while_writes_are_refused(deployment, monkeypatch)
    (refused,) = frozen.find_frozen(deployment.admin)
    databases = deployment.runner().databases

    assert not put_back(databases, "things", fence=refused.fence, actor="test")  # it is recorded
    empty.admin.compliance["migration_control"].update_one({"_id": "rebuild:things"}, {"$unset": {"frozen": ""}})
    assert not put_back(databases, "things", fence=refused.fence - 1, actor="test")
    assert not is_let_in(empty)
    assert put_back(databases, "things", fence=refused.fence, actor="test")
    assert is_let_in(empty)


def test_nothing_is_exchanged_where_somebody_let_writes_in(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As who recovers, sleeps past its lease, and sends its command late."""
    deployment = arranged(empty, tmp_path, MAKE, some())
    lines: list[str] = []

    def meddle() -> None:
        empty.admin.app.command("collMod", "things", validator={})
        empty.admin.app["things"].update_one({"_id": 3}, {"$set": {"m": 9}})

    with beside("_name_by_fence", meddle, monkeypatch):
        deployment.runner(report=lines.append).up()

    assert things(empty)[3] == {"_id": 3, "n": 3, "m": 9, "total": 12}
    assert sum("writes are let in again" in line for line in lines) >= 1


def test_an_exchange_of_which_the_oplog_tells_nothing_any_more_is_accepted_by_a_person(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())

    def die(*_: object, **__: object) -> None:
        raise Died

    def lost(*_: object, **__: object) -> None:
        raise HistoryLost("it does not reach back")

    with monkeypatch.context() as patched:
        patched.setattr(Rebuilding, "_settle", die)
        with pytest.raises(Died):
            deployment.runner().up()
    with pytest.raises(RejectedError, match="no exchange of others waits"):
        deployment.runner().accept_exchange("others", reason="nobody deletes there")
    with pytest.raises(StoreUnavailable, match="a migration exchanges things"):
        frozen.require_rest(deployment.services().databases)
    monkeypatch.setattr(recovering, "follow", lost)

    with pytest.raises(StepFailed, match="migrate repair --exchange things --reason TEXT"):
        deployment.runner().up()
    assert deployment.runner().accept_exchange("things", reason="nobody deletes there")
    deployment.runner().up()

    assert control(empty)["is_over"]
    assert "frozen" not in control(empty)
    (entry,) = empty.entries(**{"details.op": "accept_exchange"})
    assert (entry["details"]["collection"], entry["details"]["reason"]) == ("things", "nobody deletes there")
    with pytest.raises(RejectedError):
        deployment.runner().accept_exchange("things", reason="nobody deletes there")


def test_an_exchange_that_the_oplog_tells_of_is_settled_instead_of_accepted(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())

    def die(*_: object, **__: object) -> None:
        raise Died

    with monkeypatch.context() as patched, beside("_rename", lambda: delete_one(empty, 3), monkeypatch):
        patched.setattr(Rebuilding, "_settle", die)
        with pytest.raises(Died):
            deployment.runner().up()

    assert not deployment.runner().accept_exchange("things", reason="nobody deletes there")
    assert 3 not in things(empty)


def delete_one(empty: Deployment, id_: int) -> None:
    empty.admin.app["things"].delete_one({"_id": id_})


def test_a_look_through_collections_counts_for_nothing_where_one_was_exchanged_meanwhile(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())
    databases = deployment.services().databases
    before = frozen.require_rest(databases)
    frozen.require_same(databases, before)

    with monkeypatch.context() as patched:
        patched.setattr(Following, "left", lambda _: timedelta())
        with pytest.raises(GateClosed):
            deployment.runner().up()
    with pytest.raises(StoreUnavailable, match="exchanged while it was looked through"):
        frozen.require_same(databases, before)  # it was begun, and the copy had another name
    before = frozen.require_rest(databases)
    deployment.runner().up()

    with pytest.raises(StoreUnavailable, match="exchanged while it was looked through"):
        frozen.require_same(databases, before)
    frozen.require_same(databases, frozen.require_rest(databases))


def test_an_erasure_looks_again_where_a_copy_takes_the_place_while_it_looks(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some(3))
    ann = ObjectId("65e5f0a1b2c3d4e5f6a7b8c1")
    empty.admin.app["users"].insert_one({"_id": ann, "email": "ann@example.org"})
    looked, sweep = [], verify.sweep

    def swept(*arguments: Any, **named: Any) -> dict[str, int]:
        if not looked:
            deployment.runner().up()
        looked.append(True)
        return sweep(*arguments, **named)

    monkeypatch.setattr(verify, "sweep", swept)

    first = deployment.carry_out("erasure.request", {"subject_id": str(ann)})
    assert first.state == "queued"
    wait_until(
        lambda: deployment.carry_out("erasure.request", {"subject_id": str(ann)}).state == "done",
        timeout=60,
        what="the erasure",
    )
    assert len(looked) > 2


def test_a_collection_of_an_open_online_change_is_not_rebuilt(empty: Deployment, tmp_path: Path) -> None:
    deployment = shaped(empty, tmp_path, people=3)
    deployment.runner().up()
    write_scripts(
        tmp_path / "scripts",
        {
            "v002_data_it.py": SCRIPT.replace("UP", 'ctx.rebuild("people", pipeline=[{"$unset": "other"}])').replace(
                "COUNTER = ", "DEPENDS_ON = ()\n        COUNTER = "
            )
        },
    )

    with pytest.raises(StepFailed, match=f"while its online change {NAME} is open"):
        deployment.runner().up(wish=Wish(only="v002_data_it"))

    assert "people_shadow" not in empty.admin.app.list_collection_names()


def test_an_online_change_of_a_collection_that_is_being_rebuilt_does_not_begin(
    empty: Deployment, tmp_path: Path
) -> None:
    deployment = shaped(empty, tmp_path, people=3)
    deployment.runner().up("000")
    record = {"_id": "rebuild:people", "collection": "people", "is_over": False, "source": None, "shadow": None}
    empty.admin.compliance["migration_control"].insert_one(record)

    with pytest.raises(StepFailed, match="people is being rebuilt: finish that"):
        deployment.runner().up()
    empty.admin.compliance["migration_control"].update_one({"_id": "rebuild:people"}, {"$set": {"is_over": True}})
    deployment.runner().up()

    assert empty.admin.app["people"].find_one({"first": {"$exists": False}}) is None


def rescue(deployment: Deployment, told: list[str]) -> Rescue:
    runner = deployment.runner()
    return Rescue(
        databases=runner.databases,
        clock=runner.clock,
        actor="reconciler",
        length=timedelta(seconds=5),
        should_stop=lambda: False,
        alarm=told.extend,
        told=lambda _: None,
        grace=timedelta(),
    )


def test_writes_that_stay_refused_are_let_in_by_the_process_that_always_runs_and_people_are_told_once(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some(), lease=timedelta(seconds=0.5))
    told: list[str] = []
    looking = rescue(deployment, told)
    looking.look()
    die_while_writes_are_refused(deployment, monkeypatch)
    leave_the_lease_behind(empty.admin)

    late = replace(looking, grace=timedelta(hours=1))
    late.look()
    assert told == []
    assert not is_let_in(empty)

    def is_rescued() -> bool:
        looking.look()
        return is_let_in(empty)

    wait_until(is_rescued, timeout=30, what="writes are let in")
    looking.look()

    assert told == ["things"]
    assert find_abandoned(deployment.services().databases) == ()
    (entry,) = empty.entries(**{"details.op": "thaw"})
    assert (entry["entity_id"], entry["performed_by"]) == ("recovery", "reconciler")
    deployment.runner().up()
    assert things(empty)[3]["total"] == 4


def test_writes_that_a_sleeper_refuses_are_let_in_while_somebody_else_migrates_for_long(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())
    told: list[str] = []
    leave_writes_refused_without_a_record(deployment, monkeypatch, meanwhile=deployment.runner().let_writes_in)
    runner = deployment.runner()
    other = lease(runner.databases, owner="other:1", clock=runner.clock, length=timedelta(seconds=20))

    with other:
        assert find_abandoned(deployment.services().databases) == ("things",)
        rescue(deployment, told).look()
        assert is_let_in(empty)

    assert told == ["things"]


def test_writes_that_a_living_runner_refuses_are_left_to_it(
    empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = arranged(empty, tmp_path, MAKE, some())
    told: list[str] = []
    found: list[object] = []

    def look() -> None:
        rescue(deployment, told).look()
        found.extend([find_abandoned(deployment.admin), is_let_in(empty)])

    with beside("_rename", look, monkeypatch):
        deployment.runner().up()

    assert (told, found) == ([], [(), False])
