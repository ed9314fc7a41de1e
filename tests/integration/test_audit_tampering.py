"""What is no entry the server refuses, and what root alters is named."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import bson
import pytest
from bson import DatetimeMS, ObjectId
from bson.raw_bson import RawBSONDocument
from deployment import Deployment, provision_database
from entries import CHANGE, ENTRY, ID, NOON, OTHER, PERSON
from pymongo.errors import OperationFailure
from sealed import SealedLog
from signing import signed

from compliance.audit.stored import find_stored_fault, stored_entries, stored_id
from compliance.mongo import Databases, Document
from worker.embedded import Stack


@pytest.fixture(scope="module")
def root_log(stack: Stack) -> Iterator[tuple[Deployment, Databases]]:
    with ExitStack() as cleanup:
        deployment = provision_database(stack, f"t_{uuid.uuid4().hex[:12]}", cleanup)
        yield deployment, deployment.admin


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


@pytest.mark.parametrize("name", TAMPERING)
def test_verification_names_the_entry_that_root_altered(root_log: tuple[Deployment, Databases], name: str) -> None:
    deployment, admin = root_log
    admin.audit["audit_log"].delete_many({})
    log = deployment.services().log
    for entry in (replace(ENTRY, event="e-0"), ENTRY, replace(ENTRY, event="e-2")):
        log.databases.transact(lambda session, entry=entry: log.append(entry, session=session))
    admin.audit["audit_log"].update_one({"_id": ID}, [TAMPERING[name]], bypass_document_validation=True)

    faults = faults_by_id(deployment)

    assert {id_: (fault or "").split(" ")[0] for id_, fault in faults.items() if fault} == {ID: "MODIFIED"}


def test_text_that_is_no_utf_8_is_a_fault_and_no_error(root_log: tuple[Deployment, Databases]) -> None:
    deployment, admin = root_log
    admin.audit["audit_log"].delete_many({})
    log = deployment.services().log
    log.databases.transact(lambda session: log.append(ENTRY, session=session))
    broken = RawBSONDocument(bson.encode(signed(ENTRY)[0] | {"_id": "x"}).replace(b"success", b"\xff\xfe\xfdcess"))
    admin.audit["audit_log"].insert_one(broken, bypass_document_validation=True)

    assert faults_by_id(deployment) == {
        ID: None,
        None: "MODIFIED it holds more than can be read, such as a field twice",
    }


def faults_by_id(deployment: Deployment) -> dict[str | None, str | None]:
    found = stored_entries(deployment.admin).find()
    return {stored_id(raw): find_stored_fault(raw, deployment.addresses.trust()) for raw in found}


def test_the_job_reports_an_altered_entry_and_records_that_it_looked(deployment: Deployment, tmp_path: Path) -> None:
    admin = deployment.admin
    SealedLog(deployment, tmp_path / "guard.json").seal_all()
    victim = admin.audit["audit_log"].find_one_and_update({}, CHANGE)
    assert victim is not None

    job = deployment.run("audit.verify", {})

    assert job.state == "done"
    (finding,) = (job.result or {})["findings"]
    assert finding.startswith(f"MODIFIED entry {victim['_id']} ")
    verified = deployment.entries(action="audit.verified")
    assert [(entry["outcome"], entry["details"]["findings"]) for entry in verified] == [("failure", 1)]
