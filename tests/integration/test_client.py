"""The Python client: durable when it returns, refused before anything is written, one job of fifty equal requests."""

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from bson import ObjectId
from deployment import Deployment

from compliance.errors import ConfigurationError, InvalidPayload, StoreUnavailable, UnknownName
from compliance.mongo import Databases, Session, open_client
from compliance.roles import Role, role_name
from compliance.settings import Settings
from worker.client import Client
from worker.outbox import Outbox

SECRET = "ann.lee@example.org"
PERSON = ObjectId("65f2c0ffee0000000000abcd")
ERASE = "compliance.erasure.request"
README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def client(deployment: Deployment) -> Iterator[Client]:
    with Client(deployment.sender_uri, database=deployment.name) as client:
        yield client


def written(deployment: Deployment) -> list[dict[str, Any]]:
    return list(deployment.admin.compliance["outbox"].find({}, {"_id": 0}))


def taken(deployment: Deployment) -> list[dict[str, Any]]:
    Outbox(deployment.services(Role.SEALER)).drain()
    return list(deployment.admin.compliance["jobs"].find())


def test_a_request_is_durable_when_the_call_returns_and_becomes_a_job(deployment: Deployment, client: Client) -> None:
    due = datetime(2027, 1, 1, tzinfo=UTC)
    request_id = client.submit(ERASE, {"subject_id": PERSON}, request_id="r-1", priority=8, deadline=due)

    assert written(deployment) == [
        {
            "task": ERASE,
            "kwargs": {"subject_id": str(PERSON), "priority": 8, "deadline": due},
            "request_id": "r-1",
        }
    ]
    (job,) = taken(deployment)
    assert (request_id, job["_id"], job["priority"], job["deadline"]) == ("r-1", "r-1", 8, due)
    assert job["payload"] == {"subject_id": str(PERSON), "dry_run": False}


def test_fifty_equal_requests_at_once_are_one_job(deployment: Deployment, client: Client) -> None:
    with ThreadPoolExecutor(16) as pool:
        ids = set(pool.map(lambda _: client.submit(ERASE, {"subject_id": PERSON}, request_id="r-1"), range(50)))

    assert ids == {"r-1"}
    assert len(taken(deployment)) == 1


