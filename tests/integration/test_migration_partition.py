"""Time buckets: each document moves once whatever dies and whoever writes, and people are found in buckets."""

import json
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from bson import ObjectId
from bson.datetime_ms import DatetimeMS
from deployment import Deployment
from faults import Died, mortal
from migrated import write_scripts
from pymongo.errors import WriteError
from stepping import declaration, dry, problems, stepping

from compliance.erasure.holds import Holds
from compliance.errors import LegalHoldActive, StepFailed, UnknownName
from compliance.mongo import Databases, Document
from compliance.settings import DATA_MAP
from migrations.ops.pre_images import EXACT
from worker.up import provision_stack

BIN = Path(sys.executable).parent
MARCH, APRIL = datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
SCHEMA: Document = {"bsonType": "object", "required": ["at"]}
TRANSACTIONS = 6  # the buckets, four batches, the end
BUCKETS = ["events_2026_03", "events_2026_04"]


def arrange(empty: Deployment, number: int = 10) -> Databases:
    empty.runner().up("000")
    with stepping(empty) as ctx:
        ctx.create_collection("events", schema=SCHEMA)
        ctx.create_index("events", "ix_at", [("at", 1)], options={"sparse": True})
    empty.admin.app["events"].insert_many([{"_id": n, "at": APRIL if n % 2 else MARCH, "n": n} for n in range(number)])
    empty.admin.app["events"].insert_many(
        [{"_id": "text", "at": "2026"}, {"_id": "none"}], bypass_document_validation=True
    )
    return empty.admin


def spread(admin: Databases) -> dict[str, list[Any]]:
    names = sorted(name for name in admin.app.list_collection_names() if name.startswith("events"))
    return {name: sorted((found["_id"] for found in admin.app[name].find({}, {"_id": 1})), key=str) for name in names}


def test_dates_that_python_has_not_neither_move_nor_end_it(empty: Deployment) -> None:
    admin = arrange(empty, 4)
    odd = [DatetimeMS(253_402_300_800_000), DatetimeMS(-62_135_596_800_001)]  # behind the year 9999, before the year 1
    named = {"first": datetime(1000, 1, 1, tzinfo=UTC), "last": datetime(9998, 12, 31, tzinfo=UTC)}
    unnamed = {"early": datetime(999, 12, 31, tzinfo=UTC), "late": datetime(9999, 1, 1, tzinfo=UTC)}
    admin.app["events"].insert_many(
        [{"_id": f"odd-{n}", "at": at} for n, at in enumerate(odd)]
        + [{"_id": name, "at": at} for name, at in (named | unnamed).items()]
        + [{"_id": "beside", "at": APRIL, "until": odd[0]}]
    )
    with dry(empty, lines=[]) as ctx:
        ctx.partition("events", field="at", every="month")

    partition(empty)

    assert spread(admin) | {"events_all": []} == {
        "events": ["early", "late", "none", "odd-0", "odd-1", "text"],
        "events_1000_01": ["first"],
        "events_2026_03": [0, 2],
        "events_2026_04": [1, 3, "beside"],
        "events_9998_12": ["last"],
        "events_all": [],
    }
    with stepping(empty) as ctx:
        ctx.merge_partitions("events")
    exact = admin.app["events"].with_options(codec_options=EXACT)
    assert exact.find_one({"_id": "beside"}) == {"_id": "beside", "at": APRIL, "until": odd[0]}
    assert exact.count_documents({}) == 13


def partition(empty: Deployment, **changes: Any) -> list[str]:
    lines: list[str] = []
    with stepping(empty, lines=lines, batch_docs=3, **changes) as ctx:
        ctx.partition("events", field="at", every="month")
    return lines


def test_documents_move_into_buckets_and_the_view_shows_all(empty: Deployment) -> None:
    admin = arrange(empty)
    before = {found["_id"]: found for found in admin.app["events"].find()}

    lines = partition(empty)

    assert lines == [
        "events_2026_03: 5 documents, to be created",
        "events_2026_04: 5 documents, to be created",
        "move documents of events into their buckets",
        "moved 10 documents of events",
    ]
    assert spread(admin) == {
        "events": ["none", "text"],
        "events_2026_03": [0, 2, 4, 6, 8],
        "events_2026_04": [1, 3, 5, 7, 9],
        "events_all": sorted(before, key=str),
    }
    assert {found["_id"]: found for found in admin.app["events_all"].find()} == before
    for name in BUCKETS:
        assert set(admin.app[name].index_information()) == {"_id_", "ix_at"}
        with pytest.raises(WriteError):
            admin.app[name].insert_one({"n": 1})
    assert problems(empty, "declared_indexes") == ()
    assert problems(empty, "declared_validators") == ()
    assert declaration(empty, "collection:events_2026_03") is not None
    assert declaration(empty, "index:events_2026_03.ix_at") is not None


