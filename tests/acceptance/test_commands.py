"""The installed commands: what they answer, and with which exit code."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from bson import ObjectId
from system import BIN, System, running_up
from waiting import wait_until

from worker.embedded import find_stack


def test_doctor_finds_everything_in_place(shared: System) -> None:
    assert "wrong" not in shared.compliance("doctor")


def test_doctor_names_what_is_missing(shared: System) -> None:
    shown = shared.compliance("doctor", expect=3, REDIS_URL="redis://127.0.0.1:1/0")

    assert "the broker does not answer" in shown


def test_doctor_names_an_index_and_a_role_of_another_release_and_what_mends_them(system: System) -> None:
    admin, name = system.deployment.admin, system.deployment.name
    admin.compliance["jobs"].drop_index("ux_job_lock")
    admin.client.admin.command("updateRole", f"compliance_worker@{name}", privileges=[])
    blind = system.compliance("doctor", "--json", expect=3)
    provision = {"COMPLIANCE_ADMIN_URI": system.deployment.stack.endpoints.mongodb_uri("admin", auth_source="admin")}
    assert "wrong" not in system.compliance("doctor", "--provision", **provision)
    shown = system.compliance("doctor", "--json", expect=3)
    dry = system.compliance("migrate", "up", "--dry-run", "--json")
    system.compliance("migrate", "up")

    assert "compliance_worker" in next(row["says"] for row in json.loads(blind) if "lacks" in row["says"])
    wrong = {row["check"]: row["says"] for row in json.loads(shown) if not row["ok"]}
    assert wrong == {
        "our collections and indexes": "index jobs.ux_job_lock is missing; run `compliance migrate up`",
    }
    assert json.loads(dry)["revisions"] == ["v000_pre_foundation"]
    assert system.compliance("migrate", "up") == "nothing to do\n"
    assert "wrong" not in system.compliance("doctor")


def test_doctor_names_what_cannot_be_used_and_no_value(shared: System) -> None:
    keys = f"crm: {{keys: [{'k' * 40}], tasks: [compliance.erasure.nonsense]}}"
    url = f"{shared.environ['REDIS_URL']}?nonsense=1"
    shown = " ".join(shared.compliance("doctor", expect=3, REDIS_URL=url, COMPLIANCE_SIGNING_KEYS=keys).split())

    assert "REDIS_URL: cannot be used (TypeError)" in shown
    assert "COMPLIANCE_SIGNING_KEYS: tasks: one does not exist; known: compliance.audit" in shown
    assert "nonsense" not in shown


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "says"),
    [
        (("erasure", "request", "nonsense"), {}, 2, "expected an ObjectId of 24 hexadecimal digits"),
        (
            (
                "erasure",
                "requests",
            ),
            {},
            2,
            "No such command",
        ),
        (("erasure", "request", "--dry-runn", "x"), {}, 2, "No such option"),
        (("erasure", "request", "0" * 24, "--priority", "10"), {}, 2, "Input should be less than or equal to 9"),
        (("erasure", "request", "0" * 24, "--deadline", "2026-05-01T12:00:00"), {}, 2, "deadline: Input should have"),
        (("erasure", "request", "0" * 24, "--deadline", "tomorrow"), {}, 2, "deadline: Input should be a valid"),
        (("consent", "grant", str(ObjectId()), "marketing"), {}, 2, "type: String should match pattern"),
        (("import", "../etc", "--collection", "users"), {}, 2, "package: String should match pattern"),
        (("export",), {}, 2, "give either collection or subject_id"),
        (("jobs", "show", "nobody"), {}, 2, "there is no job"),
        (("health", "run", "nonsense"), {}, 2, "no_residual"),
        (("audit", "show"), {}, 2, "--entity TYPE:ID"),
        (("migrate", "down", "999"), {}, 2, "v000_pre_foundation"),
        (
            ("jobs", "list"),
            {"MONGODB_URI": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200"},
            69,
            "does not answer",
        ),
        (
            ("jobs", "list"),
            {"MONGODB_URI": "nonsense", "REDIS_URL": "http://x"},
            78,
            "REDIS_URL: Value error, expected",
        ),
        (("doctor",), {"REDIS_URL": "redis://h:notaport/0"}, 78, "REDIS_URL: Value error, expected redis://"),
        (("doctor",), {"REDIS_URL": "redis://h:6379/zero"}, 78, "REDIS_URL: Value error, expected redis://"),
        (("health", "run", "--request-id", "watch-1"), {}, 2, "request_id: must not begin with schedule:"),
        (("erasure", "hold", "0" * 24, "--case", "Jane Roe"), {}, 2, "case: expected an id"),
        (("jobs", "list"), {"COMPLIANCE_BATCH_DOCS": "many", "MONGODB_DATABASE": "a b"}, 78, "COMPLIANCE_BATCH_DOCS"),
        (("jobs", "list"), {"COMPLIANCE_DATA_MAP": "/nowhere.yaml"}, 78, "COMPLIANCE_DATA_MAP"),
        (("jobs", "list", "--env", "../x"), {}, 78, "--env takes the name of a profile"),
    ],
)
def test_a_wrong_call_gets_one_clear_error(
    shared: System, arguments: tuple[str, ...], environ: dict[str, str], code: int, says: str
) -> None:
    done = shared.command("compliance", *arguments, **environ)

    assert (done.returncode, done.stdout) == (code, "")
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_migrations_that_are_pending_are_an_exit_code(system: System) -> None:
    system.compliance("migrate", "status", "--check")
    system.compliance("migrate", "down", "005")
    shown = system.compliance("migrate", "status", "--check", "--json", expect=3)
    system.compliance("migrate", "up", "--dry-run")
    system.compliance("migrate", "up")

    assert [item["state"] for item in json.loads(shown)["migrations"]].count("pending") == 1
    system.compliance("migrate", "status", "--check")


def test_an_erasure_is_as_urgent_as_it_was_asked_for(system: System) -> None:
    ask = ("erasure", "request", str(system.seeded.subjects[0]), "--dry-run", "--json")
    plain = json.loads(system.compliance(*ask))
    urgent = json.loads(system.compliance(*ask, "--priority", "0", "--deadline", "2030-05-01T14:00:00+02:00"))

    assert (plain["priority"], urgent["priority"]) == (5, 0)
    assert plain["deadline"]["$date"] > plain["created_at"]["$date"]
    assert urgent["deadline"] == {"$date": "2030-05-01T12:00:00Z"}


def test_consent_export_import_and_holds_by_command(system: System) -> None:
    system.start("worker")
    subject, other = map(str, system.seeded.subjects[:2])
    system.compliance("consent", "withdraw", subject, "MARKETING", "--wait")
    consent = json.loads(system.compliance("consent", "show", subject, "--json"))
    exported = json.loads(system.compliance("export", "--subject", subject, "--package", "p1", "--wait", "--json"))
    system.compliance("export", "--collection", "tracks", "--package", "p2", "--wait")
    imported = json.loads(system.compliance("import", "p2", "--collection", "tracks", "--wait", "--json"))
    system.compliance("erasure", "hold", other, "--case", "C-1")
    held = system.command("compliance", "erasure", "request", other, "--wait")
    system.compliance("erasure", "release", other, "--case", "C-1")
    system.compliance("erasure", "request", other, "--wait")
    checked = system.compliance("health", "run", "no_residual", "--subject", other)

    assert {item["type"]: item["granted"] for item in consent["current"]}["MARKETING"] is False
    assert exported["result"]["documents"] > 10
    assert (system.home / "transfer" / "p1" / "manifest.json").is_file()
    assert imported["result"]["inserted"] == 0
    assert held.returncode == 3
    assert "case C-1 holds the data" in held.stderr
    assert " ok " in checked


def test_a_failing_check_is_an_exit_code(system: System) -> None:
    system.start("worker")
    system.deployment.admin.app["users"].drop_index("ix_user_email")

    assert "users.ix_user_email is missing" in system.compliance("health", "run", "declared_indexes", expect=3)


def test_an_altered_entry_is_an_exit_code_and_named(system: System) -> None:
    log = system.deployment.admin.audit["audit_log"]
    entry = log.find_one({}) or {}
    log.update_one({"_id": entry["_id"]}, {"$set": {"performed_by": "nobody"}})

    assert f"MODIFIED entry {entry['_id']}" in system.compliance("audit", "verify", expect=4)


def test_plain_celery_commands_know_the_application(shared: System) -> None:
    done = shared.command("celery", "-A", "worker", "report")

    assert done.returncode == 0
    assert "compliance" in done.stdout
    for secret in (shared.environ["MONGODB_URI"], shared.environ["REDIS_URL"]):
        assert secret not in done.stdout


def test_celery_without_any_server_says_what_to_do(tmp_path: Path) -> None:
    environ = {"PATH": os.defpath, "COMPLIANCE_HOME": str(tmp_path)}
    done = subprocess.run(
        [BIN / "celery", "-A", "worker", "worker"],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 78
    assert "start one with `compliance up`" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command", [("celery", "-A", "worker", "worker"), ("compliance", "watcher"), ("compliance", "reconciler")]
)
def test_a_process_whose_user_could_alter_the_log_refuses_to_start(shared: System, command: tuple[str, ...]) -> None:
    admin = shared.deployment.stack.endpoints.mongodb_uri("admin", auth_source="admin")
    done = shared.command(*command, MONGODB_URI=admin, COMPLIANCE_SEALER_URI=admin, COMPLIANCE_MIGRATOR_URI=admin)

    assert done.returncode == 78
    assert "this MongoDB user could alter the audit log" in done.stderr
    assert "Traceback" not in done.stderr


def test_up_runs_everything_until_it_is_interrupted_twice(tmp_path: Path) -> None:
    environ = {"PATH": f"{BIN}:/usr/bin:/bin", "COMPLIANCE_HOME": str(tmp_path), "COLUMNS": "200"}
    with running_up(tmp_path, environ) as (process, log, port):
        beside = subprocess.run(
            [BIN / "compliance", "doctor"], env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        second = subprocess.run(
            [BIN / "compliance", "up"], env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        os.kill(int((tmp_path / "mongod-0" / "pid").read_text()), signal.SIGKILL)
        wait_until(lambda: "mongod-0 ended" in log.read_text(), timeout=30, what="up notices")
        wait_until(lambda: find_stack(tmp_path) is not None, timeout=60, what="the server is back")
        again = subprocess.run(
            [BIN / "compliance", "jobs", "list"], env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        pids = [int(path.read_text()) for path in tmp_path.rglob("*pid")]
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        code = process.wait(60)

    assert f"http://127.0.0.1:{port}" in log.read_text()
    assert (beside.returncode, "wrong" in beside.stdout) == (0, False)
    assert second.returncode == 75
    assert again.returncode == 0
    assert code == 0
    assert len(pids) >= 6
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
