"""Index builds: what makes them fail is found before, a build that runs is adopted, and nobody queues behind us."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pymongo
import pytest
from deployment import Deployment
from faults import Died, mortal
from migrated import write_scripts
from pymongo.errors import DuplicateKeyError
from stepping import declaration, dry, problems, stepping
from waiting import wait_until

from compliance.errors import ExitCode, GateClosed, StepFailed
from compliance.health.observed import observed_indexes
from compliance.mongo import Databases, Document
from migrations.ops import unique
from migrations.ops.build import find_progress
from migrations.ops.ddl import Patience, alter

HANG = "hangAfterStartingIndexBuild"
OLD = datetime(2020, 1, 1, tzinfo=UTC)


@contextmanager
def hanging_builds(admin: Databases) -> Iterator[None]:
    """Index builds of the server wait inside the block."""
    admin.client.admin.command("configureFailPoint", HANG, mode="alwaysOn")
    try:
        yield
    finally:
        admin.client.admin.command("configureFailPoint", HANG, mode="off")


@contextmanager
def open_transaction(admin: Databases, collection: str) -> Iterator[None]:
    """An application holds *collection* inside the block."""
    with admin.client.start_session() as session, session.start_transaction():
        admin.app[collection].update_one({"_id": 1}, {"$set": {"held": True}}, session=session)
        yield
        session.abort_transaction()


def specs(admin: Databases, collection: str = "things") -> dict[str, Document]:
    return {name: found.spec for name, found in observed_indexes(admin.app, collection).items()}


OPTIONS: list[tuple[Any, dict[str, Any]]] = [
    ([("n", 1)], {}),
    ([("n", 1)], {"partialFilterExpression": {"n": {"$gt": OLD}}}),
    ([("n", 1)], {"sparse": True}),
    ([("n", 1)], {"expireAfterSeconds": 10**9}),
    ([("s", 1)], {"collation": {"locale": "de", "strength": 2}}),
    ([("s", "text"), ("t", "text"), ("n", -1)], {"weights": {"s": 3}, "default_language": "german"}),
    ([("place", "2dsphere"), ("n", 1)], {}),
    ([("$**", 1)], {}),
]


@pytest.mark.parametrize(("keys", "options"), OPTIONS, ids=lambda value: str(value)[:40])
def test_an_index_of_any_kind_is_built_once_and_known_again(
    empty: Deployment, keys: Any, options: dict[str, Any]
) -> None:
    empty.runner().up("000")
    empty.admin.app["things"].insert_one({"_id": 1, "n": OLD, "s": "a"})
    lines: list[str] = []

    for _ in range(2):
        with stepping(empty, lines=lines) as ctx:
            ctx.create_index("things", "ix_thing", keys, options=options)

    assert lines[-1] == "index things.ix_thing is there"
    assert set(specs(empty.admin)) == {"_id_", "ix_thing"}
    assert problems(empty, "declared_indexes") == ()
    with stepping(empty) as ctx, pytest.raises(StepFailed, match="is there with another"):
        ctx.create_index("things", "ix_thing", keys, options=options | {"sparse": not options.get("sparse")})


def test_the_check_of_indexes_compares_options_and_sees_a_build(empty: Deployment) -> None:
    empty.runner().up("000")
    admin = empty.admin
    admin.app["things"].insert_one({"_id": 1, "n": 1})
    with stepping(empty) as ctx:
        ctx.create_index("things", "ix_n", [("n", 1)], options={"sparse": True})
    admin.app["things"].drop_index("ix_n")
    admin.app["things"].create_index("n", name="ix_n")

    (problem,) = problems(empty, "declared_indexes")
    assert "things.ix_n has another sparse" in problem

    admin.app["things"].drop_index("ix_n")
    with hanging_builds(admin):
        thread = threading.Thread(target=admin.app["things"].create_index, args=("n",), kwargs={"name": "ix_n"})
        thread.start()
        wait_until(lambda: "ix_n" in specs(admin), timeout=20, what="the build runs")
        (problem,) = problems(empty, "declared_indexes")
    thread.join()
    assert "things.ix_n is still being built" in problem


REFUSED: list[tuple[str, list[Document], Any, dict[str, Any], str]] = [
    (
        "duplicates",
        [{"_id": n, "n": n // 2} for n in range(14)],
        [("n", 1)],
        {"unique": True},
        r"same n have the _id \d+, \d+(; \d+, \d+){4} \(7 such groups, 5 shown\); merge",
    ),
    ("null and missing", [{"_id": 1, "n": None}, {"_id": 2}], [("n", 1)], {"unique": True}, "have the _id [12], [12]"),
    ("arrays", [{"_id": 1, "n": [1, 2]}, {"_id": 2, "n": 2}], [("n", 1)], {"unique": True}, "have the _id [12], [12]"),
    ("two numbers", [{"_id": 1, "n": 1}, {"_id": 2, "n": 1.0}], [("n", 1)], {"unique": True}, "have the _id [12], "),
    ("parallel arrays", [{"_id": 7, "a": [1], "b": [2]}], [("a", 1), ("b", 1)], {}, "are arrays .* _id 7; make one"),
    ("deep arrays", [{"_id": 7, "a": {"x": [1], "y": [2]}}], [("a.x", 1), ("a.y", 1)], {}, "are arrays .* _id 7"),
    ("no such option", [], [("n", 1)], {"options": {"background": True}}, "no option background; known: 2dsphere"),
    ("unique collation", [{"_id": 1, "n": "a"}, {"_id": 2, "n": "A"}], [("n", 1)],
     {"unique": True, "options": {"collation": {"locale": "en", "strength": 2}}}, "have the _id [12], [12]"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("documents", "keys", "given", "sentence"), [row[1:] for row in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_what_would_make_a_build_fail_is_found_before(
    empty: Deployment, documents: list[Document], keys: Any, given: dict[str, Any], sentence: str
) -> None:
    empty.runner().up("000")
    if documents:
        empty.admin.app["things"].insert_many(documents)

    with stepping(empty) as ctx, pytest.raises(StepFailed, match=sentence):
        ctx.create_index("things", "ix_thing", keys, **given)

    assert set(specs(empty.admin)) <= {"_id_"}


FINE: list[tuple[str, list[Document], Any, dict[str, Any]]] = [
    ("twice in one array", [{"_id": 1, "n": [1, 1]}], [("n", 1)], {}),
    ("empty array and null", [{"_id": 1, "n": []}, {"_id": 2, "n": None}], [("n", 1)], {}),
    ("sparse", [{"_id": 1}, {"_id": 2}], [("n", 1)], {"sparse": True}),
    ("sparse of two", [{"_id": 1, "a": 1}, {"_id": 2}, {"_id": 3}], [("a", 1), ("b", 1)], {"sparse": True}),
    ("partial", [{"_id": 1, "n": 1}, {"_id": 2, "n": 1}], [("n", 1)], {"partialFilterExpression": {"live": True}}),
    ("array of documents", [{"_id": 1, "a": [{"x": 1, "y": 2}]}], [("a.x", 1), ("a.y", 1)], {}),
    ("letter case", [{"_id": 1, "n": "a"}, {"_id": 2, "n": "A"}], [("n", 1)], {}),
]


@pytest.mark.parametrize(("documents", "keys", "options"), [row[1:] for row in FINE], ids=[row[0] for row in FINE])
def test_what_a_unique_index_allows_is_no_duplicate(
    empty: Deployment, documents: list[Document], keys: Any, options: dict[str, Any]
) -> None:
    empty.runner().up("000")
    empty.admin.app["things"].insert_many(documents)

    with stepping(empty) as ctx:
        ctx.create_index("things", "ix_thing", keys, unique=True, options=options)

    assert specs(empty.admin)["ix_thing"]["unique"]


def test_names_and_keys_that_are_taken_and_the_limit_each_say_what_to_do(empty: Deployment) -> None:
    empty.runner().up("000")
    things = empty.admin.app["things"]
    things.insert_one({"_id": 1})
    things.create_index("n", name="theirs")
    things.create_index([("s", "text")], name="words")

    with stepping(empty) as ctx:
        with pytest.raises(
            StepFailed, match=r"keys indexed under the name theirs; declare that name .* or drop it first"
        ):
            ctx.create_index("things", "ix_n", [("n", 1)])
        with pytest.raises(
            StepFailed, match=r"theirs is there with another key; drop it first, or choose another name"
        ):
            ctx.create_index("things", "theirs", [("n", -1)])
        with pytest.raises(StepFailed, match=r"a text index, of which there can be one, under the name words"):
            ctx.create_index("things", "more", [("t", "text")])
        ctx.create_index("things", "ix_n_live", [("n", 1)], options={"partialFilterExpression": {"live": True}})
        for n in range(60):
            things.create_index(f"f{n}", name=f"f{n}")
        with pytest.raises(StepFailed, match=r"has 64 indexes, and MongoDB allows 64; drop one .* before ix_last"):
            ctx.create_index("things", "ix_last", [("last", 1)])


def test_documents_about_people_expire_only_for_a_reason(empty: Deployment) -> None:
    empty.runner().up("001")
    admin = empty.admin
    admin.app["analytics"].insert_one({"user_id": 1, "timestamp": OLD}, bypass_document_validation=True)
    options = {"expireAfterSeconds": 10**9}
    lines: list[str] = []

    with stepping(empty, lines=lines) as ctx:
        with pytest.raises(StepFailed, match=r'retention period it carries out: expires_because="\.\.\."'):
            ctx.create_index("analytics", "ttl", [("timestamp", 1)], options=options)
        ctx.create_index("things", "ttl", [("at", 1)], options=options)
        lines.clear()
        ctx.create_index("analytics", "ttl", [("timestamp", 1)], options=options, expires_because="Art. 5(1)(e), 30 y")

    assert lines[-1] == "0 documents of analytics are older and are deleted within a minute of the build"
    (entry,) = [found for found in empty.entries(action="migration.step") if "expires_because" in found["details"]]
    assert entry["details"]["expires_because"] == "Art. 5(1)(e), 30 y"
    with dry(empty, lines=lines) as ctx:
        ctx.create_index(
            "analytics",
            "t2",
            [("timestamp", 1)],
            options={"expireAfterSeconds": 1, "sparse": True},
            expires_because="x",
        )
    assert lines[-1].startswith("1 documents of analytics are older")


def test_a_build_that_runs_is_adopted_and_waited_for(empty: Deployment) -> None:
    empty.runner().up("000")
    admin = empty.admin
    admin.app["things"].insert_many([{"_id": n, "n": n} for n in range(50)])
    lines: list[str] = []

    def migrate() -> None:
        with stepping(empty, lines=lines) as ctx:
            ctx.create_index("things", "ix_n", [("n", 1)])

    with hanging_builds(admin):
        died = threading.Thread(target=admin.app["things"].create_index, args=("n",), kwargs={"name": "ix_n"})
        died.start()  # stands for a runner that is gone: its build goes on
        wait_until(lambda: "ix_n" in specs(admin), timeout=20, what="the build runs")
        successor = threading.Thread(target=migrate)
        successor.start()
        wait_until(lambda: any("is being built already" in line for line in lines), timeout=20, what="it is adopted")
        wait_until(lambda: any("of 50" in line for line in lines), timeout=20, what="progress is told")
        assert declaration(empty, "index:things.ix_n") is None
    successor.join()
    died.join()

    assert not observed_indexes(admin.app, "things")["ix_n"].is_building
    assert declaration(empty, "index:things.ix_n") is not None
    with stepping(empty) as ctx:
        assert find_progress(ctx, "things", "ix_n") == ""


def test_a_schema_change_never_queues_for_long_and_says_who_to_wait_for(empty: Deployment) -> None:
    empty.runner().up("000")
    admin = empty.admin
    admin.app["things"].insert_one({"_id": 1, "n": 1})
    short = Patience(budget=timedelta(milliseconds=50), pause=timedelta(milliseconds=10), attempts=3)

    with stepping(empty, patience=short) as ctx:
        with open_transaction(admin, "things"):
            with pytest.raises(
                GateClosed, match=r"things is in use: .* 3 times; .* let long transactions end"
            ) as closed:
                ctx.create_index("things", "ix_n", [("n", 1)])
            assert "ix_n" not in specs(admin)
            with pymongo.timeout(2):  # a writer waits for nobody
                admin.app["things"].update_one({"_id": 2}, {"$set": {"n": 1}}, upsert=True)
        ctx.create_index("things", "ix_n", [("n", 1)])
        with open_transaction(admin, "things"), pytest.raises(GateClosed):
            ctx.drop_index("things", "ix_n")

    assert closed.value.exit_code is ExitCode.TEMPORARY
    assert "ix_n" in specs(admin)


def test_a_schema_change_waits_for_a_transaction_that_ends(empty: Deployment) -> None:
    empty.runner().up("000")
    admin = empty.admin
    admin.app["things"].insert_one({"_id": 1, "n": 1})
    done = threading.Event()

    def migrate() -> None:
        with stepping(empty) as ctx:
            ctx.create_index("things", "ix_n", [("n", 1)])
        done.set()

    thread = threading.Thread(target=migrate)
    with open_transaction(admin, "things"):
        thread.start()
        assert not done.wait(0.5)
    thread.join(20)

    assert "ix_n" in specs(admin)


def test_what_the_server_refuses_for_good_is_not_asked_again(empty: Deployment) -> None:
    with stepping(empty) as ctx:
        assert not alter(ctx, "dropIndexes", "nothing", index="ix", allowed=(26, 27))


EMAIL = [("email", 1)]


def people(empty: Deployment, *addresses: str) -> Databases:
    empty.runner().up("000")
    empty.admin.app["people"].insert_many([{"_id": n, "email": address} for n, address in enumerate(addresses)])
    return empty.admin


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_unique_index_becomes_so_whatever_dies_between_its_steps(empty: Deployment, at: int, moment: str) -> None:
    admin = people(empty, "a", "b")
    databases = mortal(empty.runner().databases, at=at, committed=moment == "after")

    with pytest.raises(Died), stepping(empty, databases=databases) as ctx:
        ctx.create_unique("people", "ux_email", EMAIL)
    admin.app["people"].insert_one({"_id": 9, "email": "c"})
    with stepping(empty) as ctx:
        ctx.create_unique("people", "ux_email", EMAIL)

    assert specs(admin, "people")["ux_email"] == {"v": 2, "key": {"email": 1}, "name": "ux_email", "unique": True}
    assert problems(empty, "declared_indexes") == ()
    with stepping(empty) as ctx:
        ctx.create_unique("people", "ux_email", EMAIL)
    with pytest.raises(DuplicateKeyError):
        admin.app["people"].insert_one({"email": "a"})


def test_duplicates_that_come_during_the_build_are_named_and_nothing_new_is_refused(empty: Deployment) -> None:
    admin = people(empty, "a", "b")
    with pytest.raises(Died), stepping(empty, databases=mortal(empty.runner().databases, at=1, committed=True)) as ctx:
        ctx.create_unique("people", "ux_email", EMAIL)
    admin.app["people"].insert_one({"_id": 7, "email": "a"})

    with stepping(empty) as ctx, pytest.raises(StepFailed, match=r"the _id [07], [07]; merge or correct them"):
        ctx.create_unique("people", "ux_email", EMAIL)

    assert specs(admin, "people")["ux_email"] == {"v": 2, "key": {"email": 1}, "name": "ux_email"}
    assert declaration(empty, "index:people.ux_email") is None
    admin.app["people"].delete_one({"_id": 7})
    with stepping(empty) as ctx:
        ctx.create_unique("people", "ux_email", EMAIL)
    assert specs(admin, "people")["ux_email"]["unique"]


def test_duplicates_between_prepare_and_unique_are_named_and_the_index_is_released(empty: Deployment) -> None:
    admin = people(empty, "a")
    with pytest.raises(Died), stepping(empty, databases=mortal(empty.runner().databases, at=1, committed=True)) as ctx:
        ctx.create_unique("people", "ux_email", EMAIL)
    admin.app["people"].insert_one({"_id": 7, "email": "a"})
    with stepping(empty) as ctx:
        unique._prepare(ctx, "people", "ux_email")
        with pytest.raises(StepFailed, match=r"cannot become unique.*the _id [07], [07]"):
            unique._convert(ctx, "people", "ux_email", EMAIL, {})

    assert "prepareUnique" not in specs(admin, "people")["ux_email"]
    admin.app["people"].insert_one({"_id": 8, "email": "a"})  # is not refused any more


def test_an_index_is_dropped_only_after_it_was_hidden_for_long_enough(empty: Deployment) -> None:
    empty.runner().up("000")
    admin = empty.admin
    day = timedelta(days=1)
    declared = admin.compliance["declared_schema"]
    with stepping(empty) as ctx:
        ctx.create_index("things", "ix_n", [("n", 1)])
        with pytest.raises(StepFailed, match=r"is not hidden; hide it with ctx.hide_index"):
            ctx.drop_index("things", "ix_n", soaked=day)
        ctx.hide_index("things", "ix_n")
        assert specs(admin)["ix_n"]["hidden"] is True
        assert problems(empty, "declared_indexes") == ()
        since = declared.find_one({"_id": "index:things.ix_n"})["hidden_since"]
        ctx.hide_index("things", "ix_n")
        assert declared.find_one({"_id": "index:things.ix_n"})["hidden_since"] == since
        with pytest.raises(
            GateClosed, match=r"is dropped after 1 day, 0:00:00; migrate again in (1 d|23:59)"
        ) as closed:
            ctx.drop_index("things", "ix_n", soaked=day)
        assert closed.value.exit_code is ExitCode.TEMPORARY
        assert "ix_n" in specs(admin)
        declared.update_one({"_id": "index:things.ix_n"}, {"$set": {"hidden_since": since - day}})
        admin.app.command("collMod", "things", index={"name": "ix_n", "hidden": False})
        with pytest.raises(StepFailed, match="is not hidden"):
            ctx.drop_index("things", "ix_n", soaked=day)
        (problem,) = problems(empty, "declared_indexes")
        assert "things.ix_n is not hidden" in problem
        admin.app.command("collMod", "things", index={"name": "ix_n", "hidden": True})
        ctx.drop_index("things", "ix_n", soaked=day)

    assert set(specs(admin)) == {"_id_"}
    assert declaration(empty, "index:things.ix_n") is None
    assert problems(empty, "declared_indexes") == ()


def test_a_hidden_index_is_shown_again_on_the_way_back(empty: Deployment) -> None:
    empty.runner().up("000")
    admin = empty.admin
    admin.app["things"].create_index([("s", "text"), ("n", 1)], name="theirs", unique=False)
    lines: list[str] = []

    with dry(empty, lines=lines) as ctx:
        ctx.hide_index("things", "theirs")
        ctx.drop_index("things", "theirs", soaked=timedelta(hours=1))
        ctx.hide_index("things", "to_come")
    assert lines[1] == "index things.theirs must be hidden for 1:00:00 before"
    assert "hidden" not in specs(admin)["theirs"]
    with stepping(empty) as ctx:
        ctx.hide_index("things", "theirs")
        assert problems(empty, "declared_indexes") == ()
        ctx.unhide_index("things", "theirs")
        with pytest.raises(StepFailed, match="is not there; nothing to hide"):
            ctx.hide_index("things", "nothing")

    assert "hidden" not in specs(admin)["theirs"]
    assert problems(empty, "declared_indexes") == ()


def test_a_hidden_index_that_somebody_showed_soaks_anew(empty: Deployment) -> None:
    empty.runner().up("000")
    admin = empty.admin
    with stepping(empty) as ctx:
        ctx.create_index("things", "ix_n", [("n", 1)])
        ctx.hide_index("things", "ix_n")
        admin.compliance["declared_schema"].update_one({"name": "ix_n"}, {"$set": {"hidden_since": OLD}})
        admin.app.command("collMod", "things", index={"name": "ix_n", "hidden": False})
        ctx.hide_index("things", "ix_n")
        with pytest.raises(GateClosed):
            ctx.drop_index("things", "ix_n", soaked=timedelta(days=1))


SOAKING = {
    "v001_pre_hide.py": '''
        """Hide an index."""


        def up(ctx):
            """Hide."""
            ctx.hide_index("things", "ix_n")


        def down(ctx):
            """Show."""
            ctx.unhide_index("things", "ix_n")
    ''',
    "v002_post_drop.py": '''
        """Drop it when nobody missed it."""

        from migrations.context import timedelta


        def up(ctx):
            """Drop."""
            ctx.drop_index("things", "ix_n", soaked=timedelta(days=1))


        def down(ctx):
            """Build it again."""
            ctx.create_index("things", "ix_n", [("n", 1)])
    ''',
}


def test_a_script_waits_until_its_index_has_soaked_and_goes_on_then(empty: Deployment, tmp_path: Path) -> None:
    admin = empty.admin
    admin.app["things"].create_index("n", name="ix_n")
    deployment = empty.with_settings(migrations=write_scripts(tmp_path / "scripts", SOAKING))

    deployment.runner().up(dry_run=True)
    for _ in range(2):
        with pytest.raises(GateClosed, match="migrate again in"):
            deployment.runner().up()
    assert specs(admin)["ix_n"]["hidden"] is True
    long_ago = admin.server_time() - timedelta(days=1)
    admin.compliance["declared_schema"].update_one({"name": "ix_n"}, {"$set": {"hidden_since": long_ago}})
    deployment.runner().up()

    assert set(specs(admin)) == {"_id_"}
    deployment.runner().down("zero")
    assert specs(admin)["ix_n"] == {"v": 2, "key": {"n": 1}, "name": "ix_n"}
