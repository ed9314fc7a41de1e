"""Steps of a script that are no batches: one transaction, a look, a gate, and what the engine knows nothing of."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment
from faults import Died, mortal
from migrated import leave_the_lease_behind, succeeds, write_scripts
from waiting import wait_until

from compliance.audit.entry import Cause
from compliance.audit.log import AuditLog
from compliance.clock import SystemClock
from compliance.errors import ExitCode, GateClosed, InvalidPayload, MigrationError, StepFailed, StepRefused
from migrations.ops.gate import approve
from migrations.runner import Runner


def script(empty: Deployment, folder: Path, *calls: str, functions: str = "", **changes: Any) -> Runner:
    """A runner of one script that makes *calls*."""
    body = "\n".join(f"            {call}" for call in calls)
    source = f'''
        """Steps."""


        def up(ctx):
            """Them."""
{body}


        {functions}


        def down(ctx):
            """Nothing."""
    '''
    scripts = write_scripts(folder / "scripts", {"v001_data_it.py": source})
    return empty.with_settings(migrations=scripts, lease=timedelta(seconds=0.3)).runner(**changes)


MOVE = """def move(tx):
            found = tx.find("things", {"n": 1}, fields=("n",))
            tx.insert("others", *({"_id": one["_id"], "n": one["n"]} for one in found))
            tx.update("things", {"n": 2}, {"$inc": {"n": 40}})
            tx.delete("things", {"n": 1})
