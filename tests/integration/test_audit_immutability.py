"""The audit log cannot be altered with the credentials of any process, and what root alters is named."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pytest
from bson import DatetimeMS, ObjectId
from bson.raw_bson import RawBSONDocument
from deployment import Deployment, provision_database
from pymongo import DeleteOne, InsertOne, ReplaceOne, UpdateOne
from pymongo.errors import BulkWriteError, OperationFailure
from pymongo.write_concern import WriteConcern
from signing import signed, smuggled

from compliance.audit.entry import Entry
from compliance.audit.verify import verify
from compliance.errors import ConfigurationError, DuplicateEntry, StepRefused
from compliance.jobs.document import new_document
from compliance.jobs.job import to_request_id
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Databases, Document, Session, open_client
from compliance.provision import altering_rights
from compliance.roles import Role
from worker.embedded import Stack

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
UNAUTHORIZED = 13
NO_SUCH_COMMAND = 59
PERSON = ObjectId("0123456789abcdef01234567")
ENTRY = Entry(
    event="e-1",
    entity_type="user",
    entity_id=PERSON,
    action="consent.granted",
    created_at=NOON,
    performed_by="test",
    details={"documents": 3, "fields": ["type", "granted"]},
)
(OTHER,) = signed(
    Entry(event="e-2", entity_type="user", entity_id=PERSON, action="hold.placed", created_at=NOON, performed_by="x")
)
ID = ENTRY.id
CHANGE = {"$set": {"outcome": "failure"}}

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
    "read the oplog": lambda databases: databases.client["local"]["oplog.rs"].find_one(),
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


def code_of(error: OperationFailure) -> int | None:
    if isinstance(error, BulkWriteError):
        return int(error.details["writeErrors"][0]["code"])
    return error.code


@pytest.mark.parametrize("role", [Role.WORKER, Role.MIGRATOR, Role.SEALER])
def test_entries_can_be_added_and_read(empty: Deployment, role: Role) -> None:
    log = empty.services(role).log
    log.databases.transact(lambda session: log.append(ENTRY, session=session))

    assert [entry["_id"] for entry in log.about("user", PERSON)] == [ID]
    assert verify(log.all(), empty.addresses.trust()).is_ok


def claimed(deployment: Deployment, request_id: str = "r-1") -> Run:
    services = deployment.services()
    document = new_document(to_request_id(request_id), kind="k", payload={}, origin="test", now=NOON)
    recorded = services.ledger.record(document)
    claim = services.ledger.claim(recorded.request_id, owner="test", lease=timedelta(seconds=30))
    assert claim is not None
    return Run(claim=claim, ledger=services.ledger, log=services.log, clock=services.clock)


def business_write(deployment: Deployment) -> Callable[[Session], None]:
    """Something that a worker may do: a consent of PERSON."""
    consent = deployment.worker.app["consent"]
    document = {"user_id": PERSON, "type": "MARKETING", "granted": True, "timestamp": NOON}
    return lambda session: consent.insert_one(dict(document), session=session) and None


def test_an_entry_that_the_validator_refuses_takes_its_effect_back(deployment: Deployment) -> None:
    run, write = claimed(deployment), business_write(deployment)

    def effect(session: Session) -> Outcome:
        write(session)
        deployment.worker.audit["audit_log"].insert_one({"_id": "not an entry"}, session=session)
        return Outcome()

    with pytest.raises(StepRefused):
        run.commit(effect)

    assert deployment.admin.app["consent"].count_documents({}) == 0


def test_a_refused_entry_of_an_outcome_takes_its_effect_back(deployment: Deployment) -> None:
    run, write = claimed(deployment), business_write(deployment)
    wrong = smuggled(replace(ENTRY, event="e"), entity_id="ann@example.org")

    def effect(session: Session) -> Outcome:
        write(session)
        return Outcome(entries=(ENTRY, wrong), result={"done": 1})

    with pytest.raises(StepRefused) as refused:
        run.commit(effect)

    assert "ann" not in str(refused.value)
    assert deployment.admin.app["consent"].count_documents({}) == 0
    assert deployment.entries(request_id=None, action=ENTRY.action) == []
    job = deployment.services().ledger.find("r-1")
    assert job is not None
    assert job.state == "running"


@pytest.mark.parametrize("method", ["update_one", "delete_one"])
def test_a_denied_write_inside_a_transaction_commits_nothing(deployment: Deployment, method: str) -> None:
    run, write = claimed(deployment), business_write(deployment)
    run.commit(lambda _: Outcome(entries=(ENTRY,)))
    arguments = ({"_id": ID}, CHANGE) if method == "update_one" else ({"_id": ID},)

    def effect(session: Session) -> Outcome:
        write(session)
        getattr(deployment.worker.audit["audit_log"], method)(*arguments, session=session)
        return Outcome(result={"done": 1})

    with pytest.raises(ConfigurationError):
        run.commit(effect)

    assert deployment.admin.app["consent"].count_documents({}) == 0
    assert len(deployment.entries(_id=ID)) == 1


def test_without_the_right_to_record_nothing_happens(deployment: Deployment) -> None:
    admin = deployment.admin
    person = {
        "_id": PERSON,
        "email": "mara@example.org",
        "role": "listener",
        "status": "ACTIVE",
        "subscription_type": "FREE",
        "created_at": NOON,
    }
    admin.app["users"].insert_one(person)
    log = {"db": admin.audit.name, "collection": "audit_log"}
    admin.client.admin.command(
        "revokePrivilegesFromRole",
        f"compliance_worker@{admin.name}",
        privileges=[{"resource": log, "actions": ["insert"]}],
    )
    message = {
        "event_id": "e-1",
        "subject_id": str(PERSON),
        "type": "MARKETING",
        "granted": True,
        "occurred_at": NOON.isoformat(),
    }

    with pytest.raises(ConfigurationError, match="lacks a privilege"):
        deployment.run("consent.update", message)

    assert admin.app["consent"].count_documents({}) == 0
    assert admin.compliance["consent_events"].count_documents({}) == 0


NO_ENTRIES: dict[str, Document] = {
    "an address as entity": {"entity_id": "ann@example.org"},
    "an address as actor": {"performed_by": "ann@example.org"},
    "a field too many": {"email": "ann@example.org"},
    "an address in details": {"details": {"who": "ann@example.org"}},
    "an address in a list": {"details": {"who": ["FREE", "ann@example.org"]}},
    "an object in a list": {"details": {"who": [{"email": "ann"}]}},
    "texts two levels down": {"details": {"who": {"email": "ann"}}},
    "an unknown outcome": {"outcome": "perhaps"},
    "a sentence as action": {"action": "Erase everything"},
    "a text as time": {"created_at": "yesterday"},
    "no signature": {"sig": "0"},
    "another version": {"v": 2},
    "an address as host": {"source": OTHER["source"] | {"host": "ann@example.org"}},
    "a field too many in its source": {"source": OTHER["source"] | {"email": "ann"}},
    "a field too many of its writer": {"writer": OTHER["writer"] | {"email": "ann"}},
    "no stream": {"writer": {name: value for name, value in OTHER["writer"].items() if name != "stream"}},
    "a number below zero": {"writer": OTHER["writer"] | {"seq": -1}},
    "an address as the service that asked": {"requested_by": "ann@example.org"},
    "another id": {"_id": ObjectId(PERSON)},
    "a wrapper as entity": {"entity_id": {"$oid": str(PERSON)}},
}


@pytest.mark.parametrize("name", NO_ENTRIES)
def test_the_server_itself_refuses_what_is_no_entry(root_log: tuple[Deployment, Databases], name: str) -> None:
    deployment, admin = root_log
    before = admin.audit["audit_log"].count_documents({})

    with pytest.raises(OperationFailure) as refused:
        deployment.worker.audit["audit_log"].insert_one(OTHER | NO_ENTRIES[name])

    assert refused.value.code == 121
    assert admin.audit["audit_log"].count_documents({}) == before


def test_the_same_event_twice_is_one_entry_and_one_effect(deployment: Deployment) -> None:
    run, write = claimed(deployment), business_write(deployment)

    run.commit(lambda _: Outcome(entries=(ENTRY,)))

    def effect(session: Session) -> Outcome:
        write(session)
        return Outcome(entries=(ENTRY,), checkpoint={"done": True})

    with pytest.raises(DuplicateEntry):
        run.commit(effect)

    assert deployment.admin.app["consent"].count_documents({}) == 0
    assert len(deployment.entries(_id=ID)) == 1
    job = deployment.services().ledger.find("r-1")
    assert job is not None
    assert job.checkpoint == {}


# What root does to the entry, as an update pipeline: it can write what an update document cannot, keys with a dollar.
TAMPERING: dict[str, Document] = {
    "changed a value": {"$set": {"outcome": "failure"}},
    "changed a count": {"$set": {"details.documents": 4}},
    "changed the type of a number": {"$set": {"details.documents": 3.0}},
    "changed the time": {"$set": {"created_at": NOON + timedelta(milliseconds=1)}},
    "moved the time out of range": {"$set": {"created_at": DatetimeMS(2**60)}},
    "changed the person": {"$set": {"entity_id": ObjectId("fedcba9876543210fedcba98")}},
    "hid the person behind a wrapper": {"$set": {"entity_id": {"$literal": {"$oid": str(PERSON)}}}},
    "hid the time behind a wrapper": {"$set": {"created_at": {"$literal": {"$date": round(NOON.timestamp() * 1000)}}}},
    "added a field": {"$set": {"note": "x"}},
    "added a nested field": {"$set": {"details.note": "x"}},
    "took a field away": {"$unset": "performed_by"},
    "took the signature away": {"$unset": "sig"},
    "changed the signature": {"$set": {"sig": "0" * 88}},
    "changed its place in the stream": {"$set": {"writer.seq": 7}},
    "put bytes in": {"$set": {"details.documents": b"\x00"}},
}


@pytest.fixture(scope="module")
def root_log(stack: Stack) -> Iterator[tuple[Deployment, Databases]]:
    with ExitStack() as cleanup:
        deployment = provision_database(stack, f"t_{uuid.uuid4().hex[:12]}", cleanup)
        yield deployment, deployment.admin


@pytest.mark.parametrize("name", TAMPERING)
def test_verification_names_the_entry_that_root_altered(root_log: tuple[Deployment, Databases], name: str) -> None:
    deployment, admin = root_log
    admin.audit["audit_log"].delete_many({})
    log = deployment.services().log
    for entry in (replace(ENTRY, event="e-0"), ENTRY, replace(ENTRY, event="e-2")):
        log.databases.transact(lambda session, entry=entry: log.append(entry, session=session))
    admin.audit["audit_log"].update_one({"_id": ID}, [TAMPERING[name]], bypass_document_validation=True)

    report = verify(log.all(), deployment.addresses.trust())

    assert report.entries == 3
    assert [finding.split(":")[0] for finding in report.findings] == [f"MODIFIED {ID}"]


def test_verification_goes_on_behind_text_that_is_no_utf_8(root_log: tuple[Deployment, Databases]) -> None:
    deployment, admin = root_log
    admin.audit["audit_log"].delete_many({})
    log = deployment.services().log
    log.databases.transact(lambda session: log.append(ENTRY, session=session))
    broken = RawBSONDocument(bson.encode(signed(ENTRY)[0] | {"_id": "x"}).replace(b"success", b"\xff\xfe\xfdcess"))
    admin.audit["audit_log"].insert_one(broken, bypass_document_validation=True)

    report = verify(log.all(), deployment.addresses.trust())

    assert [finding.split(":")[0] for finding in report.findings] == ["FORGED x"]


def test_the_job_reports_an_altered_entry_and_records_that_it_looked(deployment: Deployment) -> None:
    admin = deployment.admin
    victim = admin.audit["audit_log"].find_one_and_update({}, CHANGE)
    assert victim is not None

    job = deployment.run("audit.verify", {})

    assert job.state == "done"
    assert [finding.split(":")[0] for finding in (job.result or {})["findings"]] == [f"MODIFIED {victim['_id']}"]
    verified = deployment.entries(action="audit.verified")
    assert [(entry["outcome"], entry["details"]["findings"]) for entry in verified] == [("failure", 1)]


@pytest.mark.parametrize("role", list(Role))
def test_no_process_holds_a_right_to_alter_the_log(empty: Deployment, role: Role) -> None:
    assert altering_rights(empty.services(role).databases) == frozenset()


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (["readWrite@{0}_audit"], {"update", "remove", "dropCollection"}),
        (["dbAdmin@{0}_audit"], {"collMod", "dropDatabase", "createIndex"}),
        (["readWriteAnyDatabase@admin"], {"update", "remove"}),
        (["root@admin"], {"update", "remove", "collMod", "dropCollection"}),
        (["compliance_worker@{0}@admin", "dbOwner@{0}"], set()),
    ],
    ids=lambda value: ",".join(sorted(value)),
)
def test_a_user_with_more_rights_than_needed_is_noticed(
    empty: Deployment, roles: list[str], expected: set[str]
) -> None:
    admin = empty.admin
    user = f"over_{empty.name}"
    granted = [text.format(empty.name).rsplit("@", 1) for text in roles]
    admin.compliance.command(
        "createUser", user, pwd="secret", roles=[{"role": role, "db": database} for role, database in granted]
    )
    uri = (
        f"mongodb://{user}:secret@127.0.0.1:{empty.stack.endpoints.mongod_ports[0]}/?authSource={empty.name}_compliance"
    )

    with open_client(uri, app_name="test") as client:
        found = altering_rights(Databases(client, empty.name))

    assert found >= expected
    assert bool(found) == bool(expected)
