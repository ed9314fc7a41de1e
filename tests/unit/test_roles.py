"""No process may change or remove what the audit log holds."""

from typing import Any

import pytest
import yaml

from compliance.datamap.model import load_data_map
from compliance.foundation import OWN
from compliance.roles import (
    ALTERING,
    AUDIT_LOG,
    ESCALATING,
    Grants,
    Privilege,
    Right,
    Role,
    altering_actions,
    lacking,
    privileges,
    rights,
    role_name,
    shadow_of,
)
from compliance.settings import DATA_MAP

REFERENCE = load_data_map(DATA_MAP)
GRANTS = Grants(erasable=REFERENCE.writable(), importable=REFERENCE.imports)
WRITES = {"insert", "update", "remove"}


def granted(role: Role, database: str = "app") -> list[Privilege]:
    return privileges(role, database, GRANTS)


def actions_on(role: Role, database: str, collection: str) -> set[str]:
    return {
        action
        for privilege in granted(role)
        if privilege["resource"].get("db") == database and privilege["resource"]["collection"] in ("", collection)
        for action in privilege["actions"]
    }


PROCESSES = [role for role in Role if role is not Role.ARCHIVER]


@pytest.mark.parametrize("role", PROCESSES)
@pytest.mark.parametrize("database", ["app", "app_audit", "spotify_ai_agent"])
def test_no_role_of_a_process_may_alter_the_audit_log(role: Role, database: str) -> None:
    assert altering_actions(privileges(role, database, GRANTS), database) == frozenset()


@pytest.mark.parametrize("role", PROCESSES)
@pytest.mark.parametrize("name", ["audit_log", "app_audit.audit_log", ""])
def test_no_grant_of_a_data_map_reaches_the_audit_log(role: Role, name: str) -> None:
    grants = Grants(erasable=[name], importable=[name])

    assert altering_actions(privileges(role, "app", grants), "app") == frozenset()


@pytest.mark.parametrize("action", sorted(ALTERING))
@pytest.mark.parametrize(
    "resource",
    [
        {"db": "app_audit", "collection": AUDIT_LOG},
        {"db": "app_audit", "collection": ""},
        {"db": "", "collection": AUDIT_LOG},
        {"db": "", "collection": ""},
        {"anyResource": True},
    ],
)
def test_a_right_to_alter_is_found_however_wide_it_was_granted(action: str, resource: dict[str, Any]) -> None:
    assert altering_actions([{"resource": resource, "actions": ["find", action]}], "app") == {action}


@pytest.mark.parametrize(
    "resource",
    [
        {"db": "app", "collection": ""},
        {"db": "app_audit", "collection": "another"},
        {"db": "other_audit", "collection": AUDIT_LOG},
        {"cluster": True},
    ],
)
def test_a_right_elsewhere_is_no_right_on_the_audit_log(resource: dict[str, Any]) -> None:
    assert altering_actions([{"resource": resource, "actions": sorted(ALTERING - ESCALATING)}], "app") == frozenset()


@pytest.mark.parametrize("action", sorted(ESCALATING))
@pytest.mark.parametrize("resource", [{"cluster": True}, {"db": "admin", "collection": ""}, {"db": "app_audit"}])
def test_a_right_to_take_more_rights_counts(action: str, resource: dict[str, Any]) -> None:
    assert altering_actions([{"resource": resource, "actions": [action]}], "app") == {action}


@pytest.mark.parametrize("role", [Role.WORKER, Role.MIGRATOR, Role.SEALER])
def test_who_acts_may_append_and_read(role: Role) -> None:
    assert {"insert", "find"} <= actions_on(role, "app_audit", AUDIT_LOG)


def test_the_auditor_writes_nowhere() -> None:
    assert {action for privilege in granted(Role.AUDITOR) for action in privilege["actions"]} & WRITES == set()


def test_the_archiver_reads_the_audit_database_and_removes_entries_and_nothing_else() -> None:
    assert granted(Role.ARCHIVER) == [
        {"resource": {"db": "app_audit", "collection": ""}, "actions": ["find"]},
        {"resource": {"db": "app_audit", "collection": AUDIT_LOG}, "actions": ["insert", "remove"]},
    ]
    assert altering_actions(granted(Role.ARCHIVER), "app") == {"remove"}


def test_a_sender_may_insert_into_the_outbox_and_nothing_else() -> None:
    assert granted(Role.SENDER) == [
        {"resource": {"db": "app_compliance", "collection": "outbox"}, "actions": ["insert"]}
    ]


def test_only_the_watcher_takes_from_the_outbox() -> None:
    assert {role for role in Role if "remove" in actions_on(role, "app_compliance", "outbox")} == {Role.SEALER}


