"""The watcher is killed while the audit database is tampered with: every act is one incident."""

from pathlib import Path

from deployment import Deployment
from system import filled_system

from compliance.roles import AUDIT_LOG, CHECKPOINTS, INCIDENTS
from worker.oplog import PLACE_ID

ACTS = 60
HIDDEN = 30  # acts behind the first half are applied by hand, unseen by change streams


def tamper(deployment: Deployment, act: int) -> None:
    audit = deployment.admin.audit
    entry = audit[AUDIT_LOG].find_one({})
    assert entry is not None
    if act < HIDDEN:
        audit[AUDIT_LOG].update_one({"_id": entry["_id"]}, {"$set": {"performed_by": f"root-{act}"}})
        return
    change = {"$v": 2, "diff": {"u": {"performed_by": f"root-{act}"}}}
    operation = {"op": "u", "ns": f"{audit.name}.{AUDIT_LOG}", "o2": {"_id": entry["_id"]}, "o": change}
    deployment.admin.client.admin.command("applyOps", [operation])


def test_a_watcher_that_is_killed_again_and_again_loses_and_repeats_no_incident(
    deployment: Deployment, tmp_path: Path
) -> None:
    audit = deployment.admin.audit
    kept, tokens = audit[INCIDENTS], deployment.admin.compliance["watch_tokens"]
    with filled_system(deployment, tmp_path) as system:
        (watcher,) = system.start("watcher").children
        for stream in (audit.name, PLACE_ID):
            system.wait_for(lambda stream=stream: tokens.find_one({"_id": stream}), f"{stream} is followed")
        # What is altered before it is sealed is told of by the sealer, too.
        system.wait_for(lambda: audit[CHECKPOINTS].find_one({}), "the log is sealed")
        for act in range(ACTS):
            tamper(deployment, act)
            if act in (HIDDEN // 2, HIDDEN + HIDDEN // 2):
                kind = "MODIFIED" if act < HIDDEN else "APPLY-OPS"
                system.wait_for(lambda kind=kind: kept.count_documents({"kind": kind}), "it is at work")
                watcher.process.kill()
                watcher.process.wait()
                (watcher,) = system.start("watcher").children
        hidden = ACTS - HIDDEN
        tamper(deployment, 0)
        tamper(deployment, HIDDEN)  # the last of each kind: when these are kept, nothing comes again
        system.wait_for(lambda: kept.count_documents({"kind": "MODIFIED"}) > HIDDEN, "all that is shown is kept")
        system.wait_for(lambda: kept.count_documents({"kind": "APPLY-OPS"}) > hidden, "all that is hidden is kept")

    assert kept.count_documents({"kind": "MODIFIED"}) == HIDDEN + 1
    assert kept.count_documents({"kind": "APPLY-OPS"}) == hidden + 1


def test_a_place_that_was_moved_on_while_the_watcher_was_down_hides_nothing(
    deployment: Deployment, tmp_path: Path
) -> None:
    audit = deployment.admin.audit
    kept, tokens = audit[INCIDENTS], deployment.admin.compliance["watch_tokens"]
    file = tmp_path / "seal-guard.watch.json"
    with filled_system(deployment, tmp_path) as system:
        (watcher,) = system.start("watcher").children
        for stream in (audit.name, PLACE_ID):
            system.wait_for(lambda stream=stream: file.exists() and stream in file.read_text(), f"{stream} is followed")
        watcher.process.kill()
        watcher.process.wait()
        tamper(deployment, 0)
        tamper(deployment, HIDDEN)
        newest = deployment.admin.client["local"]["oplog.rs"].find_one(sort=[("$natural", -1)])
        assert newest is not None
        tokens.update_one({"_id": PLACE_ID}, {"$set": {"token": {"ts": newest["ts"]}}})
        with audit.watch() as stream:
            tokens.update_one({"_id": audit.name}, {"$set": {"token": stream.resume_token}})
        system.start("watcher")
        shown, hidden = {"what": {"$regex": "^audit_log: .* was updated$"}}, {"kind": "APPLY-OPS"}
        system.wait_for(lambda: kept.count_documents(shown), "what is shown is kept")
        system.wait_for(lambda: kept.count_documents(hidden), "what is hidden is kept")

    assert (kept.count_documents(shown), kept.count_documents(hidden)) == (1, 1)
