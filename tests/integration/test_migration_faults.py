"""A runner that dies anywhere, concurrent changes, and scripts that never end: every document exactly once."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from deployment import Deployment
from every import sampled
from faults import Died, mortal
from migrated import leave_the_lease_behind, schemas, succeeds, write_scripts
from waiting import wait_until

from compliance.errors import (
    AppliedStepEdited,
    StepFailed,
)
from compliance.foundation import OWN
from compliance.mongo import Databases, Document

SCRIPTS = {
    "v001_pre_things.py": '''
        """Things."""


        def up(ctx):
            """Create."""
            ctx.create_collection("things", schema={"bsonType": "object"}, level="moderate")
            ctx.create_index("things", "ix_thing_n", [("n", 1)])


        def down(ctx):
            """Drop."""
            ctx.drop_index("things", "ix_thing_n")
            ctx.drop_collection("things")
    ''',
    "v002_data_count.py": '''
        """Count every visit of a document."""

        TEN = 10


        def up(ctx):
            """Each twice: once by a guarded update, once by a walk that would count a repeat."""
            ctx.backfill("things", where={"seen": {"$exists": False}}, update={"$set": {"seen": 1}, "$inc": {"n": 1}})
            ctx.transform("things", where={}, fields=("n", "deep.n"), function=count)
            ctx.transform("things", where={}, fields=("deep.n",), function=count_deep)


        def count(document):
            if document["_id"] == 5:
                raise ValueError("five is set aside")
            return {"n": more(document["n"])}


        def more(number):
            return number + TEN


        def count_deep(document):
            return {"deep.n": document["deep"]["n"] + 1}


        def down(ctx):
            """Nothing."""
    ''',
}


def arrange_things(empty: Deployment, folder: Path) -> tuple[Databases, Deployment]:
    write_scripts(folder, SCRIPTS)
    admin = empty.admin
    admin.app["things"].insert_many([{"_id": n, "n": 0, "deep": {"n": 0}} for n in range(7)])
    return admin, empty.with_settings(migrations=folder, batch_docs=3, lease=timedelta(seconds=0.3))


def assert_done_once(admin: Databases) -> None:
    found = {document["_id"]: (document["n"], document["deep"]["n"]) for document in admin.app["things"].find()}
    assert found == {n: (1 if n == 5 else 11, 1) for n in range(7)}
    assert [item["document_id"] for item in admin.compliance["set_aside"].find()] == [5]
    assert set(admin.app["things"].index_information()) == {"_id_", "ix_thing_n"}


REPORTS = len(OWN) + sum(map(len, OWN.values())) + 7  # what the foundation creates, the scripts above, the rules


TRANSACTIONS = 21


@pytest.mark.parametrize("n", sampled(range(1, REPORTS + 1), each=6))
def test_a_runner_that_dies_between_two_steps_is_finished_by_the_next(
    empty: Deployment, tmp_path: Path, n: int
) -> None:
    admin, deployment = arrange_things(empty, tmp_path / "scripts")
    lines: list[str] = []

    def die(line: str) -> None:
        lines.append(line)
        if len(lines) == n:
            raise Died

    with pytest.raises(Died):
        deployment.runner(report=die, most_docs=3).up()
    leave_the_lease_behind(admin)

    wait_until(lambda: succeeds(deployment), timeout=20, what="the lease of the dead runner ends")
    assert_done_once(admin)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("n", sampled(range(1, TRANSACTIONS + 1), each=3))
def test_a_runner_that_dies_at_any_commit_is_finished_by_the_next(
    empty: Deployment, tmp_path: Path, n: int, moment: str
) -> None:
    admin, deployment = arrange_things(empty, tmp_path / "scripts")
    runner = deployment.runner(most_docs=3)

    with pytest.raises(Died):
        replace(runner, databases=mortal(runner.databases, at=n, committed=moment == "after")).up()
    leave_the_lease_behind(admin)

    wait_until(lambda: succeeds(deployment), timeout=20, what="the lease of the dead runner ends")
    assert_done_once(admin)


def test_the_deaths_above_are_all_there_are(empty: Deployment, tmp_path: Path) -> None:
    admin, deployment = arrange_things(empty, tmp_path / "scripts")
    lines: list[str] = []
    runner = deployment.runner(report=lines.append, most_docs=3, lease=timedelta(seconds=30))
    databases = mortal(runner.databases, at=0, committed=False)

    replace(runner, databases=databases).up()

    assert len(lines) == REPORTS
    assert databases.fate.calls == TRANSACTIONS
    assert_done_once(admin)


def interrupted(empty: Deployment, folder: Path, *, at: int) -> tuple[Databases, Deployment]:
    """Scripts that were interrupted at a transaction."""
    admin, deployment = arrange_things(empty, folder)
    runner = deployment.runner(most_docs=3)
    with pytest.raises(Died):
        replace(runner, databases=mortal(runner.databases, at=at, committed=True)).up()
    leave_the_lease_behind(admin)
    return admin, deployment


def edit(folder: Path, before: str, after: str) -> None:
    path = folder / "v002_data_count.py"
    source = path.read_text()
    assert source.count(before) == 1
    path.write_text(source.replace(before, after))


FIRST_WALK_DONE, FIRST_WALK_BEGUN, BACKFILL_DONE = 16, 13, 12


LAST_CALLS = """    ctx.transform("things", where={}, fields=("n", "deep.n"), function=count)
    ctx.transform("things", where={}, fields=("deep.n",), function=count_deep)
