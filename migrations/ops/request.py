"""Ask the workers for a job in the middle of a script: a health check, an export, an import, erasures.

The migrator may neither erase nor export. The request goes into the outbox in the transaction of the step, and a worker
carries it out with its own rights and audit entries.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from bson import ObjectId

from compliance.errors import GateClosed, StepFailed
from compliance.jobs.job import FINAL, Job, State
from compliance.jobs.ledger import Ledger
from compliance.mongo import Document, Session
from compliance.roles import OUTBOX
from migrations.command import Command, insert_each, send
from migrations.ops.batches import Changed, Hiding, Work
from migrations.ops.keyset import BY_ID
from migrations.ops.walk import begin, go_through
from migrations.step import Kind, Step

if TYPE_CHECKING:
    from migrations.hands import Hands

HEALTH, EXPORT = "compliance.health.check", "compliance.export.run"
IMPORT, ERASURE = "compliance.import.run", "compliance.erasure.request"
POLL = timedelta(seconds=0.5)


def request(ctx: "Hands", task: str, values: Mapping[str, Any], *, patience: timedelta) -> None:
    """Ask for one job and wait until it is done; a run that has waited for *patience* ends, and the next one waits on.

    Raises:
        GateClosed: When it is not done yet.
        StepFailed: When it was refused or parked, or what it checked is not as it should be.
    """
    step = ctx.begin(Kind.GATE, f"job {task}", task=task, values=values)
    if step is None:
        return
    ctx.report(f"ask for {task} and wait until it is done")
    if ctx.is_dry_run:
        _sketch(ctx, task, values)
        return
    request_id = step.place.get("request") or _ask(ctx, step, task, values)
    job = _wait(ctx, request_id, task, patience)
    failure = _failure(job)
    if failure is not None:
        if job.state is not State.PARKED:  # a parked one goes on with `compliance jobs retry`
            ctx.leave(step, {})  # the next run asks anew
        raise StepFailed(failure)
    ctx.finish(step, {"op": "job", "task": task, "request": request_id})


def erase(ctx: "Hands", collection: str, where: Document, *, subject: str, error_budget: int) -> None:
    """Ask for the erasure of each person of *collection* who matches *where*, once each; nobody waits for them."""
    step = begin(ctx, "erase", collection=collection, where=where, subject=subject)
    if step is None:
        return
    documents = ctx.databases.app[collection]

    def change(batch: Document, session: Session) -> Changed:
        found = list(documents.find(batch, {subject: 1}, hint=BY_ID, session=session))
        people = [one[subject] for one in found if one.get(subject) is not None]
        if people:
            send(ctx, _insert([_document(ERASURE, {"subject_id": person}) for person in people]), session=session)
        nameless = tuple((one["_id"], f"holds no {subject}") for one in found if one.get(subject) is None)
        return Changed(documents=len(people), refused=nameless)

    def sketch(_: Document, *, hiding: Hiding) -> None:
        del hiding
        _sketch(ctx, ERASURE, {"subject_id": "<id>"})

    work = Work(op="erase", collection=collection, where=where, change=change, sketch=sketch, error_budget=error_budget)
    go_through(ctx, step, work)


def _document(task: str, values: Mapping[str, Any]) -> Document:
    return {"_id": ObjectId(), "task": task, "kwargs": dict(values), "request_id": f"migration-{ObjectId()}"}


def _insert(documents: list[Document]) -> Command:
    (command,) = insert_each(OUTBOX, documents, database="compliance")
    return command


def _sketch(ctx: "Hands", task: str, values: Mapping[str, Any]) -> None:
    """Record what asks for one job; its ids are made when it runs."""
    command = _insert([_document(task, values) | {"_id": "<ObjectId>", "request_id": "<str>"}])
    ctx.sketch.add(command.masked(command.body))


def _ask(ctx: "Hands", step: Step, task: str, values: Mapping[str, Any]) -> str:
    document = _document(task, values)

    def effect(session: Session) -> None:
        send(ctx, _insert([document]), session=session)

    asked = {"request": document["request_id"]}
    is_ours = ctx.commit(step, {"op": "job", "task": task, **asked}, effect, place=lambda: asked)
    return str(document["request_id"] if is_ours else ctx.stored_place(step)["request"])


def _wait(ctx: "Hands", request_id: str, task: str, patience: timedelta) -> Job:
    end = ctx.now() + patience
    while True:
        job = Ledger(ctx.databases).find(request_id)
        if job is not None and job.state in FINAL:
            return job
        if ctx.now() >= end:
            state = f"is {job.state}" if job else "waits in the outbox: is the watcher running?"
            raise GateClosed(f"{task} {state} (request {request_id}); run `compliance migrate up` again later")
        ctx.check()
        ctx.sleep(POLL)


def _failure(job: Job) -> str | None:
    """Return what people are told where *job* is not done, or what it checked is not as it should be."""
    if job.state is not State.DONE:
        why = f": {job.error['message']}" if job.error else ""
        return f"a job is {job.state}{why}; see `compliance jobs show {job.request_id}`, then run `up` again"
    failed = (job.result or {}).get("failed")
    if failed:
        return f"not as it should be: {', '.join(failed)}; see `compliance health list`, then run `up` again"
    return None
