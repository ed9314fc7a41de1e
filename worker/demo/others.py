"""The rest of the story: consent, an access package, the four queries, and the proof that the log is whole."""

import uuid

from bson import ObjectId

from compliance.audit.log import AuditLog
from compliance.audit.verification import Report, verify_log
from compliance.consent.ledger import CONSENT, EVENTS
from compliance.errors import ComplianceError, IntegrityError
from compliance.mongo import Databases, Document, driver_errors, open_client
from compliance.roles import AUDIT_LOG, INCIDENTS
from compliance.transfer.manifest import read_manifest
from worker.demo.stage import Stage

PACKAGE = "access-package"
PARIS = (2.3522, 48.8566)
TEN_KILOMETRES = 10_000


def withdraw(stage: Stage, subject_id: ObjectId) -> None:
    """Withdraw one consent of another person."""
    stage.show.chapter(
        "Consent",
        "Another person withdraws a consent. The event is kept for ever, the current state follows from the events, "
        "and both commit with the audit entry; the message is sent twice again.",
    )
    with driver_errors():
        before = stage.worker.app[CONSENT].find_one({"user_id": subject_id, "granted": True})
    if before is None:
        raise ComplianceError("the second person of the story has granted nothing")
    event = f"demo-{uuid.uuid4()}"
    occurred_at = stage.clock.now().isoformat()
    for _ in range(2):
        stage.send(
            "consent.update",
            event_id=event,
            request_id=event,
            subject_id=str(subject_id),
            type=before["type"],
            granted=False,
            occurred_at=occurred_at,
        )
    stage.finished(event)
    with driver_errors():
        after = stage.worker.app[CONSENT].find_one({"_id": before["_id"]})
        events = stage.auditor.compliance[EVENTS].count_documents({"_id": event})
    entries = [entry["action"] for entry in AuditLog(stage.auditor).of_request(event)]
    stage.show.table(
        (
            ("purpose", before["type"]),
            ("before", "granted" if before["granted"] else "withdrawn"),
            ("after", "granted" if after is None or after["granted"] else "withdrawn"),
            ("events", events),
            ("audit entries", ", ".join(entries)),
        )
    )


def give_access(stage: Stage, subject_id: ObjectId) -> None:
    """Export everything about another person."""
    stage.show.chapter(
        "Access",
        "A third person asks for a copy of everything (GDPR Art. 15 and 20). Of things shared with others the package "
        "holds this person's part only; a manifest has the SHA-256 of every file.",
    )
    stage.send("export.run", subject_id=str(subject_id), request_id="demo-access", package=PACKAGE)
    stage.finished("demo-access")
    path = stage.system.addresses.transfer_dir() / PACKAGE
    files = read_manifest(path).files
    largest = sorted(files, key=lambda file: file.documents, reverse=True)[:4]
    stage.show.table([(file.name, f"{file.documents} documents", file.sha256[:16] + "...") for file in largest])
    documents = sum(file.documents for file in files)
    stage.show.point(f"and {len(files) - len(largest)} more files; {documents} documents in all, in")
    stage.show.code(str(path))


def answer_queries(stage: Stage, subject_id: ObjectId) -> None:
    """Run the four queries that the reference domain promises to answer."""
    stage.show.chapter(
        "Four questions that auditors and services ask",
        "Plain MongoDB queries; each has an index that a migration created and a health check watches.",
    )
    near = {"$geometry": {"type": "Point", "coordinates": list(PARIS)}, "$maxDistance": TEN_KILOMETRES}
    questions: tuple[tuple[str, Databases, str, Document, tuple[str, ...]], ...] = (
        (
            'audit_log.find({entity_type: "user", entity_id: ObjectId("...")})',
            stage.auditor,
            AUDIT_LOG,
            {"entity_type": "user", "entity_id": subject_id},
            ("action", "outcome", "performed_by"),
        ),
        ("consent.find({granted: false})", stage.worker, "consent", {"granted": False}, ("user_id", "type")),
        (
            "geo_events.find({location: {$near: {... $maxDistance: 10000}}})",
            stage.worker,
            "geo_events",
            {"location": {"$near": near}},
            ("event_type", "location"),
        ),
        (
            'multilingual_content.find({lang: "en"})',
            stage.worker,
            "multilingual_content",
            {"lang": "en"},
            ("title", "tags"),
        ),
    )
    for text, databases, collection, query, fields in questions:
        database = databases.audit if collection == AUDIT_LOG else databases.app
        with driver_errors():
            found = list(database[collection].find(query, dict.fromkeys(fields, 1)))
        if not found:
            raise IntegrityError(f"{collection} does not answer its query")
        stage.show.say(f"  db.{text}")
        stage.show.say(f"    {len(found)} found, such as {_example(found[0], fields)}")


def prove(stage: Stage) -> None:
    """Verify the log, alter an entry with full database rights, verify again, and put it back."""
    stage.show.chapter(
        "The log is whole, and a change shows",
        "Verification recomputes the hash of every entry. To see that it works, we change one with the rights of the "
        "database's administrator, which no process of ours has, and put it back.",
    )
    stage.show.point(_verdict("as written", _verify(stage)))
    with open_client(stage.system.addresses.admin_uri(), app_name="compliance-demo") as client, driver_errors():
        log = Databases(client, stage.auditor.name).audit[AUDIT_LOG]
        entry = log.find_one({"action": "erasure.completed"})
        if entry is None:
            raise IntegrityError("the erasure left no entry of its completion")
        log.update_one({"_id": entry["_id"]}, {"$set": {"performed_by": "nobody"}})
        tampered = _verify(stage)
        alarm = stage.wait(lambda: _incident(stage, entry["_id"]), what="the alarm")
        log.replace_one({"_id": entry["_id"]}, entry)
    if tampered.is_ok:
        raise IntegrityError("a changed entry was not found")
    stage.show.point(_verdict("one entry changed", tampered))
    stage.show.point(f"the alarm of the watcher: {alarm}")
    restored = _verify(stage)
    if not restored.is_ok:
        raise IntegrityError(f"the audit log is not whole: {restored.findings[0]}")
    stage.show.point(_verdict("put back", restored))


def _incident(stage: Stage, entry_id: str) -> str | None:
    """Return what the watcher kept of the change, None while it has not."""
    with driver_errors():
        found = stage.auditor.audit[INCIDENTS].find_one({"what": {"$regex": entry_id}})
    return f"{found['kind']}, {found['what']}" if found else None


def _verify(stage: Stage) -> Report:
    return verify_log(stage.auditor, stage.system.addresses.trust(), now=stage.auditor.server_time())


def _verdict(when: str, report: Report) -> str:
    found = "nothing wrong" if report.is_ok else "; ".join(map(str, report.findings))
    return f"{when}: {report.entries} entries read, {found}"


def _example(document: Document, fields: tuple[str, ...]) -> str:
    values = (document[field] for field in fields)
    shown = ", ".join(str(value["coordinates"]) if isinstance(value, dict) else str(value) for value in values)
    return shown.translate(str.maketrans("", "", "[]'"))