def test_a_dry_run_says_what_would_move_and_writes_nothing(empty: Deployment) -> None:
    admin = arrange(empty)
    before = spread(admin)
    lines: list[str] = []

    with dry(empty, lines=lines) as ctx:
        ctx.partition("events", field="at", every="month")

    assert lines[0] == "events_2026_03: 5 documents, to be created"
    assert spread(admin) == before
    assert declaration(empty, "partition:events") is None


@pytest.mark.parametrize("at", range(1, TRANSACTIONS + 1))
@pytest.mark.parametrize("moment", ["before", "after"])
def test_each_document_moves_once_whatever_dies(empty: Deployment, at: int, moment: str) -> None:
    admin = arrange(empty)
    before = {found["_id"]: found for found in admin.app["events"].find()}

    with pytest.raises(Died):
        partition(empty, databases=mortal(empty.runner().databases, at=at, committed=moment == "after"))
    assert sorted(map(str, (found["_id"] for found in admin.app["events_all"].find()))) == sorted(map(str, before))
    partition(empty)

    assert {found["_id"]: found for found in admin.app["events_all"].find()} == before
    assert spread(admin)["events"] == ["none", "text"]


def test_the_deaths_above_are_all_there_are(empty: Deployment) -> None:
    arrange(empty)
    databases = mortal(empty.runner().databases, at=0, committed=False)

    partition(empty, databases=databases)

    assert databases.fate.calls == TRANSACTIONS


def test_writers_into_the_old_collection_lose_nothing(empty: Deployment) -> None:
    admin = arrange(empty, number=200)
    stop, written = threading.Event(), [0]

    def write() -> None:
        while not stop.is_set() and written[0] < 2000:
            admin.app["events"].insert_one({"_id": ObjectId(), "at": APRIL, "by": "writer"})
            admin.app["events"].insert_one({"_id": -written[0] - 1, "at": MARCH, "by": "writer"})  # behind the walk
            written[0] += 2

    writer = threading.Thread(target=write)
    writer.start()
    lines: list[str] = []
    with stepping(empty, lines=lines, batch_docs=40) as ctx:
        ctx.partition("events", field="at", every="month")
    stop.set()
    writer.join()
    partition(empty)  # the last sweep, once the writers know the buckets

    found = list(admin.app["events_all"].find({}, {"_id": 1, "by": 1}))
    assert len(found) == len({str(document["_id"]) for document in found}) == 202 + written[0]
    assert sum(1 for document in found if document.get("by")) == written[0] > 0
    assert spread(admin)["events"] == ["none", "text"]


def test_the_way_back_restores_the_collection(empty: Deployment) -> None:
    admin = arrange(empty)
    before = {found["_id"]: found for found in admin.app["events"].find()}
    declared = list(admin.compliance["declared_schema"].find())
    partition(empty)
    admin.app["events_2026_04"].insert_one({"_id": "new", "at": APRIL})

    with stepping(empty, batch_docs=3) as ctx:
        ctx.merge_partitions("events")
        ctx.merge_partitions("events")

    after = {found["_id"]: found for found in admin.app["events"].find()}
    assert after.pop("new") == {"_id": "new", "at": APRIL}
    assert after == before
    assert list(spread(admin)) == ["events"]
    assert list(admin.compliance["declared_schema"].find()) == declared


@pytest.mark.parametrize(
    ("collection", "every", "error", "sentence"),
    [
        ("events", "week", UnknownName, "there are no buckets by 'week'; known: day, month, year"),
        ("nothing", "month", StepFailed, "collection nothing does not exist"),
        ("users", "month", StepFailed, r"users.ix_user_email is unique; once a document has moved"),
        (
            "analytics",
            "year",
            StepFailed,
            r"write below buckets in it: analytics: \{every: year, since: 2026-01-01",
        ),
    ],
)
def test_what_cannot_be_partitioned_is_refused(
    deployment: Deployment, collection: str, every: str, error: type[Exception], sentence: str
) -> None:
    analytics = {"user_id": ObjectId(), "event_type": "play", "timestamp": APRIL}
    deployment.admin.app["analytics"].insert_one(analytics)
    field = "timestamp" if collection == "analytics" else "created_at"

    with stepping(deployment) as ctx, pytest.raises(error, match=sentence):
        ctx.partition(collection, field=field, every=every)

    assert deployment.admin.app["analytics"].find_one() == analytics


