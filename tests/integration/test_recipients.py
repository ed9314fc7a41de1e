"""Recipients are told of every completed erasure, once for all they notice, whatever dies in between."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment
from quiet import quiet
from receiving import Received, Receiver, receiving
from typer.testing import CliRunner

from compliance.datamap.outside import Recipient
from compliance.erasure.notices import Notices
from compliance.errors import InvalidPayload, UnknownName
from compliance.jobs.job import Job, State
from compliance.settings import load_settings
from worker.attempt import carry_out
from worker.cli import build_cli
from worker.demo.seed import Seeded, insert, seed_documents
from worker.recipients.webhook import sign
from worker.services import Services
from worker.tasks import JOBS

SECRET = b"0123456789abcdef01234567"
RECIPIENTS = (
    Recipient.model_validate({"id": "crm", "holds": "customers", "protocol": "webhook"}),
    Recipient.model_validate({"id": "dsr", "holds": "events", "protocol": "opendsr"}),
    Recipient.model_validate({"id": "printer", "holds": "names"}),
)


@dataclass
class Told:
    """A database with one erased person, and the recipients that are told of it."""

    deployment: Deployment
    services: Services
    receiver: Receiver
    subject_id: str

    def jobs(self) -> dict[str, Job]:
        found = self.services.ledger.jobs.find({"kind": "recipient.tell"})
        known = [self.services.ledger.find(document["_id"]) for document in found]
        return {job.payload["recipient"]: job for job in known if job is not None}

    def tell(self, recipient: str, **changes: Any) -> Job:
        services = replace(self.services, **changes)
        services.ledger.jobs.update_many({"kind": "recipient.tell"}, {"$set": {"run_at": None}})  # its pause is over
        carry_out(
            JOBS["recipient.tell"], self.jobs()[recipient].request_id, services=services, on_progress=lambda _: None
        )
        return self.jobs()[recipient]

    def notice(self, recipient: str) -> dict[str, Any]:
        return Notices(self.services.databases).find("r-1", recipient)[1]

    def actions(self) -> list[str]:
        found = self.deployment.entries(request_id="r-1")
        return [entry["action"] for entry in found if entry["action"].startswith("recipient.")]


@pytest.fixture(scope="module")
def seeded() -> Seeded:
    return seed_documents(11, people=20, moment=datetime(2026, 3, 31, 12, tzinfo=UTC))


@pytest.fixture
def told(deployment: Deployment, seeded: Seeded, tmp_path: Path) -> Iterator[Told]:
    insert(seeded, deployment.admin)
    with receiving() as receiver:
        path = tmp_path / "recipients.yaml"
        secret = "whsec_" + base64.b64encode(SECRET).decode()
        path.write_text(
            "apiVersion: recipients/v1\nrecipients:\n"
            f'  crm: {{protocol: webhook, url: "{receiver.url}", secrets: ["{secret}"]}}\n'
            f'  dsr: {{protocol: opendsr, url: "{receiver.url}", token: t0ken}}\n'
        )
        chosen = deployment.with_settings(recipients=path)
        services = chosen.services()
        services = replace(services, data_map=services.data_map.model_copy(update={"recipients": RECIPIENTS}))
        subject_id = str(seeded.subjects[0])
        chosen.carry_out("erasure.request", {"subject_id": subject_id}, data_map=services.data_map)
        yield Told(chosen, services, receiver, subject_id)


def test_the_transaction_that_completes_an_erasure_records_a_job_for_each_that_a_process_tells(told: Told) -> None:
    assert set(told.jobs()) == {"crm", "dsr"}
    assert {job.state for job in told.jobs().values()} == {State.QUEUED}
    assert {told.notice(one.id)["state"] for one in RECIPIENTS} == {"open"}
    assert told.receiver.received == []


def test_a_webhook_is_signed_and_says_whom(told: Told) -> None:
    job = told.tell("crm")

    (got,) = told.receiver.received
    stamp = int(got.headers["webhook-timestamp"])
    assert got.headers["webhook-signature"] == sign(got.headers["webhook-id"], stamp, got.body, secrets=[SECRET])
    assert got.said["data"]["subject"] == {"key": "user_id", "id": told.subject_id}
    assert (job.state, told.notice("crm")["state"], told.actions()) == (State.DONE, "told", ["recipient.told"])


def test_one_that_says_it_has_erased_has_acknowledged(told: Told) -> None:
    told.receiver.answer = lambda _: (200, {"status": "erased"})

    told.tell("crm")

    notice = told.notice("crm")
    assert (notice["state"], notice["by"], told.actions()) == ("acknowledged", "recipient", ["recipient.acknowledged"])
    assert notice["acknowledged_at"] is not None


def test_one_that_is_broken_is_told_again_with_the_same_event(told: Told) -> None:
    told.receiver.answer = lambda _: (503, None)
    waiting = told.tell("crm")
    told.receiver.answer = lambda _: (204, None)
    done = told.tell("crm")

    first, second = told.receiver.received
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
    assert (waiting.state, (waiting.error or {})["code"]) == (State.QUEUED, "RecipientUnreachable")
    assert (done.state, told.actions()) == (State.DONE, ["recipient.told"])


def test_one_that_refuses_parks_the_job(told: Told) -> None:
    told.receiver.answer = lambda _: (401, {"detail": "ann.smith@example.org"})

    job = told.tell("crm")

    assert (job.state, (job.error or {})["code"]) == (State.PARKED, "RecipientRefused")
    assert "ann.smith" not in str(job.error)
    assert told.notice("crm")["state"] == "open"


def test_opendsr_is_asked_until_it_is_completed(told: Told) -> None:
    status = ["pending", "completed"]

    def answer(got: Received) -> tuple[int, Any]:
        return (201, {}) if got.method == "POST" else (200, {"request_status": status.pop(0)})

    told.receiver.answer = answer
    states = [told.tell("dsr").state for _ in range(3)]

    methods = [got.method for got in told.receiver.received]
    assert (states, methods) == ([State.QUEUED, State.QUEUED, State.DONE], ["POST", "GET", "GET"])
    assert told.actions() == ["recipient.told", "recipient.acknowledged"]
    assert {got.headers["authorization"] for got in told.receiver.received} == {"Bearer t0ken"}


def test_who_dies_behind_the_answer_tells_again_and_one_entry_is_left(told: Told) -> None:
    class Dying:
        def __init__(self, services: Services) -> None:
            self.services, self.left = services, 1

        def now(self) -> datetime:
            if told.receiver.received and self.left:
                self.left = 0
                raise KeyboardInterrupt
            return self.services.clock.now()

    with pytest.raises(KeyboardInterrupt):
        told.tell("crm", clock=Dying(told.services))
    assert told.notice("crm")["state"] == "open"
    told.services.ledger.jobs.update_one(
        {"_id": told.jobs()["crm"].request_id}, {"$set": {"lease.until": datetime(2020, 1, 1, tzinfo=UTC)}}
    )
    job = told.tell("crm")

    first, second = told.receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert (job.state, told.actions()) == (State.DONE, ["recipient.told"])


def test_an_address_that_is_missing_parks_the_job_and_is_named(told: Told) -> None:
    told.services.settings.recipients.write_text("apiVersion: recipients/v1\nrecipients: {}\n")  # type: ignore[union-attr]

    job = told.tell("crm")

    assert job.state is State.PARKED
    assert "COMPLIANCE_RECIPIENTS says no address of recipient crm" in (job.error or {})["message"]


def command(told: Told, home: Path, *arguments: str) -> str:
    runtime = quiet(load_settings(told.deployment.environ(home)))
    given = ["--as", "anna", "erasure", *arguments]
    done = CliRunner().invoke(build_cli(), given, obj=runtime, env={"COLUMNS": "200"})
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_a_person_may_say_that_a_recipient_has_erased(told: Told, tmp_path: Path) -> None:
    said = [command(told, tmp_path, "acknowledge", "r-1", "printer", "--reference", "T-1") for _ in range(2)]

    shown = json.loads(command(told, tmp_path, "recipients", "r-1", "--json"))
    notice = {found["recipient"]: found for found in shown}["printer"]
    assert said == ["printer: acknowledged\n", "printer: was acknowledged before; nothing was changed\n"]
    assert (notice["state"], notice["by"], notice["reference"]) == ("acknowledged", "cli:anna", "T-1")
    assert told.actions() == ["recipient.acknowledged"]
    assert "printer" in command(told, tmp_path, "recipients", "r-1")


@pytest.mark.parametrize("reference", ["", "Ann Smith", "ann@example.org", "x" * 65])
def test_a_reference_is_no_text(told: Told, reference: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidPayload, match="reference: expected an id"):
        command(told, tmp_path, "acknowledge", "r-1", "printer", "--reference", reference)

    assert told.actions() == []


@pytest.mark.parametrize(("request_id", "recipient"), [("r-2", "crm"), ("r-1", "nobody")])
def test_what_is_not_there_is_named(told: Told, request_id: str, recipient: str) -> None:
    with pytest.raises(UnknownName, match=r"compliance erasure list|known: crm, dsr, printer"):
        Notices(told.services.databases).find(request_id, recipient)


def test_a_dry_run_tells_nobody(told: Told, seeded: Seeded) -> None:
    values = {"subject_id": str(seeded.subjects[1]), "dry_run": True}

    told.deployment.carry_out("erasure.request", values, "r-2", data_map=told.services.data_map)

    assert len(told.jobs()) == 2
