"""``compliance migrate``: what people and machines are told of migrations, and what they may ask for."""

import json
from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment
from migrated import NAMES
from quiet import quiet
from typer.testing import CliRunner, Result

from compliance.erasure.frozen import refusing
from compliance.errors import FolderDiffers, RejectedError, RevisionEdited, RevisionMissing, ScriptFailed
from compliance.settings import MIGRATIONS, load_settings
from migrations.migrate import UNSUMMED
from worker.cli import build_cli

REASON = "the index was renamed by hand in May"


class Command:
    """The command in this process, against the database of one test and a folder that it may change."""

    def __init__(self, deployment: Deployment, home: Path) -> None:
        self.folder = home / "versions"
        environ = deployment.environ(home) | {"COMPLIANCE_MIGRATIONS": str(self.folder)}
        settings = load_settings(environ)
        self.runtime = quiet(settings)

    def result(self, *arguments: str) -> Result:
        return CliRunner().invoke(build_cli(), ["migrate", *arguments], obj=self.runtime, env={"COLUMNS": "200"})

    def __call__(self, *arguments: str) -> str:
        done = self.result(*arguments)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))


@pytest.fixture
def migrate(deployment: Deployment, tmp_path: Path) -> Command:
    """The reference scripts, applied, with their sum."""
    command = Command(deployment, tmp_path)
    command.folder.mkdir()
    for path in [*MIGRATIONS.glob("v*.py"), MIGRATIONS / "migrations.sum"]:
        (command.folder / path.name).write_bytes(path.read_bytes())
    return command


def test_list_and_status_tell_every_migration_with_its_state(migrate: Command) -> None:
    listed = migrate.json("list")
    told = migrate.json("status")

    assert [item["name"] for item in listed] == NAMES
    assert {(item["state"], item["by"]) for item in listed} == {("applied", "test")}
    assert listed[4]["depends_on"] == [NAMES[3]]
    assert listed[4]["phase"] == "pre"
    nothing: dict[str, Any] = {"pending": [], "refused": None, "writes_refused": [], "progress": []}
    assert told == {**nothing, "migrations": listed}
    assert [line.split()[:2] for line in migrate("status").splitlines()[1:]] == [[name, "applied"] for name in NAMES]
    assert migrate("list") == migrate("status")


def test_status_shows_what_up_would_refuse_and_fails_as_up_does(migrate: Command) -> None:
    path = migrate.folder / "v002_pre_core_indexes.py"
    path.write_text(path.read_text() + "\nMORE = 1\n")
    for command in ("status", "up", "lint"):
        with pytest.raises(FolderDiffers, match="changed: v002_pre_core_indexes"):
            migrate(command)
    migrate("sum")

    done = migrate.result("status", "--json")

    assert isinstance(done.exception, RevisionEdited)
    told = json.loads(done.stdout)
    assert told["refused"]["code"] == "RevisionEdited"
    assert told["migrations"][2]["state"] == "edited"
    assert migrate.json("repair", "--accept", path.stem, "--reason", REASON) == {
        "name": path.stem,
        "accepted": "edited",
    }
    assert migrate("repair", "--accept", path.stem, "--reason", REASON) == "nothing to accept\n"
    assert migrate("up") == "nothing to do\n"
    assert REASON in migrate("history")
    assert migrate.json("history")[-1]["reason"] == REASON


def test_a_missing_script_is_listed_until_it_is_accepted(migrate: Command) -> None:
    (migrate.folder / "v006_pre_advanced_indexes.py").unlink()
    migrate("sum")

    with pytest.raises(RevisionMissing):
        migrate("up")
    assert migrate.json("list")[-1]["state"] == "missing"
    with pytest.raises(RejectedError, match="say in 10 to 500"):
        migrate("repair", "--accept", "v006_pre_advanced_indexes", "--reason", "ok")
    assert migrate("repair", "--accept", "v006_pre_advanced_indexes", "--reason", REASON).endswith("is missing\n")
    assert migrate.json("list")[-1]["state"] == "gone, accepted"


def test_status_tells_how_far_an_interrupted_step_is(migrate: Command, deployment: Deployment) -> None:
    place = {"documents": 250, "of": 1000, "seconds": 2.5, "waiting": ["paused by a person"], "unread": ["lag: X"]}
    left = {"script": "up v007_data_x", "step": 2, "digest": "d", "place": place}
    deployment.admin.compliance["migration_lease"].update_one({}, {"$set": {"checkpoint": left}})

    assert migrate.json("status")["progress"] == [
        {
            "what": "up v007_data_x, step 2",
            "phase": "",
            "documents": 250,
            "of": 1000,
            "per_second": 100.0,
            "seconds_left": 7.5,
            "waiting": ["paused by a person"],
            "unread": ["lag: X"],
        }
    ]
    done, waiting = "up v007_data_x, step 2: 250 of 1000 documents", "waiting: paused by a person"
    assert migrate("status").splitlines()[-1] == f"{done}, {waiting} (the throttle cannot read lag: X)"