"""


def fill(empty: Deployment) -> None:
    empty.admin.app["things"].insert_many([{"_id": n, "n": n % 3, "more": "x"} for n in range(6)])


def everything(empty: Deployment) -> Mapping[str, list[tuple[int, int]]]:
    app = empty.admin.app
    return {
        name: [(one["_id"], one["n"]) for one in app[name].find({}, sort={"_id": 1})] for name in ("things", "others")
    }


MOVED = {"things": [(0, 0), (2, 42), (3, 0), (5, 42)], "others": [(1, 1), (4, 1)]}


def test_an_atomic_step_is_one_transaction_with_its_counts_in_the_audit_log(empty: Deployment, tmp_path: Path) -> None:
    fill(empty)

    script(empty, tmp_path, 'ctx.atomic("move", move)', functions=MOVE).up()

    assert everything(empty) == MOVED
    (entry,) = empty.entries(**{"details.op": "atomic"})
    assert entry["details"] == {"op": "atomic", "inserted": 2, "updated": 2, "deleted": 2}


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_atomic_step_happens_once_when_the_runner_dies_at_its_commit(
    empty: Deployment, tmp_path: Path, moment: str
) -> None:
    fill(empty)
    calls = ('ctx.atomic("move", move)', 'ctx.verify("things", none={"n": 1})')
    runner = script(empty, tmp_path, *calls, functions=MOVE)
    deployment = empty.with_settings(migrations=tmp_path / "scripts", lease=timedelta(seconds=0.3))
    databases = mortal(runner.databases, at=0, committed=False)
    transactions = count_until_atomic(empty, runner, databases)

    assert transactions is not None
    if moment == "before":
        assert everything(empty)["others"] == []
    leave_the_lease_behind(empty.admin)
    wait_until(lambda: succeeds(deployment), timeout=20, what="the lease of the dead runner ends")

    assert everything(empty) == MOVED


def count_until_atomic(empty: Deployment, runner: Runner, databases: Any) -> int | None:
    """Die at the first transaction after the script has begun."""

    def should_stop() -> bool:
        if empty.admin.compliance["migration_history"].find_one({"revision": "v001_data_it"}) is not None:
            raise Died
        return False

    with pytest.raises(Died):
        replace(runner, databases=databases, should_stop=should_stop).up()
    return int(databases.fate.calls)


def test_a_dry_run_of_an_atomic_step_counts_hides_what_it_read_and_writes_nothing(
    empty: Deployment, tmp_path: Path
) -> None:
    fill(empty)
    before = everything(empty)

    planned = script(empty, tmp_path, 'ctx.atomic("move", move)', functions=MOVE).preview().scripts[-1]

    assert everything(empty) == before
    (step,) = planned.steps
    assert step.notes == ["2 documents inserted", "2 documents updated", "2 documents deleted"]
    assert [command.body for command in step.commands] == [
        {"insert": "others", "documents": [{"_id": "<int>", "n": "<int>"}] * 2},
        {"update": "things", "updates": [{"q": {"n": "<int>"}, "u": {"$inc": {"n": "<int>"}}, "multi": True}]},
        {"delete": "things", "deletes": [{"q": {"n": "<int>"}, "limit": 0}]},
    ]
    assert all(command.in_transaction and command.is_masked for command in step.commands)


def test_an_atomic_step_that_is_refused_changes_nothing(empty: Deployment, tmp_path: Path) -> None:
    fill(empty)
    empty.admin.app["others"].insert_one({"_id": 4, "n": 9})

    with pytest.raises(StepRefused, match="MongoDB refused an operation"):
        script(empty, tmp_path, 'ctx.atomic("move", move)', functions=MOVE).up()

    assert everything(empty)["things"] == [(n, n % 3) for n in range(6)]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ('none={"n": 7}', None),
        ('none={"n": 1}', r"^2 documents of things are not as they should be: 1, 4$"),
        ("none={}", r"^6 documents of things .*: 0, 1, 2, 3, 4 and 1 more$"),
        ('count={"where": {"n": 1}, "exactly": 2}', None),
        ('count={"where": {"n": 1}, "exactly": 3}', "^things holds 2 such documents, and should hold exactly 3$"),
        ('count={"at_least": 6, "at_most": 6}', None),
        ('count={"at_least": 7}', "holds 6 such documents, and should hold at least 7"),
        ('count={"at_most": 5}', "holds 6 such documents, and should hold at most 5"),
    ],
)
def test_a_verification_stops_the_script_where_the_data_is_not_as_it_says(
    empty: Deployment, tmp_path: Path, arguments: str, fault: str | None
) -> None:
    fill(empty)
    runner = script(empty, tmp_path, f'ctx.verify("things", {arguments})')

    if fault is None:
        runner.up()
        assert runner.pending() == ()
    else:
        with pytest.raises(StepFailed, match=fault):
            runner.up()


@pytest.mark.parametrize("arguments", ["", "none={}, count={}", 'count={"of": {}}'])
def test_a_verification_that_asks_nothing_or_too_much_is_refused(
    empty: Deployment, tmp_path: Path, arguments: str
) -> None:
    with pytest.raises(MigrationError, match="verify of things: give none="):
        script(empty, tmp_path, f'ctx.verify("things", {arguments})').up()


def test_a_gate_ends_the_run_until_a_person_approves_and_asks_for_another_one_next_time(
    empty: Deployment, tmp_path: Path
) -> None:
    runner = script(empty, tmp_path, 'ctx.gate("contract", approval=True, wait_seconds=0)')

    for _ in range(2):
        with pytest.raises(GateClosed, match=r"v001_data_it waits at gate contract for `compliance migrate approve"):
            runner.up()
        approve_contract(runner)
        runner.up()
        assert runner.pending() == ()
        runner.down("zero")

    approvals = list(empty.admin.compliance["migration_approvals"].find())
    assert [one["used_by"] for one in approvals] == ["v001_data_it"] * 2
    assert [one["details"] for one in empty.entries(action="migration.approved")] == [
        {"gate": "contract", "revision": "v001_data_it", "reason": "all are on release 12"}
    ] * 2


def test_an_approval_opens_the_gate_of_the_script_that_waits_and_of_no_other(empty: Deployment, tmp_path: Path) -> None:
    call = 'ctx.gate("contract", approval=True, wait_seconds=0)'
    runner = script(empty, tmp_path, call)
    with pytest.raises(GateClosed, match="no migration waits at gate contract; run `compliance migrate up` first"):
        approve_contract(runner)
    for _ in range(2):
        with pytest.raises(GateClosed, match="v001_data_it waits at gate contract"):
            runner.up()
    approve_contract(runner)
    runner.down("zero")  # half applied, and approved
    with pytest.raises(GateClosed, match="v001_data_it waits at gate contract"):
        runner.up()
    approve_contract(runner)
    folder = tmp_path / "scripts"
    (folder / "v002_data_it.py").write_text((folder / "v001_data_it.py").read_text())

    with pytest.raises(GateClosed, match="v002_data_it waits at gate contract"):
        empty.with_settings(migrations=folder).runner().up()

    assert runner.history.past().applied.keys() == {"v000_pre_foundation", "v001_data_it"}
    used = [(one["revision"], one.get("used_by")) for one in empty.admin.compliance["migration_approvals"].find()]
    assert used == [("v001_data_it", None), ("v001_data_it", "v001_data_it")]


def approve_contract(runner: Runner, *, reason: str = "all are on release 12") -> None:
    log = AuditLog(runner.databases, Cause(channel="test"))
    approve(runner.databases, log, name="contract", reason=reason, by="test", clock=SystemClock())


@pytest.mark.parametrize("reason", ["", "  ", "ask mara@example.org"])
def test_an_approval_without_a_reason_is_refused(deployment: Deployment, reason: str) -> None:
    with pytest.raises(InvalidPayload, match="needs a reason"):
        approve_contract(deployment.runner(), reason=reason)

    assert deployment.admin.compliance["migration_approvals"].count_documents({}) == 0


def test_a_gate_opens_when_its_condition_holds(empty: Deployment, tmp_path: Path) -> None:
    runner = script(
        empty,
        tmp_path,
        'ctx.gate("filled", until=is_filled, wait_seconds=0)',
        functions='def is_filled(database):\n            return database["things"].count_documents({}) == 6\n',
    )
    with pytest.raises(GateClosed, match="gate filled for its condition") as closed:
        runner.up()
    assert closed.value.exit_code is ExitCode.TEMPORARY
    fill(empty)

    runner.up()

    assert runner.pending() == ()


@pytest.mark.parametrize("arguments", ["", "until=print, approval=True"])
def test_a_gate_waits_for_one_thing(empty: Deployment, tmp_path: Path, arguments: str) -> None:
    with pytest.raises(MigrationError, match="gate g: give until=condition or approval=True"):
        script(empty, tmp_path, f'ctx.gate("g", {arguments})').up()


OPAQUE = 'def fill(database):\n            database["things"].insert_one({"_id": 1})\n'


def test_an_opaque_step_runs_with_its_reason_in_the_audit_log(empty: Deployment, tmp_path: Path) -> None:
    script(empty, tmp_path, 'ctx.python("fill", fill, reason="no other step inserts")', functions=OPAQUE).up()

    assert empty.admin.app["things"].count_documents({}) == 1
    (entry,) = empty.entries(**{"details.op": "python"})
    assert entry["details"]["reason"] == "no other step inserts"


def test_an_opaque_step_without_a_reason_or_in_a_dry_run_does_nothing(empty: Deployment, tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="say in reason="):
        script(empty, tmp_path, 'ctx.python("fill", fill, reason=" ")', functions=OPAQUE).up()
    script(empty, tmp_path, 'ctx.python("fill", fill, reason="why")', functions=OPAQUE).up(dry_run=True)

    assert empty.admin.app["things"].count_documents({}) == 0


def test_documents_that_were_set_aside_are_tried_again(empty: Deployment, tmp_path: Path) -> None:
    app = empty.admin.app["things"]
    app.insert_many([{"_id": n, "n": "text" if n in {1, 3} else 0} for n in range(5)])
    calls = (
        'ctx.backfill("things", where={"seen": {"$exists": False}}, update={"$inc": {"n": 1}, "$set": {"seen": 1}})',
        'ctx.walk("things", where={}, update={"$inc": {"n": 10}})',
    )
    runner = script(empty, tmp_path, *calls)
    done = runner.up()
    assert runner.count_set_aside(done) == 4

    assert runner.retry_set_aside() == (0, 4)
    app.update_one({"_id": 1}, {"$set": {"n": 0}})
    assert runner.retry_set_aside() == (2, 2)
    app.update_one({"_id": 3}, {"$set": {"n": 0}})
    assert runner.retry_set_aside() == (2, 0)
    assert runner.retry_set_aside() == (0, 0)

    assert [one["n"] for one in app.find({}, sort={"_id": 1})] == [11] * 5


def unsettled(empty: Deployment) -> list[Any]:
    found = empty.admin.compliance["set_aside"].find({"settled_at": {"$exists": False}}, sort={"_id": 1})
    return [one["passage"] for one in found]


def test_what_was_set_aside_ends_with_the_script_and_another_up_begins_clean(empty: Deployment, tmp_path: Path) -> None:
    app = empty.admin.app["things"]
    app.insert_many([{"_id": 1, "n": "text"}, {"_id": 2, "n": 0}])
    seen = 'where={"seen": {"$exists": False}}, update={"$inc": {"n": 1}, "$set": {"seen": 1}}'
    runner = script(empty, tmp_path, f'ctx.backfill("things", {seen})')
    runner.up()
    (first,) = unsettled(empty)

    runner.down("zero")
    assert unsettled(empty) == []
    (settled,) = empty.admin.compliance["set_aside"].find()
    assert (settled["settled_because"], settled["settled_at"] is not None) == ("reverted", True)
    runner.up()
    (second,) = unsettled(empty)
    with pytest.raises(Died):
        replace(runner, databases=mortal(runner.databases, at=1, committed=True)).down("zero")
    assert unsettled(empty) == [second]
    app.update_one({"_id": 1}, {"$set": {"n": 0}})
    done = runner.up()

    assert first != second
    assert (unsettled(empty), runner.count_set_aside(done)) == ([], 0)
    assert app.find_one({"_id": 1}) == {"_id": 1, "n": 1, "seen": 1}
    because = [one["settled_because"] for one in empty.admin.compliance["set_aside"].find({}, sort={"_id": 1})]
    assert because == ["reverted", "begun again"]
