"""The audit log cannot be altered with the credentials of any process."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from deployment import Deployment, provision_database
from entries import CHANGE, ENTRY, ID, OTHER, PERSON
from pymongo import DeleteOne, InsertOne, ReplaceOne, UpdateOne
from pymongo.errors import BulkWriteError, OperationFailure
from pymongo.write_concern import WriteConcern
from sealed import faults_of_entries

from compliance.mongo import Databases, Document
from compliance.roles import Role
from worker.embedded import Stack

UNAUTHORIZED = 13
NO_SUCH_COMMAND = 59

Attempt = Callable[[Databases], object]


def on_audit(**command: Any) -> Attempt:
    return lambda databases: databases.audit.command(command)


def on_admin(command: Callable[[Databases], Document]) -> Attempt:
    return lambda databases: databases.client.admin.command(command(databases))


def own_users(**command: Any) -> Attempt:
    return lambda databases: databases.compliance.command(command)


def on_log(method: str, *arguments: Any, **options: Any) -> Attempt:
    return lambda databases: getattr(databases.audit["audit_log"], method)(*arguments, **options)


def aggregate_into(stage: Callable[[Databases], Document]) -> Attempt:
    def attempt(databases: Databases) -> object:
        return list(databases.audit["audit_log"].aggregate([{"$match": {"_id": ID}}, stage(databases)]))

    return attempt


def merge(matched: Any) -> Attempt:
    return aggregate_into(
        lambda databases: {
            "$merge": {"into": {"db": databases.audit.name, "coll": "audit_log"}, "whenMatched": matched}
        }
    )


def apply_operation(op: Callable[[str], Document]) -> Attempt:
    return on_admin(lambda databases: {"applyOps": [op(f"{databases.audit.name}.audit_log")]})


def in_transaction(method: str, *arguments: Any) -> Attempt:
    def attempt(databases: Databases) -> None:
        with databases.client.start_session() as session, session.start_transaction():
            getattr(databases.audit["audit_log"], method)(*arguments, session=session)

    return attempt


def rename(source: str, target: str, **options: Any) -> Attempt:
    return on_admin(
        lambda databases: {
            "renameCollection": source.format(databases.name),
            "to": target.format(databases.name),
            **options,
        }
    )


def unacknowledged(databases: Databases) -> object:
    """Fire and forget: nobody hears the refusal, so the entry itself must show it."""
    log = databases.audit.get_collection("audit_log", write_concern=WriteConcern(w=0))
    log.delete_many({})
    log.update_many({}, CHANGE)
    return databases.audit.command({"delete": "audit_log", "deletes": [{"q": {}, "limit": 0}]})


ATTEMPTS: dict[str, Attempt] = {
    "update_one": on_log("update_one", {"_id": ID}, CHANGE),
    "update_many": on_log("update_many", {}, CHANGE),
    "update with a pipeline": on_log("update_many", {}, [CHANGE]),
    "replace_one": on_log("replace_one", {"_id": ID}, OTHER | {"_id": ID}),
    "upsert of an existing entry": on_log("update_one", {"_id": ID}, CHANGE, upsert=True),
    "upsert of a new entry": on_log("replace_one", {"_id": OTHER["_id"]}, OTHER, upsert=True),
    "find_one_and_update": on_log("find_one_and_update", {"_id": ID}, CHANGE),
    "find_one_and_replace": on_log("find_one_and_replace", {"_id": ID}, OTHER | {"_id": ID}),
    "find_one_and_delete": on_log("find_one_and_delete", {"_id": ID}),
    "delete_one": on_log("delete_one", {"_id": ID}),
    "delete_many": on_log("delete_many", {}),
    "unacknowledged writes": unacknowledged,
    "bulk update": on_log("bulk_write", [UpdateOne({"_id": ID}, CHANGE)]),
    "bulk replace": on_log("bulk_write", [ReplaceOne({"_id": ID}, OTHER | {"_id": ID})]),
    "bulk delete": on_log("bulk_write", [DeleteOne({"_id": ID})]),
    "bulk insert and delete": on_log("bulk_write", [InsertOne(OTHER | {"_id": "f" * 32}), DeleteOne({"_id": ID})]),
    "update in a transaction": in_transaction("update_one", {"_id": ID}, CHANGE),
    "delete in a transaction": in_transaction("delete_many", {}),
    "find and delete in a transaction": in_transaction("find_one_and_delete", {"_id": ID}),
    "insert that bypasses the validator": on_log("insert_one", {"_id": "x"}, bypass_document_validation=True),
    "valid insert that bypasses the validator": on_log("insert_one", dict(OTHER), bypass_document_validation=True),
    "$merge replace": merge("replace"),
    "$merge merge": merge("merge"),
    "$merge keepExisting": merge("keepExisting"),
    "$merge pipeline": merge([CHANGE]),
    "$out": aggregate_into(lambda _: {"$out": "audit_log"}),
    "$out by database": aggregate_into(lambda databases: {"$out": {"db": databases.audit.name, "coll": "audit_log"}}),
    "mapReduce out": on_audit(
        mapReduce="audit_log",
        map="function () { emit(this._id, 1) }",
        reduce="function () { return 1 }",
        out={"replace": "audit_log"},
    ),
    "drop": on_audit(drop="audit_log"),
    "dropDatabase": on_audit(dropDatabase=1),
    "rename away": rename("{0}_audit.audit_log", "{0}_audit.gone"),
    "rename into the application database": rename("{0}_audit.audit_log", "{0}.gone"),
    "rename onto": rename("{0}.users", "{0}_audit.audit_log", dropTarget=True),
    "rename onto within the database": rename("{0}_audit.other", "{0}_audit.audit_log", dropTarget=True),
    "create": on_audit(create="audit_log", capped=True, size=4096),
    "create a view on the log": on_audit(create="seen", viewOn="audit_log", pipeline=[]),
    "create another collection": on_audit(create="audit_log_2"),
    "insert beside the log": on_audit(insert="other", documents=[{"_id": 1}]),
    "insert a view": on_audit(insert="system.views", documents=[{"_id": "a.b", "viewOn": "audit_log", "pipeline": []}]),
    "collMod without validator": on_audit(collMod="audit_log", validator={}),
    "collMod validation off": on_audit(collMod="audit_log", validationLevel="off"),
    "collMod validation warns": on_audit(collMod="audit_log", validationAction="warn"),
    "collMod index": on_audit(collMod="audit_log", index={"name": "ix_audit_entity", "hidden": True}),
    "collMod pre-images": on_audit(collMod="audit_log", changeStreamPreAndPostImages={"enabled": False}),
    "convertToCapped": on_audit(convertToCapped="audit_log", size=4096),
    "cloneCollectionAsCapped": on_audit(cloneCollectionAsCapped="audit_log", toCollection="copy", size=4096),
    "createIndexes": on_audit(createIndexes="audit_log", indexes=[{"key": {"outcome": 1}, "name": "x"}]),
    "createIndexes TTL": on_audit(
        createIndexes="audit_log", indexes=[{"key": {"created_at": 1}, "name": "ttl", "expireAfterSeconds": 0}]
    ),
    "createIndexes unique": on_audit(
        createIndexes="audit_log", indexes=[{"key": {"entity_id": 1}, "name": "u", "unique": True}]
    ),
    "dropIndexes": on_audit(dropIndexes="audit_log", index="*"),
    "compact": on_audit(compact="audit_log"),
    "reIndex": on_audit(reIndex="audit_log"),
    "validate with repair": on_audit(validate="audit_log", repair=True),
    "profile": on_audit(profile=2),
    "applyOps update": apply_operation(lambda ns: {"op": "u", "ns": ns, "o2": {"_id": ID}, "o": {"$v": 1, **CHANGE}}),
    "applyOps delete": apply_operation(lambda ns: {"op": "d", "ns": ns, "o": {"_id": ID}}),
    "applyOps insert": apply_operation(lambda ns: {"op": "i", "ns": ns, "o": {**OTHER, "_id": "x"}}),
    "applyOps drop": apply_operation(
        lambda ns: {"op": "c", "ns": f"{ns.partition('.')[0]}.$cmd", "o": {"drop": "audit_log"}}
    ),
    "createUser": own_users(createUser="mallory", pwd="x", roles=[{"role": "root", "db": "admin"}]),
    "createUser in admin": on_admin(
        lambda _: {"createUser": "mallory", "pwd": "x", "roles": [{"role": "root", "db": "admin"}]}
    ),
    "updateUser": own_users(updateUser="compliance_worker", roles=[{"role": "root", "db": "admin"}]),
    "grantRolesToUser": own_users(
        grantRolesToUser="compliance_worker", roles=[{"role": "readWriteAnyDatabase", "db": "admin"}]
    ),
    "dropUser": own_users(dropUser="compliance_auditor"),
    "dropAllUsersFromDatabase": own_users(dropAllUsersFromDatabase=1),
    "createRole": on_admin(lambda _: {"createRole": "mallory", "privileges": [], "roles": ["root"]}),
    "updateRole": on_admin(lambda databases: {"updateRole": f"compliance_worker@{databases.name}", "roles": ["root"]}),
    "grantRolesToRole": on_admin(
        lambda databases: {"grantRolesToRole": f"compliance_worker@{databases.name}", "roles": ["root"]}
    ),
    "grantPrivilegesToRole": on_admin(
        lambda databases: {
            "grantPrivilegesToRole": f"compliance_worker@{databases.name}",
            "privileges": [
                {"resource": {"db": databases.audit.name, "collection": "audit_log"}, "actions": ["update", "remove"]}
            ],
        }
    ),
    "write system.users": lambda databases: databases.client.admin["system.users"].update_many({}, {"$set": {"a": 1}}),
    "setParameter": on_admin(lambda _: {"setParameter": 1, "ttlMonitorEnabled": True}),
    "replSetStepDown": on_admin(lambda _: {"replSetStepDown": 1}),
    "replSetReconfig": on_admin(lambda _: {"replSetReconfig": {"_id": "rs0", "version": 99, "members": []}}),
    "setFeatureCompatibilityVersion": on_admin(lambda _: {"setFeatureCompatibilityVersion": "5.0"}),
    "logRotate": on_admin(lambda _: {"logRotate": 1}),
    "write the oplog": lambda databases: databases.client["local"]["oplog.rs"].insert_one({"ts": 1}),
    "delete from the oplog": lambda databases: databases.client["local"]["oplog.rs"].delete_many({}),
    "delete pre-images": lambda databases: databases.client["config"]["system.preimages"].delete_many({}),
    "end transactions of others": lambda databases: databases.client["config"]["transactions"].delete_many({}),
    "eval": on_audit(eval="db.audit_log.drop()"),
    "copydb": on_admin(lambda databases: {"copydb": 1, "fromdb": databases.name, "todb": databases.audit.name}),
    "doTxn": on_admin(lambda databases: {"doTxn": [{"op": "d", "ns": f"{databases.audit.name}.audit_log", "o": {}}]}),
}


@pytest.fixture(scope="module")
def shared(stack: Stack) -> Iterator[tuple[Deployment, Databases]]:
    """One database for the whole table of attempts, with one entry in its log, and the administrator's view of it."""
    with ExitStack() as cleanup:
        deployment = provision_database(stack, f"t_{uuid.uuid4().hex[:12]}", cleanup)
        for role in (Role.WORKER, Role.MIGRATOR, Role.SEALER):
            deployment.services(role)
        admin = deployment.admin
        admin.app["users"].insert_one({"_id": 1})
        worker = deployment.worker
        worker.transact(lambda session: deployment.services().log.append(ENTRY, session=session))
        yield deployment, admin


