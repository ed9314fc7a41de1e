"""A year of the audit log is exported, verified without a database, and pruned; the commands say what was done."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from sealed import SealedLog, an_entry
from signing import signed
from system import System
from waiting import wait_until

SIZE = 600
BELOW = 512


@pytest.fixture
def year(system: System) -> str:
    """The name of a log of which every entry is older than a year."""
    deployment = system.deployment
    before = deployment.services().clock.now() - timedelta(days=400)
    entries = (an_entry(deployment, created_at=before) for _ in range(SIZE))
    deployment.admin.audit["audit_log"].insert_many(signed(*entries, writer=deployment.addresses.writer("test")))
    sealed = SealedLog(deployment, system.home / "guard.json")
    log = f"{deployment.addresses.trust().origin}/{before.year}"
    with sealed.running():
        wait_until(lambda: sealed.seals.checkpoints.note(log, SIZE) is not None, timeout=60, what="the year is sealed")
        wait_until(lambda: f"{before.year + 1}" in sealed.seals.logs()[-1], timeout=60, what="so is the present one")
    return log


@pytest.mark.timeout(180)  # a dozen commands, one process after the other
def test_a_year_is_exported_pruned_and_proven(system: System, year: str) -> None:
    vkey = json.loads(system.compliance("audit", "keys", "--json"))["log"][0]
    nowhere = {"MONGODB_URI": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100", "COMPLIANCE_AUDITOR_URI": ""}
    ids = [id_ for batch in SealedLog(system.deployment, Path()).seals.batches(year) for id_ in batch.ids]
    prune = ("audit", "prune", "--log", year, "--below", str(BELOW), "--exported", "old")

    assert f"entries 0 to {SIZE - 1} of {year} are in old" in system.compliance("audit", "export", "--log", year, "old")
    alone = system.compliance("audit", "verify", "--files", "old", "--key", vkey, **nowhere)
    assert alone == f"{SIZE} entries of {year}, 0 findings\n"

    assert system.compliance(*prune, "--dry-run").startswith(f"{BELOW} entries would go: {year} from 0 to {BELOW - 1}")
    assert "give --yes" in system.command("compliance", *prune).stderr
    young = system.command("compliance", *prune, "--yes", COMPLIANCE_AUDIT_RETENTION_DAYS="500")
    assert (young.returncode, "COMPLIANCE_AUDIT_RETENTION_DAYS" in young.stderr) == (2, True)
    assert system.compliance("audit", "export", "--log", year, "whole", "--json")

    assert system.compliance("--as", "anna", *prune, "--yes").startswith(f"{BELOW} entries removed")
    assert {entry["performed_by"] for entry in system.deployment.entries(action="log.pruned")} == {"cli:anna"}
    assert system.compliance(*prune, "--yes") == f"nothing to remove: {year} begins at {BELOW} already\n"
    assert "0 findings" in system.compliance("audit", "verify")

    gone = system.command("compliance", "audit", "prove", ids[3])
    assert (gone.returncode, f"entry 3 of {year} was pruned" in gone.stderr) == (2, True)
    system.compliance("audit", "prove", ids[3], "--files", "old", "--output", "entry.tlog-proof")
    system.compliance("audit", "prove", ids[-1], "--output", "kept.tlog-proof")
    for receipt, index in (("entry", 3), ("kept", SIZE - 1)):
        said = system.compliance("audit", "verify-receipt", f"{receipt}.tlog-proof", "--key", vkey, **nowhere)
        assert said.startswith(f"entry {index} of {year} ")

    rest = json.loads(system.compliance("audit", "export", "--log", year, "rest", "--json"))
    assert (rest["begin"], rest["size"]) == (BELOW, SIZE)
    assert "0 findings" in system.compliance("audit", "verify", "--files", "rest", "--from", str(BELOW))
    other = system.command("compliance", "audit", "verify", "--files", "rest", "--json")
    assert (other.returncode, f"give --from {BELOW}" in other.stderr) == (4, True)
    assert json.loads(other.stdout)["findings"][0]["kind"] == "MISSING-FILE"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("audit", "verify", "--files", "x", "--since", "y"), "--files: --since, --against and --output are for"),
        (("audit", "verify", "--from", "256"), "--key and --from are for --files"),
        (("audit", "verify", "--files", "none"), "there is no folder none"),
        (("audit", "prove", "0" * 32), "there is no audit entry with this id"),
    ],
)
def test_a_wrong_call_gets_one_clear_error(system: System, arguments: tuple[str, ...], says: str) -> None:
    done = system.command("compliance", *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert says in " ".join(done.stderr.split())


def test_without_a_connection_string_nobody_prunes(system: System) -> None:
    done = system.command(
        "compliance", "audit", "prune", "--log", "x", "--below", "256", "--exported", "x", COMPLIANCE_ARCHIVER_URI=""
    )

    assert (done.returncode, done.stdout) == (78, "")
    assert "set COMPLIANCE_ARCHIVER_URI" in done.stderr
