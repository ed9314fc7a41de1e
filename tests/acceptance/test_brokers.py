"""The main job over each way to reach the broker, by URL and settings alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from deployment import Deployment
from documented import acl_rules
from redis import Redis
from redis.exceptions import NoPermissionError
from relay import Relay, tls_relay
from system import System, filled_system

PASSWORD = "kM9-w3rker"


def rediss(deployment: Deployment, relay: Relay, host: str = "127.0.0.1") -> str:
    return f"rediss://:{deployment.stack.endpoints.secrets.redis}@{host}:{relay.port}/0"


def files(relay: Relay) -> dict[str, str]:
    return {
        "COMPLIANCE_BROKER_CA_FILE": str(relay.ca_file),
        "COMPLIANCE_BROKER_CERT_FILE": str(relay.cert_file),
        "COMPLIANCE_BROKER_KEY_FILE": str(relay.key_file),
    }


def is_done(system: System, request_id: str) -> bool:
    return system.job(request_id).get("state") == "done"


def erase(system: System, request_id: str = "r-1") -> None:
    """Ask by the command; without beat only the doorbell can make a worker work."""
    system.compliance("erasure", "request", str(system.seeded.subjects[0]), "--request-id", request_id)


def says_of_broker(system: System, **environ: str) -> tuple[bool, str]:
    done = system.command("compliance", "doctor", "--json", **environ)
    (row,) = [row for row in json.loads(done.stdout) if row["check"] == "broker"]
    return row["ok"], row["says"]


def test_a_worker_does_its_job_over_tls_with_a_client_certificate(deployment: Deployment, tmp_path: Path) -> None:
    with (
        tls_relay(deployment.stack.endpoints.valkey_port, tmp_path) as relay,
        filled_system(deployment, tmp_path, REDIS_URL=rediss(deployment, relay), **files(relay)) as system,
    ):
        (worker,) = system.start("worker").children
        system.wait_for(lambda: "ready" in worker.log.read_text(), "the worker is ready")
        erase(system)
        system.wait_for(lambda: is_done(system, "r-1"), "the erasure is done", timeout=10)

        assert system.request("r-1")["state"] == "completed_with_retention"
        assert says_of_broker(system) == (True, "answers")
        assert "pong" in system.command("celery", "-A", "worker", "inspect", "ping").stdout


def test_a_server_that_cannot_prove_who_it_is_gets_no_password(deployment: Deployment, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    port = deployment.stack.endpoints.valkey_port
    with (
        tls_relay(port, tmp_path) as relay,
        tls_relay(port, stranger, name="elsewhere.example") as other,
        filled_system(deployment, tmp_path, **files(relay)) as system,
    ):
        unknown_authority = says_of_broker(system, REDIS_URL=rediss(deployment, other))
        wrong_name = says_of_broker(system, REDIS_URL=rediss(deployment, other), **files(other))
        no_authority = says_of_broker(
            system, REDIS_URL=rediss(deployment, relay), **files(relay) | {"COMPLIANCE_BROKER_CA_FILE": ""}
        )
        right = says_of_broker(system, REDIS_URL=rediss(deployment, relay))

    refused = (False, "the broker does not answer (OperationalError)")
    assert [unknown_authority, wrong_name, no_authority, right] == [refused, refused, refused, (True, "answers")]


@pytest.fixture
def broker(deployment: Deployment) -> Any:
    """Valkey as its administrator, with the users of the documentation."""
    with Redis.from_url(deployment.stack.endpoints.redis_url) as administrator:
        administrator.flushall()
        for name in ("compliance", "service"):
            administrator.execute_command("ACL", "SETUSER", name, "reset", *acl_rules(name, password=PASSWORD))
        administrator.execute_command("ACL", "LOG", "RESET")
        yield administrator
        administrator.execute_command("ACL", "DELUSER", "compliance", "service")


def url_of(deployment: Deployment, user: str) -> str:
    return f"redis://{user}:{PASSWORD}@127.0.0.1:{deployment.stack.endpoints.valkey_port}/0"


def test_every_process_works_with_the_documented_rights_and_none_is_missing(
    deployment: Deployment, broker: Any, tmp_path: Path
) -> None:
    with filled_system(deployment, tmp_path, REDIS_URL=url_of(deployment, "compliance")) as system:
        worker, *_ = system.start("worker", "beat", "watcher", "flower").children
        service = Celery("somebody-else", broker=url_of(deployment, "service"), set_as_current=False)
        service.send_task(
            "compliance.erasure.request",
            kwargs={"subject_id": str(system.seeded.subjects[0]), "request_id": "r-1"},
            queue="compliance.erasure",
        )
        service.close()
        system.wait_for(lambda: is_done(system, "r-1"), "the erasure is done")
        answered = system.command("celery", "-A", "worker", "inspect", "ping").stdout
        worker.process.terminate()
        worker.process.wait(30)

    denied = {(entry["username"], entry["object"], entry["reason"]) for entry in broker.acl_log()}
    assert "pong" in answered
    assert denied == set()


def test_the_rights_of_a_worker_and_of_a_service_end_at_their_queues(deployment: Deployment, broker: Any) -> None:
    commands: dict[str, list[tuple[str, ...]]] = {
        "compliance": [("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "GET", "*"), ("ACL", "LIST"), ("GET", "session:1")],
        "service": [("BRPOP", "compliance.erasure", "1"), ("DEL", "compliance.erasure"), ("LPUSH", "other", "x")],
    }
    for name, denied in commands.items():
        with Redis.from_url(url_of(deployment, name)) as client:
            for command in denied:
                with pytest.raises(NoPermissionError):
                    client.execute_command(*command)