@pytest.mark.parametrize(
    ("task", "kwargs", "more", "says"),
    [
        (ERASE, {}, {}, "subject_id: Field required"),
        (ERASE, {"subject_id": PERSON, "email": SECRET}, {}, "email: Extra inputs are not permitted"),
        (ERASE, {"subject_id": PERSON, SECRET: 1}, {}, "a field whose name is not shown"),
        (ERASE, {"subject_id": PERSON}, {"request_id": SECRET}, "looks like an e-mail address"),
        (ERASE, {"subject_id": PERSON}, {"request_id": ""}, "1 to 128 printable"),
        (ERASE, {"subject_id": PERSON}, {"priority": 10}, "priority: "),
        (ERASE, {"subject": PERSON}, {"priority": 10}, "permitted; subject_id: Field required"),
        (ERASE, {"priority": 10}, {}, "priority: "),
        (ERASE, [PERSON], {}, "kwargs: expected a mapping"),
        (ERASE, {"subject_id": PERSON}, {"traceparent": 7}, "traceparent: expected text"),
        (ERASE, {"subject_id": PERSON}, {"deadline": datetime(2027, 1, 1)}, "deadline: "),  # noqa: DTZ001 - the fault
        ("compliance.erasure", {}, {}, "no such task; known: compliance.audit"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_at_once_and_nothing_is_written(
    task: str, kwargs: dict[str, Any], more: dict[str, Any], says: str
) -> None:
    with (
        Client("mongodb://127.0.0.1:1/", database="shop") as unreachable,
        pytest.raises((InvalidPayload, UnknownName), match=re.escape(says)) as caught,
    ):
        unreachable.submit(task, kwargs, **{"request_id": "r-1", **more})

    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["a.b", "", "a b", "x" * 49])
def test_a_client_takes_the_name_of_a_database_and_nothing_else(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="database: expected the name"):
        Client("mongodb://127.0.0.1:1/", database=name)


def test_ids_of_other_types_are_sent_as_text(deployment: Deployment, client: Client) -> None:
    client.submit("compliance.erasure.campaign", {"subject_ids": [PERSON, UUID(int=7)]}, request_id="r-1")

    assert written(deployment)[0]["kwargs"] == {"subject_ids": [str(PERSON), str(UUID(int=7))]}


@pytest.fixture
def service(deployment: Deployment) -> Iterator[Databases]:
    """A service with a user of its own that writes its own database and was granted the role of a sender."""
    name = f"service_{deployment.name}"
    roles = [
        {"role": "readWrite", "db": deployment.name},
        {"role": role_name(Role.SENDER, deployment.name), "db": "admin"},
    ]
    deployment.admin.compliance.command("createUser", name, pwd="secret", roles=roles)
    port = deployment.stack.endpoints.mongod_ports[0]
    uri = f"mongodb://{name}:secret@127.0.0.1:{port}/?replicaSet=rs0&authSource={deployment.name}_compliance"
    with open_client(uri, app_name="test") as found:
        yield Databases(found, deployment.name)


@pytest.mark.parametrize("commits", [True, False])
def test_in_a_transaction_of_the_caller_both_are_there_or_neither(
    deployment: Deployment, client: Client, service: Databases, *, commits: bool
) -> None:
    class Changed(Exception):
        """The service thinks better of it."""

    def work(session: Session) -> None:
        service.app["tickets"].insert_one({"_id": 1}, session=session)
        client.submit(ERASE, {"subject_id": PERSON}, request_id="r-1", session=session)
        if not commits:
            raise Changed

    service.app.create_collection("tickets")
    if commits:
        service.transact(work)
    else:
        with pytest.raises(Changed):
            service.transact(work)

    assert service.app["tickets"].count_documents({}) == len(taken(deployment)) == int(commits)


def test_an_unreachable_database_is_said_and_can_be_tried_again(deployment: Deployment) -> None:
    with open_client("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=50", app_name="test") as nowhere:
        client = Client(deployment.sender_uri, database=deployment.name)
        client.close()
        client._client = nowhere
        with pytest.raises(StoreUnavailable, match="does not answer"):
            client.submit(ERASE, {"subject_id": PERSON}, request_id="r-1")


def test_without_the_role_the_refusal_says_what_to_do(deployment: Deployment) -> None:
    auditor = deployment.addresses.mongodb_uri(Role.AUDITOR)
    with Client(auditor, database=deployment.name) as client, pytest.raises(ConfigurationError, match="lacks a priv"):
        client.submit(ERASE, {"subject_id": PERSON}, request_id="r-1")


def test_it_is_made_from_settings(deployment: Deployment) -> None:
    settings = Settings.model_validate(
        {"COMPLIANCE_SENDER_URI": deployment.sender_uri, "MONGODB_DATABASE": deployment.name}
    )
    with Client.from_settings(settings) as client:
        client.submit("compliance.audit.verify", {}, request_id="r-1")

    assert len(taken(deployment)) == 1
    with pytest.raises(ConfigurationError, match="set COMPLIANCE_SENDER_URI"):
        Client.from_settings(Settings())


def test_importing_it_imports_no_broker() -> None:
    script = "import sys, worker.client; print([name for name in ('celery', 'kombu', 'redis') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout == "[]\n"


def test_the_example_of_the_readme_works(deployment: Deployment, service: Databases) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (example,) = [block for block in blocks if "from worker.client import Client" in block]
    service.app.create_collection("tickets")
    names = {"uri": deployment.sender_uri, "database": deployment.name, "mongo": service.client, "subject_id": PERSON}
    exec(example, names)
    names["client"].close()

    assert sorted(job["_id"] for job in taken(deployment)) == ["ticket-4711", "ticket-4712"]
    assert service.app["tickets"].count_documents({}) == 1