def test_verify_names_what_is_not_as_the_migrations_say(migrate: Command, deployment: Deployment) -> None:
    assert migrate("verify") == "everything is as the migrations say\n"
    assert migrate.json("verify") == {"problems": []}

    deployment.admin.app["users"].drop_index("ix_user_email")
    deployment.admin.app.command("collMod", "artists", validator={})
    done = migrate.result("verify", "--json")

    assert done.exit_code == 3
    assert json.loads(done.stdout)["problems"] == [
        {"migration": "v002_pre_core_indexes", "what": "users.ix_user_email is missing"},
        {"migration": "v001_pre_core_collections", "what": "artists has lost its validator"},
    ]
    assert "users.ix_user_email is missing" in migrate.result("verify").stdout


def test_status_check_is_an_exit_code(migrate: Command) -> None:
    assert migrate.result("status", "--check").exit_code == 0
    migrate("down", "005")

    done = migrate.result("status", "--check", "--json")

    assert done.exit_code == 3
    assert json.loads(done.stdout)["pending"] == [NAMES[-1]]


def test_one_migration_is_shown_with_its_events_and_steps(migrate: Command) -> None:
    told = migrate.json("show", "002")

    assert told["name"] == NAMES[2]
    assert told["state"] == "applied"
    assert [event["event"] for event in told["events"]] == ["started", "applied"]
    assert [step["number"] for step in told["steps"]] == list(range(1, len(told["steps"]) + 1))
    assert told["docstring"].splitlines()[0] == told["summary"]
    text = migrate("show", NAMES[2])
    assert all(part in text for part in (told["checksum"], told["docstring"], "started", told["steps"][0]["what"]))
    assert told["irreversible"] is None
    assert migrate.json("show", "000")["irreversible"]


def test_a_new_script_is_pending_and_runs_by_name(migrate: Command) -> None:
    path = Path(migrate("new", "reviews", "--phase", "pre").strip())
    assert path == migrate.folder / "v007_pre_reviews.py"
    assert migrate.json("heads") == [{"name": path.stem, "summary": "Reviews: say here what changes, and why."}]
    assert path.stem in migrate("heads")
    assert migrate.result("status", "--check").exit_code == 3
    assert isinstance(migrate.result("up", "--only", "007").exception, ScriptFailed)

    text = path.read_text().replace("raise NotImplementedError", "ctx.report('here')")
    path.write_text(text)
    migrate("sum")

    assert migrate.json("up", "--only", "007")["revisions"] == [path.stem]
    assert migrate("sum").endswith("10 scripts, as before\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("up", "--only", "001", "--to", "002"),
        ("new", "x", "--phase", "later"),
        ("new", "x"),
        ("repair", "--accept", "x"),
    ],
)
def test_a_wrong_call_is_told(migrate: Command, arguments: tuple[str, ...]) -> None:
    done = migrate.result(*arguments)

    assert (done.exit_code, done.stdout) == (2, "")
    assert "Usage" in done.stderr


def test_a_late_script_runs_when_it_is_allowed(migrate: Command) -> None:
    (migrate.folder / "v003_pre_late.py").write_text((MIGRATIONS / "v000_pre_foundation.py").read_text())
    migrate("sum")

    assert "late" in migrate("list")
    assert migrate.json("up", "--allow-late", "v003_pre_late")["revisions"] == ["v003_pre_late"]


def test_a_folder_without_a_sum_is_warned_of_once(migrate: Command) -> None:
    (migrate.folder / "migrations.sum").unlink()

    for arguments in (("up",), ("status", "--check"), ("lint",)):
        done = migrate.result(*arguments)
        assert done.exit_code == 0
        assert done.stderr.splitlines() == [UNSUMMED]


def test_status_and_doctor_name_collections_that_refuse_writes_since_a_migration_ended(
    migrate: Command, deployment: Deployment
) -> None:
    doctor = CliRunner().invoke(build_cli(), ["doctor", "--json"], obj=migrate.runtime)
    assert {"check": "collections take writes", "ok": True}.items() <= json.loads(doctor.stdout)[-1].items()
    before = {"validator": None, "level": "strict", "action": "error"}
    deployment.admin.app.command("collMod", "users", validator=refusing(before, fence=0))

    told, shown = migrate.json("status"), migrate("status")
    doctor = CliRunner().invoke(build_cli(), ["doctor", "--json"], obj=migrate.runtime)

    assert told["writes_refused"] == ["users"]
    assert "users: writes are refused since a migration ended; run `up`" in shown
    assert "ended while users refused writes" in json.loads(doctor.stdout)[-1]["says"]
    assert doctor.exit_code == 3
    migrate("up")
    assert migrate.json("status")["writes_refused"] == []
    assert deployment.admin.app["users"].options().get("validator", {}) == {}


@pytest.mark.parametrize("options", [(), ("--accept", "v001_pre_core", "--exchange", "users")])
def test_repair_asks_for_one_thing_to_accept(migrate: Command, options: tuple[str, ...]) -> None:
    assert migrate.result("repair", *options, "--reason", REASON).exit_code == 2


def test_an_exchange_that_does_not_wait_cannot_be_accepted(migrate: Command) -> None:
    with pytest.raises(RejectedError, match="no exchange of users waits"):
        migrate("repair", "--exchange", "users", "--reason", REASON)