def state_of_the_log(admin: Databases) -> tuple[list[bytes], list[Document], list[str], list[Document]]:
    """Everything about the log that an attempt could change: bytes, options, neighbours, indexes."""
    raw = admin.audit["audit_log"].find_raw_batches({}, sort={"_id": 1})
    found = sorted(admin.audit.list_collections(), key=lambda info: info["name"])
    indexes = admin.audit["audit_log"].list_indexes()
    return list(raw), [dict(info) for info in found], [info["name"] for info in found], [dict(one) for one in indexes]


@pytest.mark.parametrize("role", [Role.WORKER, Role.MIGRATOR, Role.SEALER])
@pytest.mark.parametrize("name", ATTEMPTS)
def test_no_process_can_alter_an_entry(shared: tuple[Deployment, Databases], name: str, role: Role) -> None:
    deployment, admin = shared
    before = state_of_the_log(admin)

    with pytest.raises(OperationFailure) as refused:
        ATTEMPTS[name](deployment.services(role).databases)

    assert code_of(refused.value) in (UNAUTHORIZED, NO_SUCH_COMMAND)
    after = state_of_the_log(admin)
    if name == "bulk insert and delete":  # its insert may pass, its delete may not
        assert after[0] != before[0]
        admin.audit["audit_log"].delete_one({"_id": "f" * 32})
        after = state_of_the_log(admin)
    assert after == before


@pytest.mark.parametrize("role", [Role.WORKER, Role.MIGRATOR])
def test_only_the_watcher_reads_the_oplog(shared: tuple[Deployment, Databases], role: Role) -> None:
    with pytest.raises(OperationFailure) as refused:
        shared[0].services(role).databases.client["local"]["oplog.rs"].find_one()

    assert refused.value.code == UNAUTHORIZED


def code_of(error: OperationFailure) -> int | None:
    if isinstance(error, BulkWriteError):
        return int(error.details["writeErrors"][0]["code"])
    return error.code


@pytest.mark.parametrize("role", [Role.WORKER, Role.MIGRATOR, Role.SEALER])
def test_entries_can_be_added_and_read(empty: Deployment, role: Role) -> None:
    log = empty.services(role).log
    log.databases.transact(lambda session: log.append(ENTRY, session=session))

    assert [entry["_id"] for entry in log.about("user", PERSON)] == [ID]
    assert faults_of_entries(empty) == []