def test_a_document_of_the_same_id_in_a_bucket_stops_the_move(empty: Deployment) -> None:
    admin = arrange(empty)
    partition(empty)
    admin.app["events"].insert_one({"_id": 2, "at": MARCH, "n": "another"})

    with pytest.raises(StepFailed, match="events_2026_03 has 1 other documents of the same _id: 2; correct them first"):
        partition(empty)

    assert admin.app["events"].find_one({"_id": 2}, {"_id": 0, "n": 1}) == {"n": "another"}


def test_retention_drops_whole_buckets_and_says_how_many_documents(empty: Deployment) -> None:
    admin = arrange(empty)
    now = admin.server_time()
    admin.app["events"].insert_many(
        [{"_id": "now", "at": now}, {"_id": "last", "at": now.replace(day=1) - timedelta(1)}]
    )
    partition(empty)
    lines: list[str] = []

    with dry(empty, lines=lines) as ctx:
        ctx.drop_buckets("events", keep=1)
    assert lines == [
        f"drop bucket {name}: about 5 documents dated before 2026-{n:02}-01" for n, name in enumerate(BUCKETS, 4)
    ]
    with stepping(empty, lines=lines) as ctx:
        with pytest.raises(StepFailed, match="keep at least one"):
            ctx.drop_buckets("events", keep=0)
        ctx.drop_buckets("events", keep=1)
        ctx.drop_buckets("events", keep=1)
        with pytest.raises(StepFailed, match="users is not partitioned"):
            ctx.drop_buckets("users", keep=1)

    assert sorted(found["_id"] for found in admin.app["events_all"].find()) == ["last", "none", "now", "text"]
    assert not set(BUCKETS) & set(admin.app.list_collection_names())
    assert problems(empty, "declared_indexes") == ()
    dropped = [entry["details"] for entry in empty.entries(**{"details.op": "drop_bucket"})]
    assert [(found["collection"], found["documents"]) for found in dropped] == [(name, 5) for name in BUCKETS]


RETENTION = '''
        """Drop old buckets."""


        def up(ctx):
            """One is left, and the present one."""
            ctx.drop_buckets("events", keep=1)
            ctx.create_collection("behind", schema={"bsonType": "object"})


        def down(ctx):
            """They are gone."""
            ctx.drop_collection("behind")
'''
DROPPING = 6  # transactions: the start, two buckets, the end of the step, the step behind it, the end of the script


@pytest.mark.parametrize("at", range(1, DROPPING + 1))
def test_who_dies_between_two_buckets_is_followed_by_one_who_drops_the_rest(
    empty: Deployment, tmp_path: Path, at: int
) -> None:
    admin = arrange(empty)
    partition(empty)
    folder = write_scripts(tmp_path / "scripts", {"v002_post_old.py": RETENTION})
    runner = empty.with_settings(migrations=folder).runner()
    dying = mortal(runner.databases, at=at, committed=True)

    with pytest.raises(Died):
        replace(runner, databases=dying).up()
    assert dying.fate.calls == at
    runner.up()

    assert not set(BUCKETS) & set(admin.app.list_collection_names())
    assert sorted(found["_id"] for found in admin.app["events_all"].find()) == ["none", "text"]
    assert "v002_post_old" in runner.history.applied()
    assert declaration(empty, "collection:events_2026_03") is None
    told = [entry["details"]["collection"] for entry in empty.entries(**{"details.op": "drop_bucket"})]
    assert set(told) == set(BUCKETS)
    assert len(told) <= len(BUCKETS) + 1  # one whose entry is there, and that did not go


def test_the_deaths_between_buckets_are_all_there_are(empty: Deployment, tmp_path: Path) -> None:
    arrange(empty)
    partition(empty)
    folder = write_scripts(tmp_path / "scripts", {"v002_post_old.py": RETENTION})
    runner = empty.with_settings(migrations=folder).runner()
    databases = mortal(runner.databases, at=0, committed=False)

    replace(runner, databases=databases).up()

    assert databases.fate.calls == DROPPING


