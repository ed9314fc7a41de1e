"""The certificate of a real erasure, issued by the command and verified with one key and nothing else."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
import pytest
from deployment import Deployment
from quiet import quiet
from sealed import SealedLog
from typer.testing import CliRunner, Result

from compliance.audit.keys import SigningKey
from compliance.errors import CertificateNotIssued, ConfigurationError, IntegrityError, NotSealedYet, UnknownName
from compliance.settings import Settings, load_settings
from worker.cli import build_cli
from worker.cli.runtime import Runtime
from worker.demo.seed import insert, seed_documents

SEEDED = seed_documents(11, people=20, moment=datetime(2026, 3, 31, 12, tzinfo=UTC))
SUBJECT = SEEDED.subjects[0]


class Command:
    """``compliance erasure`` in this process, against the database of one test."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def run(self, *arguments: str | Path) -> Result:
        return CliRunner().invoke(build_cli(), ["erasure", *map(str, arguments)], obj=self._runtime)

    def __call__(self, *arguments: str | Path) -> bytes:
        done = self.run(*arguments)
        if done.exception is not None:
            raise done.exception
        return done.stdout_bytes


@pytest.fixture
def erasure(deployment: Deployment, tmp_path: Path) -> Command:
    return Command(quiet(load_settings(deployment.environ(tmp_path))))


@pytest.fixture
def sealed(deployment: Deployment, tmp_path: Path) -> SealedLog:
    return SealedLog(deployment, tmp_path / "guard.json")


@pytest.fixture
def stranger() -> Command:
    """Whoever has the file and a key: reading any settings is an error."""

    def load(_: str | None) -> Settings:
        raise AssertionError("settings were read")

    def ring(_: object) -> Any:
        raise AssertionError("somebody was rung for")

    return Command(Runtime(load=load, doorbell=ring, environ={}))


@pytest.fixture
def done(deployment: Deployment) -> dict[str, Any]:
    """The request of an erasure that is completed."""
    insert(SEEDED, deployment.admin)
    assert deployment.run("erasure.request", {"subject_id": str(SUBJECT)}).state == "done"
    return deployment.admin.compliance["erasure_requests"].find_one({"_id": "r-1"}) or {}


def key_of(deployment: Deployment) -> str:
    return deployment.addresses.log_key().verifier.vkey


def test_a_stranger_verifies_it_with_one_key(
    deployment: Deployment, erasure: Command, sealed: SealedLog, stranger: Command, done: Any, tmp_path: Path
) -> None:
    sealed.seal_all()
    file = tmp_path / "certificate.json"
    erasure("certificate", "r-1", "--out", file)
    found = json.loads(stranger("verify-certificate", file, "--key", key_of(deployment), "--json"))
    told = stranger("verify-certificate", file, "--key", key_of(deployment)).decode()

    assert found["verified"] is True
    assert (found["log"], found["faults"]) == (sealed.log, [])
    assert found["certificate"] == json.loads(file.read_bytes())["certificate"]
    assert told.startswith(f"verified: request r-1 of {deployment.name} is completed_with_retention, E2\n")
    assert "recipient search-index: open\n" in told


def test_it_states_what_the_request_and_the_log_say(
    deployment: Deployment, erasure: Command, sealed: SealedLog, done: Any
) -> None:
    sealed.seal_all()
    stated = json.loads(erasure("certificate", "r-1"))["certificate"]
    (entry,) = deployment.entries(action="erasure.completed")
    affected = {found["name"]: found["affected"] for found in stated["collections"] if found["affected"]}

    assert stated["request"]["subject"] == str(entry["entity_id"]) == str(SUBJECT)
    assert datetime.fromisoformat(stated["request"]["completed_at"]) == entry["created_at"] == done["completed_at"]
    assert affected == done["affected"]
    assert sum(sum(verbs.values()) for verbs in affected.values()) == entry["details"]["documents"]
    assert stated["data_map"] == done["map_digest"]
    assert {kept["collection"] for kept in stated["kept"]} == {None, *(kept["collection"] for kept in done["kept"])}
    assert {surface["name"] for surface in stated["surfaces"]} >= {"oplog", "backups", "packages", "profile"}


def test_nothing_personal_is_in_it_or_on_its_page(
    erasure: Command, sealed: SealedLog, done: Any, tmp_path: Path
) -> None:
    (user,) = [found for found in SEEDED.documents["users"] if found["_id"] == SUBJECT]
    personal = [value for value in user.values() if isinstance(value, str) and len(value) > 7]
    sealed.seal_all()
    page = tmp_path / "certificate.html"
    file = erasure("certificate", "r-1", "--out", tmp_path / "c.json", "--html", page)

    assert file == b""
    for text in (page.read_text(), (tmp_path / "c.json").read_text()):
        assert "@" not in text.replace("tlog-proof@v1", "").replace("@page", "").replace("@media", "")
        assert not [value for value in personal if value in text]


