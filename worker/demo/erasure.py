"""The main part of the story: one person asks to be erased, and sees what becomes of it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from bson import ObjectId
from pymongo.errors import OperationFailure

from compliance.audit.log import AuditLog
from compliance.erasure.locate import Locator, find_identity
from compliance.erasure.plan import compile_steps
from compliance.erasure.request import Requests
from compliance.errors import IntegrityError, UnknownSubject
from compliance.health.report import HEALTH_CHECKS
from compliance.jobs.job import Job
from compliance.mongo import UNAUTHORIZED, Document, driver_errors
from compliance.roles import AUDIT_LOG
from worker.demo.stage import Stage

PLAN, ERASE = "demo-plan", "demo-erasure"
BATCHES_SHOWN = 3


def meet(stage: Stage, subject_id: ObjectId) -> None:
    """Show what the database knows of the person."""
    stage.show.chapter(
        "A person",
        "The person is made up, so for once we show what the database knows. From here on there is only the opaque "
        "id: no name and no address reaches a message, a log or an audit entry.",
    )
    identity = find_identity(stage.worker.app, stage.data_map, subject_id)
    with driver_errors():
        user = stage.worker.app["users"].find_one({"_id": subject_id})
        artist = stage.worker.app["artists"].find_one({"user_id": subject_id})
    if identity is None or user is None or artist is None:
        raise UnknownSubject("the person of the story is missing")
    profile, home = user["preferences"]["profile"], user["preferences"]["address"]
    locator = Locator(stage.worker.app, stage.data_map, identity)
    counts: Counter[str] = Counter()
    for step in compile_steps(stage.data_map):
        counts[step.collection] += locator.count(step)
    stage.show.table(
        (
            ("opaque id", subject_id),
            ("name", f"{profile['given_name']} {profile['family_name']}, on stage: {artist['display_name']}"),
            ("e-mail", user["email"]),
            ("lives at", f"{home['street']}, {home['postal_code']} {home['city']}"),
        )
    )
    found = {name: count for name, count in counts.items() if count}
    listed = ", ".join(f"{name} {count}" for name, count in found.items() if not name.endswith("_history"))
    old = sum(count for name, count in found.items() if name.endswith("_history"))
    stage.show.say("")
    stage.show.text(f"Documents: {listed}; and {old} old versions in history collections, some known only by e-mail.")


def plan(stage: Stage, subject_id: ObjectId) -> None:
    """Ask for a dry run and show the plan."""
    stage.show.chapter(
        "A dry run, asked for by another service",
        "Any Celery client in any language can ask. The message holds ids only, and nothing is changed yet:",
    )
    stage.show.code(
        'Celery(broker=...).send_task("compliance.erasure.request",',
        '    kwargs={"subject_id": "...", "request_id": "...", "dry_run": True},',
        '    queue="compliance.erasure")',
    )
    stage.show.say("")
    stage.send("erasure.request", subject_id=str(subject_id), request_id=PLAN, dry_run=True)
    stage.finished(PLAN)
    request = _request(stage, PLAN)
    stage.show.table([("collection", "action", "documents", "old versions"), *_plan_rows(request["plan"])])
    stage.show.say("")
    stage.show.text("What would be kept in part, and the legal ground that allows it (chapter 6 says why):")
    grounds = ((item["collection"], item["documents"], item["ground"]) for item in request["kept"])
    stage.show.table((name, count, ground) for name, count, ground in grounds if not name.endswith("_history"))


def erase(stage: Stage, subject_id: ObjectId) -> None:
    """Ask for the erasure and follow it."""
    stage.show.chapter(
        "The erasure, live",
        "The same message without dry_run, sent twice, as brokers sometimes deliver: one request_id is one job. Each "
        "batch is one transaction with its audit entry and its progress, so a crash loses nothing and repeats nothing.",
    )
    for _ in range(2):
        stage.send("erasure.request", subject_id=str(subject_id), request_id=ERASE)
    seen: dict[str, None] = {}

    def follow(job: Job) -> None:
        line = _progress(job)
        if line is not None and line not in seen:
            seen[line] = None
            stage.show.point(line)

    job = stage.finished(ERASE, watch=follow)
    result = job.result or {}
    stage.show.point(
        f"{str(result['state']).replace('_', ' ')}: {result['documents']} documents in {len(result['affected'])} "
        "collections; every collection was searched again, nothing is left"
    )


def follow_up(stage: Stage, subject_id: ObjectId) -> None:
    """Show the health check that the change stream asked for."""
    stage.show.chapter(
        "The change stream answers",
        "Nobody asked for this check: the watcher saw the deletion in the change stream and asked for it.",
    )
    query = {"subject_id": subject_id, "cause": "change"}

    def look() -> Document | None:
        with driver_errors():
            return stage.auditor.compliance[HEALTH_CHECKS].find_one(query)

    check = stage.wait(look, what="the health check after the deletion")
    deleted = next(
        entry["created_at"]
        for entry in AuditLog(stage.auditor).of_request(ERASE)
        if entry["action"] == "erasure.batch" and entry["details"]["collection"] == stage.data_map.subject.collection
    )
    delay = (check["checked_at"] - deleted).total_seconds()
    stage.show.table(
        (
            ("check", check["check"]),
            ("status", check["status"]),
            ("cause", f"{check['cause']} (event of the change stream)"),
            ("checked", f"{delay:.1f} s after the deletion"),
        )
    )


def trail(stage: Stage) -> None:
    """Show the audit entries of the request, and that the worker cannot alter them."""
    stage.show.chapter(
        "The audit trail",
        "Effect and entry commit in one transaction. Read by the auditor's user, who can read and nothing else:",
    )
    entries = list(AuditLog(stage.auditor).of_request(ERASE))
    stage.show.table(_entry_rows(entries))
    stage.show.say("")
    stage.show.text("Now the worker's own user tries to alter the first entry:")
    log, first = stage.worker.audit[AUDIT_LOG], {"_id": entries[0]["_id"]}
    try:
        log.update_one(first, {"$set": {"performed_by": "nobody"}})
    except OperationFailure as error:
        _refused(stage, "update", error)
    else:
        raise IntegrityError("the worker's user could update the audit log")
    try:
        log.delete_one(first)
    except OperationFailure as error:
        _refused(stage, "delete", error)
    else:
        raise IntegrityError("the worker's user could delete from the audit log")


def kept(stage: Stage) -> None:
    """Show what stays, why, and who must be told."""
    stage.show.chapter(
        "What was kept, and who must be told",
        "Erasure is not absolute. Each thing that stays names the article that allows it, for the answer to the "
        "person; other systems that hold the same people are on the list, too.",
    )
    request = _request(stage, ERASE)
    for ground in _grounds(request["kept"]):
        stage.show.point(ground)
    for item in stage.data_map.kept_elsewhere:
        stage.show.point(f"{', '.join(item.fields)} - {item.ground}: {item.why}")
    for recipient in stage.data_map.recipients:
        stage.show.point(f"to tell (Art. 19): {recipient.id}, which holds {recipient.holds}")
    stage.show.point(f"answer due (Art. 12(3)): {request['due_at']:%Y-%m-%d}")
    stage.show.point("out of reach of any software: backups and MongoDB's own oplog, until they expire")


def _request(stage: Stage, request_id: str) -> Document:
    return stage.wait(lambda: Requests(stage.auditor).find(request_id), what=f"request {request_id}")


def _plan_rows(steps: Iterable[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """Return one row per collection and action; old versions stand beside their collection."""
    now: Counter[tuple[str, str]] = Counter()
    old: Counter[tuple[str, str]] = Counter()
    for step in steps:
        name = step["collection"]
        counter = old if name.endswith("_history") else now
        counter[name.removesuffix("_history"), step["action"]] += step["documents"]
    return [(*key, now[key], old[key] or "") for key in dict.fromkeys((*now, *old))]


def _grounds(kept_items: Iterable[Mapping[str, Any]]) -> list[str]:
    counts: Counter[tuple[str, str, str, str]] = Counter()
    for item in kept_items:
        name = item["collection"].removesuffix("_history")
        counts[name, ", ".join(item["fields"]), item["ground"], item["why"]] += item["documents"]
    return [f"{count} {name} ({fields}) - {ground}: {why}" for (name, fields, ground, why), count in counts.items()]


def _progress(job: Job) -> str | None:
    step, steps = job.checkpoint.get("step"), job.checkpoint.get("steps")
    if not step:
        return None
    done = sum(count for verbs in job.checkpoint.get("affected", {}).values() for count in verbs.values())
    return f"step {step:>2} of {steps}  {done:>3} documents done, now {job.checkpoint['collection']}"


def _entry_rows(entries: list[Document]) -> list[tuple[object, ...]]:
    """Return a row per entry; of many batches the first ones, and how many more."""
    batches = [entry for entry in entries if entry["action"] == "erasure.batch"]
    hidden = {entry["_id"] for entry in batches[BATCHES_SHOWN:]}
    rows: list[tuple[object, ...]] = []
    for entry in entries:
        if entry["_id"] not in hidden:
            rows.append((f"{entry['created_at']:%H:%M:%S.%f}"[:-3], entry["action"], _details(entry["details"])))
        elif entry["_id"] == batches[-1]["_id"]:
            rows.append(("...", f"and {len(hidden)} more batches", ""))
    return rows


def _details(details: Mapping[str, Any]) -> str:
    if "verb" in details:
        return f"{details['verb']} {details['documents']} of {details['collection']}"
    counts = ((name, value) for name, value in details.items() if type(value) is int)
    return ", ".join(f"{name} {value}" for name, value in counts)


def _refused(stage: Stage, what: str, error: OperationFailure) -> None:
    if error.code != UNAUTHORIZED:
        raise error
    stage.show.point(f"{what}: refused by MongoDB (error 13, Unauthorized)")
