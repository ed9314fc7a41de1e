"""The history holds what ran: scripts that are gone are undone from it, and what a person accepts is told in it."""

import shutil
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from bson import ObjectId
from deployment import Deployment
from migrated import NAMES, hashes, leave_the_lease_behind, names, schemas, snapshot, write_scripts

from compliance.errors import (
    DependencyRefused,
    LeaseLost,
    LockHeld,
    MigrationError,
    RejectedError,
    RevisionEdited,
    RevisionLate,
    RevisionMissing,
    UnknownName,
)
from compliance.settings import MIGRATIONS
from migrations.wish import Wish

SCRIPT = '''
        """Things."""


        def up(ctx):
            """Create."""
            ctx.create_collection("NAME", schema={"bsonType": "object"})


        def down(ctx):
            """Drop."""
            ctx.drop_collection("NAME")
'''
LATER = datetime(2099, 1, 1, tzinfo=UTC)
REASON = "the index was renamed by hand in May"


def collection(name: str, depends_on: str = "") -> str:
    declared = f"\n        DEPENDS_ON = ({depends_on!r},)\n\n" if depends_on else "\n"
    return SCRIPT.replace("NAME", name).replace('Things."""\n', f'Things."""\n{declared}')


@pytest.fixture
def things(empty: Deployment, tmp_path: Path) -> Deployment:
    """Three scripts in a line, in a folder that a test may change."""
    folder = {f"v00{n}_pre_{name}.py": collection(name) for n, name in ((1, "one"), (2, "two"), (4, "four"))}
    return empty.with_settings(migrations=write_scripts(tmp_path / "things", folder))


@pytest.fixture
def migrated(things: Deployment) -> Deployment:
    things.migrate()
    return things


def add(deployment: Deployment, file_name: str, source: str) -> None:
    write_scripts(deployment.settings.migrations, {file_name: source})


def remove(deployment: Deployment, name: str) -> None:
    (deployment.settings.migrations / f"{name}.py").unlink()


def edit(deployment: Deployment, name: str) -> None:
    path = deployment.settings.migrations / f"{name}.py"
    path.write_text(path.read_text() + "\nMORE = 1\n")


def events(deployment: Deployment, name: str) -> list[str]:
    return [event["event"] for event in deployment.admin.compliance["migration_history"].find({"revision": name})]


def test_the_text_of_every_script_that_ran_is_kept_once(deployment: Deployment) -> None:
    own = deployment.admin.compliance
    deployment.runner().down("005")
    deployment.runner().up()

    kept = {item["name"]: item for item in own["migration_sources"].find()}

    assert sorted(kept) == sorted(NAMES)
    for name, item in kept.items():
        text = (MIGRATIONS / f"{name}.py").read_bytes()
        assert zlib.decompress(item["source"]) == text
        assert item["_id"] == sha256(text).hexdigest()
    for event in own["migration_history"].find({"event": "started"}):
        assert event["source"] == kept[event["revision"]]["_id"]


def test_a_script_that_did_not_commit_its_start_left_no_text(things: Deployment) -> None:
    things.runner().up("001")
    stopped = things.runner(should_stop=lambda: True)

    with pytest.raises(LeaseLost, match="stopping"):
        stopped.up()

    assert things.admin.compliance["migration_sources"].count_documents({}) == 2


def test_an_older_folder_goes_down_by_what_the_history_holds(migrated: Deployment) -> None:
    """Code is rolled back first, and the scripts with it."""
    add(migrated, "v005_pre_five.py", collection("five"))
    before = schemas(migrated.admin)
    migrated.runner().up()
    remove(migrated, "v005_pre_five")

    with pytest.raises(RevisionMissing, match="v005_pre_five"):
        migrated.runner().up()
    assert names(migrated.runner().down("004", dry_run=True)) == ["v005_pre_five"]
    assert names(migrated.runner().down("004")) == ["v005_pre_five"]

    assert schemas(migrated.admin) == before
    assert migrated.runner().up() == ()
    assert events(migrated, "v005_pre_five") == ["started", "applied", "reverting", "reverted"]


def test_a_whole_folder_that_is_gone_goes_down_in_the_order_of_its_graph(empty: Deployment, tmp_path: Path) -> None:
    scripts = {
        "v001_pre_a.py": collection("a"),
        "v003_pre_b.py": collection("b", "v001_pre_a"),
        "v002_pre_z.py": collection("z", "v003_pre_b"),
    }
    full = empty.with_settings(migrations=write_scripts(tmp_path / "full", scripts))
    assert names(full.runner().up()) == ["v000_pre_foundation", "v001_pre_a", "v003_pre_b", "v002_pre_z"]

    without = empty.with_settings(migrations=write_scripts(tmp_path / "without", {}))

    assert names(without.runner().down("zero")) == ["v002_pre_z", "v003_pre_b", "v001_pre_a"]
    assert snapshot(empty.admin.app) == {}


