"""What an auditor takes home is of the log that was sealed last, whatever an entry is dated."""

from datetime import timedelta
from pathlib import Path

from deployment import Deployment
from sealed import SealedLog, an_entry
from waiting import wait_until

from compliance.audit.checkpoint import parse_checkpoint
from compliance.audit.note import parse_note
from worker.cli.audit_receipts import last_checkpoint


def test_the_last_checkpoint_is_of_the_log_that_was_sealed_last(deployment: Deployment, tmp_path: Path) -> None:
    sealed = SealedLog(deployment, tmp_path / "guard.json")
    size = sealed.seal_all()
    (present,) = sealed.seals.logs()
    now, log = deployment.services().clock.now(), deployment.services().log
    ahead = an_entry(deployment, created_at=now.replace(year=now.year + 1, month=6, day=1))
    with sealed.running():
        log.databases.transact(lambda session: log.append(ahead, session=session))
        wait_until(lambda: len(sealed.seals.logs()) == 2, timeout=30, what="the next year is sealed")
        sealed.append(1)
        wait_until(
            lambda: sealed.seals.checkpoints.note(present, size + 1) is not None, timeout=30, what="so is this one"
        )
    found = parse_checkpoint(parse_note(last_checkpoint(sealed.seals, deployment.addresses.trust()))[0])

    assert max(sealed.seals.logs()) != present
    assert (found.origin, found.size) == (present, size + 1)


def test_a_log_of_another_name_is_not_taken_home(deployment: Deployment, tmp_path: Path) -> None:
    sealed = SealedLog(deployment, tmp_path / "guard.json")
    sealed.seal_all()
    audit, trust = deployment.admin.audit, deployment.addresses.trust()
    before = last_checkpoint(sealed.seals, trust)
    batch = audit["audit_batches"].find_one({})
    assert batch is not None
    ahead = batch["sealed_at"] + timedelta(days=900)
    for log in ("evil/2099", f"{trust.origin}/2099"):
        audit["audit_batches"].insert_one(batch | {"_id": {"log": log, "start": 0}, "sealed_at": ahead})
        note = before.replace(trust.origin.encode(), b"evil")
        audit["audit_checkpoints"].insert_one({"_id": {"log": log, "size": batch["n"]}, "note": note})

    assert last_checkpoint(sealed.seals, trust) == before