"""


@pytest.mark.parametrize(
    ("at", "before", "after"),
    [
        (BACKFILL_DONE, '"$set": {"seen": 1}', '"$set": {"seen": 2}'),
        (FIRST_WALK_BEGUN, 'fields=("n", "deep.n")', 'fields=("n",)'),
        (FIRST_WALK_DONE, '"n": more(document["n"])', '"n": 1 + more(document["n"])'),
        (FIRST_WALK_DONE, "number + TEN", "number + TEN + TEN"),
        (FIRST_WALK_BEGUN, "TEN = 10", "TEN = 20"),
        (FIRST_WALK_DONE, LAST_CALLS, ""),
    ],
    ids=[
        "a step that was done",
        "a step that was begun",
        "a function of a step that was done",
        "what that function calls",
        "a constant of a step that was begun",
        "steps that were done and are gone",
    ],
)
def test_the_half_that_was_carried_out_must_not_be_edited(
    empty: Deployment, tmp_path: Path, at: int, before: str, after: str
) -> None:
    admin, deployment = interrupted(empty, tmp_path / "scripts", at=at)
    text = (tmp_path / "scripts" / "v002_data_count.py").read_text()
    edit(tmp_path / "scripts", before, after)
    left = {document["_id"]: document for document in admin.app["things"].find()}
    told = admin.compliance["migration_history"].count_documents({})
    admin.compliance["migration_lease"].update_one({}, {"$set": {"state": "queued"}, "$unset": {"lease": 1}})

    with pytest.raises(AppliedStepEdited, match=r"^v002_data_count: .* restore it, or undo the script first; or, wh"):
        deployment.runner().up()

    assert {document["_id"]: document for document in admin.app["things"].find()} == left
    assert admin.compliance["migration_history"].count_documents({}) == told
    (tmp_path / "scripts" / "v002_data_count.py").write_text(text)
    deployment.runner().up()
    assert_done_once(admin)


def test_the_half_that_is_still_to_come_may_be_edited(empty: Deployment, tmp_path: Path) -> None:
    admin, deployment = interrupted(empty, tmp_path / "scripts", at=FIRST_WALK_DONE)
    edit(tmp_path / "scripts", 'document["deep"]["n"] + 1', 'document["deep"]["n"] + 7')

    wait_until(lambda: succeeds(deployment), timeout=20, what="the lease of the dead runner ends")

    found = {document["_id"]: (document["n"], document["deep"]["n"]) for document in admin.app["things"].find()}
    assert found == {n: (1 if n == 5 else 11, 7) for n in range(7)}


@pytest.mark.parametrize(
    ("at", "seen", "counted"), [(FIRST_WALK_DONE, 11, 1), (FIRST_WALK_BEGUN, 21, 1)], ids=["done", "begun"]
)
def test_a_person_may_answer_for_an_edited_half(
    empty: Deployment, tmp_path: Path, at: int, seen: int, counted: int
) -> None:
    admin, deployment = interrupted(empty, tmp_path / "scripts", at=at)
    edit(tmp_path / "scripts", "number + TEN", "number + TEN + TEN")
    admin.compliance["migration_lease"].update_one({}, {"$set": {"state": "queued"}, "$unset": {"lease": 1}})
    before = {document["_id"]: document["n"] for document in admin.app["things"].find()}

    assert deployment.runner().accept("v002_data_count", reason="twenty is what we meant") == "edited"
    deployment.runner().up()

    found = {document["_id"]: document["n"] for document in admin.app["things"].find()}
    assert found == {n: 1 if n == 5 else 11 if before[n] == 11 else seen for n in range(7)}
    assert [document["deep"]["n"] for document in admin.app["things"].find()] == [counted] * 7
    (entry,) = empty.entries(action="migration.repaired")
    assert entry["details"]["reason"] == "twenty is what we meant"
    assert entry["details"]["was"] != entry["details"]["checksum"]


def test_an_acceptance_counts_for_the_text_that_was_accepted(empty: Deployment, tmp_path: Path) -> None:
    admin, deployment = interrupted(empty, tmp_path / "scripts", at=FIRST_WALK_DONE)
    edit(tmp_path / "scripts", "number + TEN", "number + TEN + TEN")
    admin.compliance["migration_lease"].update_one({}, {"$set": {"state": "queued"}, "$unset": {"lease": 1}})
    deployment.runner().accept("v002_data_count", reason="twenty is what we meant")
    edit(tmp_path / "scripts", "number + TEN + TEN", "number * TEN")

    with pytest.raises(AppliedStepEdited):
        deployment.runner().up()


@pytest.mark.parametrize("n", range(1, 5))
def test_a_revision_that_was_half_undone_can_be_undone_or_applied_again(empty: Deployment, n: int) -> None:
    admin = empty.admin
    runner = empty.runner()
    runner.up("000")
    below = schemas(admin)
    runner.up("001")
    above = schemas(admin)

    for go_on, expected in ((lambda: runner.up("001"), above), (lambda: runner.down("000"), below)):
        runner.up("001")
        with pytest.raises(Died):
            replace(runner, databases=mortal(runner.databases, at=1 + n, committed=True)).down("000")
        assert schemas(admin) not in (above, below)
        go_on()
        assert schemas(admin) == expected


def test_a_revision_that_was_half_applied_can_be_undone(empty: Deployment) -> None:
    admin = empty.admin
    runner = empty.runner()
    runner.up("004")
    before = schemas(admin)
    with pytest.raises(Died):
        replace(runner, databases=mortal(runner.databases, at=4, committed=True)).up("005")
    assert schemas(admin) != before

    runner.down("004_post")

    assert schemas(admin) == before


def test_a_change_of_the_application_between_read_and_write_is_kept_and_transformed(
    empty: Deployment, tmp_path: Path
) -> None:
    folder = write_scripts(
        tmp_path / "scripts",
        {
            "v001_data_lower.py": '''
                """Lower."""


                def up(ctx):
                    """Lower; the application writes while the first batch is being computed."""
                    things = ctx.databases.app["things"]

                    def lower(document):
                        if document["genre"] == "ROCK":
                            things.update_one({"_id": document["_id"], "genre": "ROCK"}, {"$set": {"genre": "JAZZ"}})
                        return {"genre": document["genre"].lower()}

                    ctx.transform("things", where={}, fields=("genre",), function=lower)


                def down(ctx):
                    """Nothing."""
            '''.replace("\n        ", "\n")
        },
    )
    empty.admin.app["things"].insert_many([{"_id": 1, "genre": "ROCK"}, {"_id": 2, "genre": "Folk"}])

    empty.with_settings(migrations=folder).migrate()

    found = {document["_id"]: document["genre"] for document in empty.admin.app["things"].find()}
    assert found == {1: "jazz", 2: "folk"}


@pytest.mark.parametrize(
    ("where", "update"),
    [
        ({"n": {"$exists": True}}, {"$inc": {"n": 1}}),
        ({"n": {"$gte": 0}}, {"$set": {"m": 1}}),
        ({}, {"$set": {"n": 0}}),
    ],
    ids=["counts for ever", "changes another field", "changes nothing"],
)
def test_a_backfill_that_would_never_end_is_refused_with_nothing_changed(
    empty: Deployment, tmp_path: Path, where: Document, update: Document
) -> None:
    source = f'''
        """Backfill."""


        def up(ctx):
            """Never ends."""
            ctx.backfill("things", where={where!r}, update={update!r})


        def down(ctx):
            """Nothing."""
    '''
    admin = empty.admin
    admin.app["things"].insert_many([{"_id": n, "n": 0} for n in range(5)])
    before = admin.app.command("dbHash")["collections"]["things"]
    deployment = empty.with_settings(migrations=write_scripts(tmp_path / "s", {"v001_data_x.py": source}), batch_docs=2)

    with pytest.raises(StepFailed, match="does not take documents out of its where"):
        deployment.migrate()

    assert admin.app.command("dbHash")["collections"]["things"] == before
