"""The pytest plugin for people's own migrations: a good script passes each assertion, a bad one fails and says why."""

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from compliance.mongo import open_client
from compliance.settings import Settings
from worker.embedded import Stack
from worker.testing.kit import MigrationKit
from worker.testing.scene import Server, open_scene, with_login

pytestmark = pytest.mark.timeout(300)

HEAD = '"""A script."""\n\nDEPENDS_ON = ()\n\n\n'
SCRIPTS = {
    "v001_data_good": """
def up(ctx):
    ctx.backfill("things", where={"n": {"$exists": False}}, update={"$set": {"n": 1}})
    ctx.create_index("things", "ix_n", [("n", 1)])

def down(ctx):
    ctx.drop_index("things", "ix_n")
    ctx.backfill("things", where={"n": {"$exists": True}}, update={"$unset": {"n": ""}})
""",
    "v002_data_forgets": """
def up(ctx):
    ctx.backfill("things", where={"a": {"$exists": False}}, update={"$set": {"a": 1, "b": 1}})
    ctx.create_index("things", "ix_a", [("a", 1)])

def down(ctx):
    ctx.backfill("things", where={"a": {"$exists": True}}, update={"$unset": {"a": ""}})
""",
    "v003_data_counts_anyhow": """
def count(database):
    database["things"].update_many({}, {"$inc": {"count": 1}})

def up(ctx):
    ctx.python("count", count, reason="it was quicker to write")

IRREVERSIBLE = "it has counted"
""",
    "v004_data_replaces": """
def replace(database):
    for thing in database["things"].find():
        thing["m"] = 1
        database["things"].replace_one({"_id": thing["_id"]}, thing)

def up(ctx):
    ctx.python("replace", replace, reason="it was quicker to write")

IRREVERSIBLE = "it has replaced"
""",
    "v005_data_counts_once": """
def up(ctx):
    ctx.walk("things", where={}, update={"$inc": {"count": 1}})

def down(ctx):
    ctx.walk("things", where={}, update={"$inc": {"count": -1}})
""",
    "v006_data_fails": """
def up(ctx):
    ctx.verify("things", none={})

IRREVERSIBLE = "it does nothing"
""",
}
TESTS = """
from pathlib import Path

import pytest

from worker.testing.scene import read_files
from worker.testing.writers import Written


@pytest.fixture(scope="session")
def migration_folder():
    return Path(__file__).parent / "scripts"


@pytest.fixture
def migration_seed():
    return lambda database: database["things"].insert_many([{"_id": n, "count": 0} for n in range(30)])


def test_good_reversible(migration):
    migration.assert_reversible("v001_data_good")


def test_good_idempotent(migration):
    migration.assert_idempotent("v001_data_good")


def test_good_resumable(migration):
    assert migration.assert_resumable("v001_data_good", deaths=5) == 5


def test_good_resumable_of_what_counts(migration):
    assert migration.assert_resumable("v005_data_counts_once", deaths=11) == 11  # two lanes


def test_good_online(migration):
    migration.assert_online("v005_data_counts_once")


def test_good_online_beside_an_own_writer(migration):
    def write(database, number):
        if number % 10 == 0:
            database["things"].insert_one({"_id": 1000 + number, "count": 0})
            return Written(collection="things", id=1000 + number, fields={})
        if number % 10 == 1:
            return None
        if number == 23:
            database["things"].delete_one({"_id": 29})
            return Written(collection="things", id=29, fields=None)
        database["things"].update_one({"_id": number % 29}, {"$set": {f"w{number}": number}})
        return Written(collection="things", id=number % 29, fields={f"w{number}": number})

    assert migration.assert_online("v001_data_good", writer=write).writes > 20


def test_good_from_files(migration, tmp_path):
    (tmp_path / "things.ndjson").write_text('{"_id": {"$oid": "65f000000000000000000001"}}\\n{"_id": 2}\\n')
    (tmp_path / "others.json").write_text('[{"_id": 1}]')
    seed = read_files(tmp_path / "things.ndjson", tmp_path / "others.json")
    migration.assert_idempotent("001", seed=seed)


def test_bad_reversible(migration):
    migration.assert_reversible("v002_data_forgets")


def test_bad_irreversible(migration):
    migration.assert_reversible("v003_data_counts_anyhow")


def test_bad_idempotent(migration):
    migration.assert_idempotent("v003_data_counts_anyhow")


def test_bad_idempotent_of_what_counts(migration):
    migration.assert_idempotent("v005_data_counts_once")


def test_bad_resumable(migration):
    migration.assert_resumable("v003_data_counts_anyhow")


def test_bad_online(migration):
    migration.assert_online("v004_data_replaces")


def test_bad_online_beside_an_own_writer(migration):
    def write(database, number):
        id_ = number % 30
        database["things"].update_one({"_id": id_}, {"$set": {f"w{number}": number}})
        return Written(collection="things", id=id_, fields={f"w{number}": number})

    migration.assert_online("v004_data_replaces", writer=write)


def test_bad_online_writer(migration):
    migration.assert_online("v001_data_good", writer=lambda database, number: 1 / 0)


def test_bad_online_with_too_few(migration):
    migration.assert_online("v001_data_good", seed=lambda database: database["things"].insert_one({"_id": 1}))


def test_bad_up(migration):
    migration.assert_idempotent("v006_data_fails")


def test_bad_number_000(migration):
    migration.assert_idempotent("000")


def test_nothing_is_left_behind(migration_server, migration):
    migration.assert_idempotent("001")
    from compliance.mongo import open_client

    with open_client(migration_server.admin_uri, app_name="test") as client:
        assert [name for name in client.list_database_names() if name.startswith("t_")] == []
        assert client.admin.command("rolesInfo")["roles"] == []
"""
WHY = {
    "bad_reversible": "down of v002_data_forgets does not undo its up: the index things.ix_a should not be there; "
    "30 documents of things differ in b (_id 0, 1, 2, 3, 4, ...)",
    "bad_irreversible": "v003_data_counts_anyhow is irreversible: it has counted",
    "bad_idempotent": "v003_data_counts_anyhow is not idempotent: 30 documents of things differ in count (_id 0, 1, 2",
    "bad_idempotent_of_what_counts": "v005_data_counts_once is not idempotent: 30 documents of things differ in count",
    "bad_resumable": "v003_data_counts_anyhow ends otherwise: 30 documents of things differ in count (_id 0, 1, 2,",
    "bad_online": "v004_data_replaces does harm beside writers: ",
    "bad_online_beside_an_own_writer": "documents of things lost acknowledged writes (_id ",
    "bad_online_writer": "the writer fails: ZeroDivisionError",
    "bad_online_with_too_few": "v001_data_good has 1 documents to write beside; seed 10 or more, or give a writer",
    "bad_up": "up of v006_data_fails fails: StepFailed: 30 documents of things are not as they should be",
    "bad_number_000": "number 000 is ours: it is tested with the package",
}
GOOD = re.findall(r"def test_((?:good|nothing)\w*)", TESTS)