def test_it_has_the_same_bytes_each_time(
    deployment: Deployment, erasure: Command, sealed: SealedLog, done: Any
) -> None:
    sealed.seal_all()
    first = erasure("certificate", "r-1")
    sealed.append(3)
    sealed.seal_all()
    stranger = SigningKey.from_seed("audit.example", b"s" * 32)  # whose checkpoint counts for nothing
    deployment.admin.audit["audit_checkpoints"].insert_one(
        {"_id": {"log": sealed.log, "size": sealed.size - 1}, "note": f"x\n\n— {stranger.verifier.name} x\n".encode()}
    )

    assert erasure("certificate", "r-1") == first


def test_an_altered_file_and_another_key_are_refused_with_exit_4(
    deployment: Deployment, erasure: Command, sealed: SealedLog, stranger: Command, done: Any, tmp_path: Path
) -> None:
    sealed.seal_all()
    file = tmp_path / "certificate.json"
    content = json.loads(erasure("certificate", "r-1"))
    file.write_text(json.dumps(content))
    other_key = SigningKey.from_seed("other.example/2026", b"o" * 32).verifier.vkey
    foreign = stranger.run("verify-certificate", file, "--key", other_key)
    content["certificate"]["level"] = "E4"
    file.write_text(json.dumps(content))
    altered = stranger.run("verify-certificate", file, "--key", key_of(deployment))
    as_json = stranger.run("verify-certificate", file, "--key", key_of(deployment), "--json")

    assert foreign.exit_code == altered.exit_code == as_json.exit_code == 4
    assert f"proof: it is of the log {sealed.log}, and the key is of other.example" in foreign.stdout
    assert altered.stdout.splitlines() == [
        "this certificate is not as it was issued",
        "  /level: was altered after the certificate was issued",
    ]
    assert json.loads(as_json.stdout)["faults"] == [
        {"field": "/level", "why": "was altered after the certificate was issued"}
    ]


def test_before_it_is_sealed_the_command_says_to_try_again(erasure: Command, sealed: SealedLog, done: Any) -> None:
    with pytest.raises(NotSealedYet, match="not sealed yet"):
        erasure("certificate", "r-1")

    sealed.seal_all()

    assert json.loads(erasure("certificate", "r-1"))


def test_without_a_signed_checkpoint_there_is_none(
    deployment: Deployment, erasure: Command, sealed: SealedLog, done: Any
) -> None:
    sealed.seal_all()
    deployment.admin.audit["audit_checkpoints"].delete_many({})

    with pytest.raises(NotSealedYet, match="not signed yet"):
        erasure("certificate", "r-1")


def test_what_is_not_completed_has_none_and_the_reason_is_said(
    deployment: Deployment, erasure: Command, done: Any
) -> None:
    requests = deployment.admin.compliance["erasure_requests"]
    requests.update_one({"_id": "r-1"}, {"$set": {"state": "residual_found", "residual": {"letters": 2}}})

    with pytest.raises(CertificateNotIssued, match=r"is residual_found.*2 in letters"):
        erasure("certificate", "r-1")

    requests.update_one({"_id": "r-1"}, {"$set": {"state": "executing", "residual": {}}})

    with pytest.raises(CertificateNotIssued, match=r"is executing, and only a completed erasure is certified$"):
        erasure("certificate", "r-1")

    requests.update_one({"_id": "r-1"}, {"$set": {"state": "completed"}, "$unset": {"certificate": ""}})

    with pytest.raises(CertificateNotIssued, match="before certificates were made"):
        erasure("certificate", "r-1")

    with pytest.raises(UnknownName, match="no erasure request"):
        erasure("certificate", "r-2")


def test_a_statement_that_was_changed_in_the_database_is_not_issued(
    deployment: Deployment, erasure: Command, sealed: SealedLog, done: Any
) -> None:
    sealed.seal_all()
    stated = json.loads(done["certificate"]) | {"level": "E4"}
    deployment.admin.compliance["erasure_requests"].update_one(
        {"_id": "r-1"}, {"$set": {"certificate": json.dumps(stated)}}
    )

    with pytest.raises(IntegrityError, match="not what the audit log names"):
        erasure("certificate", "r-1")


def test_without_a_key_the_settings_say_whom_to_believe(
    erasure: Command, sealed: SealedLog, stranger: Command, done: Any, tmp_path: Path
) -> None:
    sealed.seal_all()
    file, page = tmp_path / "certificate.json", tmp_path / "page.html"
    erasure("certificate", "r-1", "--out", file)

    assert erasure("verify-certificate", file, "--html", page).startswith(b"verified:")
    assert page.read_bytes().startswith(b"<!DOCTYPE html>")
    assert isinstance(stranger.run("verify-certificate", file).exception, AssertionError)

    with pytest.raises(ConfigurationError, match="--key"):
        stranger("verify-certificate", file, "--key", "no key")


def test_a_request_stays_one_document_however_often_its_erasure_is_repeated(
    deployment: Deployment, erasure: Command, sealed: SealedLog, done: Any
) -> None:
    assert deployment.run("erasure.request", {"subject_id": str(SUBJECT)}, "r-2").state == "done"
    sealed.seal_all()
    again = json.loads(erasure("certificate", "r-2"))["certificate"]

    assert [found["affected"] for found in again["collections"]] == []
    assert len(bson.encode(done)) < 100_000
