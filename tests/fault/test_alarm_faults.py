"""The watcher is killed while the audit database is tampered with: every act is one incident."""

from pathlib import Path

from deployment import Deployment
from system import filled_system

from compliance.audit.schema import VALIDATORS
from compliance.roles import AUDIT_LOG, INCIDENTS

ACTS = 60


def test_a_watcher_that_is_killed_again_and_again_loses_and_repeats_no_incident(
    deployment: Deployment, tmp_path: Path
) -> None:
    audit = deployment.admin.audit
    log, kept = audit[AUDIT_LOG], audit[INCIDENTS]
    with filled_system(deployment, tmp_path) as system:
        (watcher,) = system.start("watcher").children
        tokens = deployment.admin.compliance["watch_tokens"]
        system.wait_for(lambda: tokens.find_one({"_id": audit.name}), "the watcher follows")
        for act in range(ACTS):
            log.update_one({}, {"$set": {"performed_by": f"root-{act}"}})
            if act in (ACTS // 3, 2 * ACTS // 3):
                system.wait_for(lambda: kept.count_documents({}) > 0, "it is at work")
                watcher.process.kill()
                watcher.process.wait()
                (watcher,) = system.start("watcher").children
        system.wait_for(lambda: kept.count_documents({"kind": "MODIFIED"}) >= ACTS, "all are kept")
        audit.create_collection("mark")  # behind all others: when it is seen, nothing is seen twice any more
        system.wait_for(lambda: kept.count_documents({"kind": "CREATED"}) == 1, "the mark is seen")

    assert kept.count_documents({"kind": "MODIFIED"}) == ACTS
    assert "mark" not in VALIDATORS