def write_scripts(home: Path) -> Path:
    folder = home / "scripts"
    folder.mkdir()
    for name, source in SCRIPTS.items():
        (folder / f"{name}.py").write_text(HEAD + source)
    return folder


def session(home: Path, tests: str, *options: str, environ: Mapping[str, str] | None = None) -> str:
    """Return what a session of somebody else says; with *environ* that is all of its environment."""
    write_scripts(home)
    (home / "test_theirs.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-rA", *options, "test_theirs.py"]
    done = subprocess.run(
        command,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env=None if environ is None else {"PATH": os.defpath, **environ},
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What one session says, with good and bad scripts."""
    return session(tmp_path_factory.mktemp("theirs"), TESTS)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_script_passes(outcome: str, name: str) -> None:
    assert re.search(rf"^PASSED test_theirs.py::test_{name}$", outcome, re.MULTILINE), outcome[-4000:]


@pytest.mark.parametrize("name", WHY)
def test_a_bad_script_fails_with_a_message_that_says_why(outcome: str, name: str) -> None:
    (section,) = re.findall(rf"^_+ test_{name} _+$(.*?)(?=^_+ test_|^=)", outcome, re.MULTILINE | re.DOTALL)

    assert WHY[name] in section


def test_what_writers_felt_is_told_at_the_end(outcome: str) -> None:
    assert re.search(
        r"^v005_data_counts_once online: \d+ writes, p99 [\d.]+ ms before and [\d.]+ ms while it ran$",
        outcome,
        re.MULTILINE,
    )


ELSEWHERE = """
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def migration_folder():
    return Path(__file__).parent / "scripts"


@pytest.fixture
def migration_seed():
    def seed(database):
        database["things"].insert_many([{"_id": n, "count": 0} for n in range(30)])
        database.client["seen"]["seeds"].insert_one({})

    return seed


def test_good(migration):
    migration.assert_idempotent("001")


def test_bad(migration, migration_server):
    migration.assert_idempotent("003")
"""
HOLDS_A_PASSWORD = re.compile(r"mongodb://[^\s:/]+:[^\s@*]+@")


@dataclass(frozen=True)
class Guest:
    """An administrator of a server that is not ours, by a password that can be looked for."""

    uri: str
    password: str


@pytest.fixture(scope="module")
def guest(stack: Stack) -> Iterator[Guest]:
    uri, password = stack.endpoints.mongodb_uri("admin", auth_source="admin"), secrets.token_hex(16)
    with open_client(uri, app_name="test") as client:
        client.admin.command("createUser", "guest", pwd=password, roles=["root"])
        yield Guest(with_login(uri, user="guest", password=password, source="admin"), password)
        client.admin.command("dropUser", "guest")


def test_a_server_of_the_settings_is_used_and_nothing_is_left_but_what_a_seed_wrote_elsewhere(
    guest: Guest, tmp_path: Path
) -> None:
    with open_client(guest.uri, app_name="test") as client:
        names, roles = client.list_database_names(), client.admin.command("rolesInfo")["roles"]
        said = session(
            tmp_path, ELSEWHERE, "--migration-server=settings", "-vv", "-l", environ={"COMPLIANCE_ADMIN_URI": guest.uri}
        )

        assert re.search(r"^=* ?1 failed, 1 passed in", said, re.MULTILINE), said[-4000:]
        assert "v003_data_counts_anyhow is not idempotent" in said
        assert client["seen"]["seeds"].count_documents({}) == 2
        client.drop_database("seen")
        assert client.list_database_names() == names
        assert client.admin.command("rolesInfo")["roles"] == roles
    assert "migration_server = Server(" in said
    assert guest.password not in said
    assert not HOLDS_A_PASSWORD.search(said)


def test_without_a_server_in_the_settings_each_test_says_which_one_to_set(tmp_path: Path) -> None:
    said = session(tmp_path, ELSEWHERE, "--migration-server=settings", environ={})

    assert re.search(r"^=* ?2 errors in", said, re.MULTILINE), said[-4000:]
    assert "--migration-server=settings: set COMPLIANCE_ADMIN_URI to an administrator's" in said


def shown(failing: Callable[[], object]) -> str:
    """What pytest shows of a failure at most: every frame with all its arguments and names."""
    with pytest.raises(Exception) as failure:  # noqa: PT011 - whatever it is
        failing()
    return str(failure.getrepr(showlocals=True, truncate_locals=False, truncate_args=False))


def test_a_failure_shows_no_password_wherever_it_happens(guest: Guest, tmp_path: Path) -> None:
    settings = Settings.model_validate({"MONGODB_DATABASE": "app", "COMPLIANCE_MIGRATIONS": write_scripts(tmp_path)})
    kit = MigrationKit(server=Server(admin_uri=guest.uri, settings=settings))
    nobody = with_login(guest.uri, user="compliance_worker", password=guest.password, source="admin")
    stranger = MigrationKit(server=Server(admin_uri=nobody, settings=settings))

    def fail_in_the_scene() -> None:
        with open_scene(kit.server, "001", None) as scene:
            raise ValueError(str(scene.uri.count("@")))

    try:
        found = {
            "kit": shown(lambda: kit.assert_resumable("006", seed=lambda app: app["things"].insert_one({}))),
            "seed": shown(lambda: kit.assert_idempotent("001", seed=lambda app: app["things"].insert_one({"_id": []}))),
            "scene": shown(fail_in_the_scene),
            "login": shown(lambda: stranger.assert_idempotent("001")),
        }
    finally:
        kit.close()

    assert all("Scene(" in found[where] for where in ("kit", "scene"))
    assert {where for where, text in found.items() if guest.password in text} == set()
    assert {where for where, text in found.items() if HOLDS_A_PASSWORD.search(text)} == set()