def test_a_half_applied_script_that_is_gone_is_undone_from_the_history(things: Deployment) -> None:
    def die(line: str) -> None:
        if "create collection four" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        things.runner(report=die).up()
    remove(things, "v004_pre_four")

    with pytest.raises(RevisionMissing, match="half applied and no longer in the folder: v004_pre_four"):
        things.runner().up()
    with pytest.raises(RevisionMissing, match="half applied; finish it with `up` or undo it"):
        things.runner().accept("v004_pre_four", reason=REASON)
    assert names(things.runner().down("002")) == ["v004_pre_four"]
    assert things.runner().up() == ()


@pytest.mark.parametrize("change", ["text", "checksum"])
def test_a_text_that_is_not_the_one_that_ran_is_not_run(migrated: Deployment, change: str) -> None:
    own = migrated.admin.compliance
    if change == "text":
        other = zlib.compress(b'"""Other."""\ndef up(ctx): pass\ndef down(ctx): pass\n')
        own["migration_sources"].update_one({"name": "v004_pre_four"}, {"$set": {"source": other}})
    else:
        own["migration_history"].update_many({"revision": "v004_pre_four"}, {"$set": {"checksum": "0" * 64}})
    remove(migrated, "v004_pre_four")
    before = hashes(migrated.admin)

    with pytest.raises(RevisionEdited, match="v004_pre_four: the text in migration_sources is not the one"):
        migrated.runner().down("002")

    assert hashes(migrated.admin) == before


def test_a_script_whose_text_is_not_kept_is_named(migrated: Deployment) -> None:
    migrated.admin.compliance["migration_sources"].delete_many({})
    remove(migrated, "v004_pre_four")

    with pytest.raises(RevisionMissing, match=r"v004_pre_four is not in the folder, .* bring the script back"):
        migrated.runner().down("002")
    assert migrated.runner().down("004") == ()


def test_an_edited_script_is_accepted_with_a_reason_and_both_checksums(migrated: Deployment) -> None:
    (old,) = {
        event["checksum"] for event in migrated.admin.compliance["migration_history"].find({"revision": "v002_pre_two"})
    }
    edit(migrated, "v002_pre_two")
    with pytest.raises(RevisionEdited, match="v002_pre_two"):
        migrated.runner().up()

    assert migrated.runner().accept("v002_pre_two", reason=f"  {REASON} ") == "edited"
    assert migrated.runner().up() == ()
    assert migrated.runner().accept("v002_pre_two", reason=REASON) == "nothing"

    new = next(one.checksum for one in migrated.runner().revisions if one.name == "v002_pre_two")
    (entry,) = migrated.entries(action="migration.repaired")
    assert entry["entity_id"] == "v002_pre_two"
    assert entry["performed_by"] == "test"
    assert entry["details"] == {"fault": "edited", "reason": REASON, "was": old, "checksum": new}
    assert old != new
    assert events(migrated, "v002_pre_two") == ["started", "applied", "repaired"]
    remove(migrated, "v002_pre_two")
    assert b"MORE = 1" in migrated.runner().scripts().gone[0].source


def test_a_missing_script_is_accepted_and_what_depends_on_it_still_comes_after_it(migrated: Deployment) -> None:
    remove(migrated, "v002_pre_two")
    add(migrated, "v005_pre_five.py", collection("five", "v002_pre_two"))

    assert migrated.runner().accept("v002_pre_two", reason=REASON) == "missing"
    assert migrated.runner().accept("v002_pre_two", reason=REASON) == "nothing"

    assert names(migrated.runner().up()) == ["v005_pre_five"]
    (entry,) = migrated.entries(action="migration.repaired")
    assert entry["details"]["fault"] == "missing"
    assert entry["details"]["was"] == entry["details"]["checksum"]
    assert names(migrated.runner().down("001")) == ["v005_pre_five", "v004_pre_four", "v002_pre_two"]
    assert set(snapshot(migrated.admin.app)) == {"one"}
    with pytest.raises(DependencyRefused, match="v005_pre_five depends on v002_pre_two, which is not in the folder"):
        migrated.runner().up()


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("v002_pre_two", "ok", "say in 10 to 500 characters why"),
        ("v002_pre_two", " " * 20, "say in 10 to 500 characters why"),
        ("v002_pre_two", "x" * 501, "say in 10 to 500 characters why"),
        ("v002_pre_two", "mara@example.org wanted it", "without names or addresses of persons"),
        ("002", REASON, "002 is not applied: .* full name"),
        ("v009_pre_nine", REASON, "v009_pre_nine is not applied"),
    ],
)
def test_what_cannot_be_accepted_changes_nothing(migrated: Deployment, name: str, reason: str, words: str) -> None:
    edit(migrated, "v002_pre_two")
    history = migrated.admin.compliance["migration_history"]
    before = history.count_documents({})

    with pytest.raises(RejectedError, match=words) as refused:
        migrated.runner().accept(name, reason=reason)

    assert "mara" not in str(refused.value)
    assert history.count_documents({}) == before