def test_a_bucket_with_a_person_under_a_legal_hold_stays(empty: Deployment) -> None:
    admin = arrange(empty)
    held = ObjectId()
    admin.app["events"].insert_one({"_id": "held", "at": MARCH, "who": str(held)})
    partition(empty)
    services = empty.services()
    now = services.clock.now()
    Holds(services.databases).place(held, "case-1", until=None, now=now, actor="test", log=services.log)

    with (
        stepping(empty) as ctx,
        pytest.raises(LegalHoldActive, match="03 holds data of a person under a legal"),
    ):
        ctx.drop_buckets("events", keep=1)

    assert set(BUCKETS) <= set(admin.app.list_collection_names())


def test_a_collection_is_sharded_on_a_sharded_cluster_only(empty: Deployment) -> None:
    arrange(empty)

    with (
        stepping(empty) as ctx,
        pytest.raises(StepFailed, match=r"is no sharded cluster .* ctx.partition shares"),
    ):
        ctx.shard_collection("events", [("at", 1)])


def test_an_erasure_finds_a_person_in_buckets(empty: Deployment, tmp_path: Path) -> None:
    data_map = yaml.safe_load(DATA_MAP.read_text())
    data_map["buckets"] = {"analytics": {"every": "month", "since": "2026-03-01", "until": "2026-06-01"}}
    path = tmp_path / "map.yaml"
    path.write_text(yaml.safe_dump(data_map))
    deployment = empty.with_settings(data_map=path)
    provision_stack(deployment.settings, deployment.stack.endpoints)
    deployment.migrate()
    admin = deployment.admin
    person, other = ObjectId(), ObjectId()
    for number, who in enumerate((person, other)):
        admin.app["users"].insert_one(
            {
                "_id": who,
                "email": f"u{number}@example.org",
                "role": "listener",
                "status": "ACTIVE",
                "created_at": MARCH,
                "subscription_type": "FREE",
            }
        )
        admin.app["analytics"].insert_many(
            [{"user_id": who, "event_type": "play", "timestamp": at} for at in (MARCH, APRIL)]
        )
    with stepping(deployment) as ctx:
        ctx.partition("analytics", field="timestamp", every="month")
    assert admin.app["analytics"].count_documents({}) == 0

    job = deployment.run("erasure.request", {"subject_id": str(person)})

    assert job.state == "done", job.error
    for name in ("analytics_2026_03", "analytics_2026_04"):
        assert [found["user_id"] for found in admin.app[name].find()] == [other]
    assert job.result is not None
    assert job.result["affected"]["analytics_2026_03"] == {"delete": 1}


def test_an_erasure_that_does_not_know_the_buckets_is_not_completed(deployment: Deployment) -> None:
    admin = deployment.admin
    person = ObjectId()
    user = {"email": "u@example.org", "role": "listener", "status": "ACTIVE", "created_at": MARCH}
    admin.app["users"].insert_one({"_id": person, **user, "subscription_type": "FREE"})
    admin.app["analytics_2026_03"].insert_one({"user_id": person})

    job = deployment.run("erasure.request", {"subject_id": str(person)})

    assert job.state == "parked"
    assert "analytics_2026_03" in str(job.error)


def test_the_command_plans_applies_and_drops(empty: Deployment, tmp_path: Path) -> None:
    admin = arrange(empty)
    environ = {"PATH": str(BIN), **empty.environ(tmp_path)}

    def compliance(*arguments: str, expect: int = 0) -> str:
        done = subprocess.run(
            [BIN / "compliance", "partition", *arguments],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "events_2026_03: 5 documents, to be created" in compliance("plan", "events", "--field", "at")
    assert list(spread(admin)) == ["events"]
    assert "moved 10 documents of events" in compliance("apply", "events", "--field", "at", "--every", "month")
    assert spread(admin)["events"] == ["none", "text"]
    dropped = json.loads(compliance("drop", "events", "--keep", "1", "--dry-run", "--json"))
    assert dropped["lines"][0] == "drop bucket events_2026_03: about 5 documents dated before 2026-04-01"
    assert set(BUCKETS) <= set(spread(admin))
    assert "known: day, month, year" in compliance("plan", "events", "--field", "at", "--every", "week", expect=2)
    assert [entry["details"]["op"] for entry in empty.entries(entity_id="partition.events")][-1] == "partition"