def test_the_worker_writes_where_the_data_map_says_and_nowhere_else() -> None:
    writable = {*GRANTS.erasable, *GRANTS.importable, "consent"}

    assert all(actions_on(Role.WORKER, "app", name) & WRITES for name in writable)
    assert actions_on(Role.WORKER, "app", "undeclared") & WRITES == set()
    assert not any(
        {"collMod", "dropCollection", "createIndex"} & set(found["actions"]) for found in granted(Role.WORKER)
    )


def test_the_worker_removes_only_what_an_erasure_may_and_finished_jobs() -> None:
    removable = {
        (found["resource"]["db"], found["resource"]["collection"])
        for found in granted(Role.WORKER)
        if "remove" in found["actions"]
    }

    erasable = {*GRANTS.erasable, *map(shadow_of, GRANTS.erasable), "compliance_pre_images"}
    assert removable == {("app_compliance", "jobs"), *(("app", name) for name in erasable)}


@pytest.mark.parametrize("role", Role)
def test_rights_on_our_own_database_are_rights_on_collections_that_exist(role: Role) -> None:
    ours = [found["resource"] for found in granted(role) if found["resource"].get("db") == "app_compliance"]
    named = {resource["collection"] for resource in ours}

    assert named <= {"", *OWN}


COPIES = {"app_rehearsal", "app_rehearsal_audit", "app_rehearsal_compliance"}


def test_only_the_migrator_drops_databases_and_only_copies() -> None:
    dropping = {
        (role, found["resource"].get("db"))
        for role in Role
        for found in granted(role)
        if "dropDatabase" in found["actions"]
    }

    assert dropping == {(Role.MIGRATOR, name) for name in COPIES}
    assert not {"update", "remove", "collMod", "dropCollection"} & actions_on(
        Role.MIGRATOR, "app_rehearsal_audit", AUDIT_LOG
    )


LOOKS_AT_THE_OPLOG = (Role.SEALER, Role.MIGRATOR, Role.WORKER)


@pytest.mark.parametrize("role", [Role.MIGRATOR, Role.WORKER])
def test_how_large_the_oplog_is_can_be_seen_and_nothing_in_it(role: Role) -> None:
    local = [found for found in granted(role) if found["resource"].get("db") == "local"]

    assert local == [{"resource": {"db": "local", "collection": "oplog.rs"}, "actions": ["collStats"]}]


@pytest.mark.parametrize("role", Role)
def test_every_right_names_its_database(role: Role) -> None:
    names = {found["resource"].get("db") for found in granted(role) if found["resource"] != {"cluster": True}}

    known = {"app", "app_audit", "app_compliance", "admin"}
    assert names <= known | ({"local"} if role in LOOKS_AT_THE_OPLOG else set()) | (
        COPIES if role is Role.MIGRATOR else set()
    )
    assert yaml.safe_load(yaml.safe_dump(granted(role))) == granted(role)


@pytest.mark.parametrize(
    "held",
    [("app", "jobs", "find"), ("app", "", "find"), ("", "jobs", "find"), ("", "", "find"), ("", "", "anyAction")],
)
def test_a_right_is_not_lacking_where_a_wider_one_is_held(held: Right) -> None:
    assert lacking([("app", "jobs", "find")], {held}) == []


@pytest.mark.parametrize("held", [("app", "jobs", "insert"), ("app", "holds", "find"), ("other", "", "find")])
def test_a_right_is_lacking_where_only_another_is_held(held: Right) -> None:
    assert lacking([("app", "jobs", "find")], {held}) == [("app", "jobs", "find")]


@pytest.mark.parametrize("role", Role)
def test_what_the_server_merges_or_reorders_is_the_same_rights(role: Role) -> None:
    apart = [
        {"resource": found["resource"], "actions": [action]} for found in granted(role) for action in found["actions"]
    ]

    assert rights(reversed(apart)) == rights(granted(role))


def test_pre_images_of_the_whole_deployment_are_reached_only_where_the_data_map_purges_them() -> None:
    purging = privileges(Role.WORKER, "app", Grants(erasable=(), importable=(), purges=True))
    added = [found for found in purging if found["resource"].get("db") == "config"]

    assert added == [{"resource": {"db": "config", "collection": "system.preimages"}, "actions": ["find", "remove"]}]
    assert "config" not in {found["resource"].get("db") for role in Role for found in granted(role)}


def test_migrator_and_worker_see_of_the_cluster_only_how_it_is_set_and_how_busy_it_is() -> None:
    wide = {role: found["actions"] for role in Role for found in granted(role) if "cluster" in found["resource"]}

    assert wide == {
        Role.MIGRATOR: ["inprog", "replSetGetStatus", "serverStatus"],
        Role.WORKER: ["getClusterParameter", "serverStatus"],
    }


def test_roles_of_two_applications_differ() -> None:
    assert len({role_name(role, database) for role in Role for database in ("a", "b")}) == 2 * len(Role)