def test_what_was_undone_cannot_be_accepted(migrated: Deployment) -> None:
    migrated.runner().down("002")

    with pytest.raises(RejectedError, match=r"v004_pre_four is not applied"):
        migrated.runner().accept("v004_pre_four", reason=REASON)


def test_nothing_is_accepted_while_somebody_else_migrates(migrated: Deployment) -> None:
    edit(migrated, "v002_pre_two")
    leave_the_lease_behind(migrated.admin)

    with pytest.raises(LockHeld, match="dead:1"):
        migrated.runner().accept("v002_pre_two", reason=REASON)


def test_a_late_script_runs_when_its_name_is_given_and_the_audit_log_says_so(migrated: Deployment) -> None:
    add(migrated, "v003_pre_three.py", collection("three"))
    wish = Wish(allow_late=("v003_pre_three",))
    for runner in (migrated.runner().up, migrated.runner().pending):
        with pytest.raises(RevisionLate, match="v003_pre_three"):
            runner()

    assert names(migrated.runner().up(wish=wish, dry_run=True)) == ["v003_pre_three"]
    assert migrated.entries(action="migration.allowed_late") == []
    assert names(migrated.runner().up(wish=wish)) == ["v003_pre_three"]
    assert migrated.runner().up(wish=wish) == ()

    (entry,) = migrated.entries(action="migration.allowed_late")
    assert entry["entity_id"] == "v003_pre_three"
    assert names(migrated.runner().down("001")) == ["v004_pre_four", "v003_pre_three", "v002_pre_two"]


def test_two_late_scripts_are_undone_by_the_graph_and_not_by_the_time_they_ran(migrated: Deployment) -> None:
    add(migrated, "v003_pre_three.py", collection("three"))
    migrated.runner().up(wish=Wish(allow_late=("v003_pre_three",)))

    assert names(migrated.runner().down("003")) == ["v004_pre_four"]


def test_a_name_that_is_no_script_cannot_be_allowed_late(migrated: Deployment) -> None:
    with pytest.raises(UnknownName, match="there is no migration '003'; write its full name"):
        migrated.runner().up(wish=Wish(allow_late=("003",)))


def test_one_migration_runs_by_name(things: Deployment) -> None:
    things.runner().up("001")

    with pytest.raises(DependencyRefused, match="v004_pre_four depends on v002_pre_two"):
        things.runner().up(wish=Wish(only="004"))
    assert names(things.runner().up(wish=Wish(only="002"), dry_run=True)) == ["v002_pre_two"]
    assert names(things.runner().up(wish=Wish(only="002"))) == ["v002_pre_two"]
    assert things.runner().up(wish=Wish(only="v002_pre_two")) == ()
    assert set(snapshot(things.admin.app)) == {"one", "two"}


@pytest.mark.parametrize("rename", ["v002_pre_zwei", "v003_pre_two"])
def test_a_renamed_script_is_told_its_old_name_and_nothing_runs_again(migrated: Deployment, rename: str) -> None:
    folder = migrated.settings.migrations
    shutil.move(folder / "v002_pre_two.py", folder / f"{rename}.py")
    before = hashes(migrated.admin)

    with pytest.raises(RevisionMissing, match=f"v002_pre_two is now {rename}: give it its old name again"):
        migrated.runner().up()

    assert hashes(migrated.admin) == before


@pytest.mark.parametrize("name", ["v005_pre_Five.py", "V005_pre_five.py", "005_pre_five.py", "v005_pre_fünf.py"])
def test_a_file_with_an_unusual_name_is_refused_and_not_ignored(migrated: Deployment, name: str) -> None:
    add(migrated, name, collection("five"))

    with pytest.raises(MigrationError, match="name migration scripts vNNN_"):
        migrated.runner().up()


def test_a_script_that_cannot_be_loaded_refuses_before_the_first_one_runs(things: Deployment) -> None:
    add(things, "v005_pre_five.py", collection("five") + "\n        raise RuntimeError\n")
    attempts: list[Callable[[], object]] = [things.runner().up, lambda: things.runner().up(dry_run=True)]

    for attempt in attempts:
        with pytest.raises(MigrationError, match=r"v005_pre_five\.py: fails while it is loaded"):
            attempt()

    assert snapshot(things.admin.app) == {}


def test_the_fence_orders_events_whatever_clock_made_their_ids(migrated: Deployment) -> None:
    """Found by a storm: two processes within one second, or two machines of which one is ahead."""
    history = migrated.admin.compliance["migration_history"]
    applied = history.find_one({"revision": "v004_pre_four", "event": "applied"})
    assert applied is not None
    history.delete_one({"_id": applied["_id"]})
    history.insert_one({**applied, "_id": ObjectId.from_datetime(LATER)})

    migrated.runner().down("v002_pre_two")
    assert names(migrated.runner().pending()) == ["v004_pre_four"]
    migrated.migrate()

    assert migrated.runner().pending() == ()
    told = [event for event in migrated.runner().history.events() if event["revision"] == "v004_pre_four"]
    assert [event["event"] for event in told] == ["started", "applied", "reverting", "reverted", "started", "applied"]
