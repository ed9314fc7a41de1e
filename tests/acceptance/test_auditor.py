"""What an auditor does: verify, keep a checkpoint, take a receipt, and verify it without any database."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sealed import SealedLog
from system import System
from waiting import wait_until

from compliance.audit.checkpoint import open_checkpoint
from compliance.audit.incident import Incident, Kind, record_all
from compliance.audit.keys import parse_vkey
from compliance.audit.trust import policy_of
from compliance.roles import INCIDENTS, Role

pytestmark = pytest.mark.timeout(200)
NOWHERE = {
    "MONGODB_URI": "mongodb://nobody:x@127.0.0.1:1/?replicaSet=rs0",
    "COMPLIANCE_AUDITOR_URI": "",
    "COMPLIANCE_WRITER_KEY": "",
    "COMPLIANCE_LOG_KEY": "",
}


@pytest.fixture
def sealed(system: System, tmp_path: Path) -> SealedLog:
    """A system whose watcher seals the log."""
    system.start("watcher")
    sealed = SealedLog(system.deployment, tmp_path / "no-guard")
    wait_until(lambda: sealed.size >= sealed.count() > 0, timeout=60, what="the watcher seals the log")
    return sealed


def log_key(system: System) -> str:
    lines = system.compliance("audit", "keys").splitlines()
    return next(line.split()[1] for line in lines if line.startswith("log "))


def test_a_receipt_verifies_without_a_database(system: System, sealed: SealedLog, tmp_path: Path) -> None:
    file = tmp_path / "entry.tlog-proof"
    entry = system.deployment.entries(action="migration.applied")[0]
    key = log_key(system)
    shown = json.loads(system.compliance("audit", "show", "--entity", f"migration:{entry['entity_id']}", "--json"))
    system.compliance("audit", "prove", entry["_id"], "--output", str(file))

    proven = system.compliance("audit", "verify-receipt", str(file), "--key", key, "--json", **NOWHERE)
    text = system.compliance("audit", "verify-receipt", str(file), "--key", key, **NOWHERE)

    assert entry["_id"] in [found["_id"] for found in shown]
    assert json.loads(proven)["_id"] == entry["_id"]
    assert text.startswith("entry ")
    assert sealed.log in text
    stranger = key.partition("+")[0] + "+" + "0" * 8 + key[key.rindex("+") :]
    assert "key" in system.command("compliance", "audit", "verify-receipt", str(file), "--key", stranger).stderr
    file.write_bytes(file.read_bytes().replace(b"index ", b"index 1"))
    system.compliance("audit", "verify-receipt", str(file), "--key", key, expect=4, **NOWHERE)


def test_a_checkpoint_that_was_kept_shows_what_was_cut_off(system: System, sealed: SealedLog, tmp_path: Path) -> None:
    kept, last = tmp_path / "kept", tmp_path / "last"
    system.compliance("audit", "checkpoint", "--output", str(kept))
    printed = system.compliance("audit", "checkpoint")
    first = system.compliance("audit", "verify", "--output", str(last), "--against", str(kept))
    again = json.loads(system.compliance("audit", "verify", "--since", str(last), "--against", str(kept), "--json"))
    policy = policy_of([parse_vkey(log_key(system))], sealed.log)

    assert printed.encode() == kept.read_bytes() == last.read_bytes()
    assert open_checkpoint(kept.read_bytes(), policy=policy).checkpoint.size == sealed.size
    assert first.splitlines()[-1].startswith(f"{sealed.size} entries, 0 findings")
    assert (again["entries"], again["findings"]) == (0, [])

    log, audit = sealed.log, system.deployment.admin.audit
    for name in ("audit_log", "audit_batches", "audit_checkpoints"):
        audit[name].delete_many({})
    system.compliance("audit", "verify")
    cut = system.compliance("audit", "verify", "--against", str(kept), expect=4)
    assert cut.startswith(f"TRUNCATED {log}: ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("verify", "--since", "nowhere"), "nowhere cannot be read (No such file or directory)"),
        (("verify-receipt", "nowhere"), "nowhere cannot be read (No such file or directory)"),
        (("prove", "0" * 32), "there is no audit entry with this id"),
        (("checkpoint",), "nothing is sealed yet"),
    ],
)
def test_wrong_input_is_one_sentence(shared: System, arguments: tuple[str, ...], says: str) -> None:
    done = shared.command("compliance", "audit", *arguments)

    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_files_that_are_no_checkpoint_or_receipt_are_refused(shared: System, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("nothing of the kind")

    for option in ("--since", "--against"):
        done = shared.command("compliance", "audit", "verify", option, str(wrong))
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith(f"error: {wrong} is no checkpoint of this log: ")
    done = shared.command("compliance", "audit", "verify-receipt", str(wrong))
    assert done.returncode == 4, done.stderr
    assert done.stderr.startswith("error: ")


def test_a_checkpoint_of_another_log_or_key_is_wrong_input(system: System, sealed: SealedLog, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    system.compliance("audit", "checkpoint", "--output", str(kept))
    altered = tmp_path / "altered"
    altered.write_bytes(kept.read_bytes().replace(f"{sealed.size}\n".encode(), f"{sealed.size + 1}\n".encode(), 1))

    for path, says, environ in (
        (kept, f"it is of the log {sealed.log}, not of another", {"COMPLIANCE_AUDIT_ORIGIN": "another"}),
        (altered, "signature", {}),
    ):
        done = system.command("compliance", "audit", "verify", "--against", str(path), **environ)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert done.stderr.startswith(f"error: {path} is no checkpoint of this log: ")
        assert says in done.stderr


def test_the_first_run_of_every_night_is_that_of_the_others(system: System, sealed: SealedLog, tmp_path: Path) -> None:
    last = tmp_path / "last"
    nightly = ("compliance", "audit", "verify", "--since", str(last), "--output", str(last), "--json")
    first, second = system.command(*nightly), system.command(*nightly)
    elsewhere = system.command("compliance", "audit", "verify", "--output", str(tmp_path / "nowhere" / "last"))

    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stderr == f"{last} is not there yet: the whole log is verified\n"
    assert json.loads(first.stdout)["entries"] == sealed.size
    assert second.stderr == ""
    assert json.loads(second.stdout)["entries"] == 0
    assert last.read_text().startswith(sealed.log)
    assert (elsewhere.returncode, elsewhere.stdout) == (2, "")


def test_a_receipt_verifies_with_the_public_key_of_the_log_alone(
    system: System, sealed: SealedLog, tmp_path: Path
) -> None:
    file, laptop = tmp_path / "entry.tlog-proof", tmp_path / "laptop"
    entry = system.deployment.entries(action="migration.applied")[0]
    system.compliance("audit", "prove", entry["_id"], "--output", str(file))
    keys, names = log_key(system), ("PATH", "MONGODB_DATABASE")
    alone = replace(system, environ={name: system.environ[name] for name in names})
    known = {"COMPLIANCE_HOME": str(laptop), "COMPLIANCE_LOG_VKEYS": keys}

    proven = alone.compliance("audit", "verify-receipt", str(file), "--json", **known)
    other = alone.command(
        "compliance", "audit", "verify-receipt", str(file), **known, COMPLIANCE_AUDIT_ORIGIN="another"
    )
    given = alone.compliance("audit", "verify-receipt", str(file), "--key", keys, "--json", COMPLIANCE_AUDIT_ORIGIN="x")

    assert json.loads(proven)["_id"] == json.loads(given)["_id"] == entry["_id"]
    assert other.returncode == 4
    assert f"it is of the log {sealed.log}, not of another; for a log of others give --key" in other.stderr


def test_a_watcher_without_the_key_of_the_log_ends_with_a_sentence(shared: System) -> None:
    done = shared.command("compliance", "watcher", COMPLIANCE_LOG_KEY="")

    assert done.returncode == 78
    assert "COMPLIANCE_LOG_KEY" in done.stderr


def test_incidents_are_listed_newest_last_and_their_number_is_bounded(shared: System) -> None:
    noon = datetime(2026, 3, 31, 12, tzinfo=UTC)
    happened = [
        Incident(kind=Kind.MODIFIED, what=f"act {hour}", at=noon + timedelta(hours=hour), event=f"e-{hour}")
        for hour in range(3)
    ]
    none = shared.compliance("audit", "incidents")
    record_all(shared.deployment.services(Role.SEALER).databases, happened)
    try:
        table = shared.compliance("audit", "incidents")
        some = shared.command("compliance", "audit", "incidents", "--since", "2026-03-31T15:00:00+0200", "--json")
        last = shared.command("compliance", "audit", "incidents", "--limit", "1", "--json")
        refused = shared.command("compliance", "audit", "incidents", "--since", "0001-01-01T00:00:00+0100")
    finally:
        shared.deployment.admin.audit[INCIDENTS].delete_many({})

    assert none == "no incidents\n"
    assert [line.split()[3:6] for line in table.splitlines()[1:]] == [["MODIFIED", "act", str(n)] for n in range(3)]
    assert table.splitlines()[1].startswith("2026-03-31 12:00:00 UTC")
    assert [found["what"] for found in json.loads(some.stdout)] == ["act 1", "act 2"]
    assert [found["what"] for found in json.loads(last.stdout)] == ["act 2"]
    assert (some.returncode, some.stderr) == (0, "")
    assert (last.returncode, last.stderr) == (0, "these are the newest 1; there are older ones: give --limit\n")
    assert (refused.returncode, refused.stderr) == (
        2,
        "error: --since: expected a time of the years 1 to 9999 in UTC\n",
    )
