"""What recipients of an erasure are sent, and what their answers mean."""

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from compliance.audit.witness import Answer
from compliance.errors import ConfigurationError, RecipientRefused, RecipientUnreachable
from worker.recipients.channel import Message, Said, require_success
from worker.recipients.config import load_recipients, secret_bytes
from worker.recipients.opendsr import OpenDSR
from worker.recipients.webhook import Webhook, event_of, sign
from worker.remote import NoAnswer, Remote

NOW = datetime(2026, 4, 1, 8, tzinfo=UTC)
MESSAGE = Message(
    request_id="r-1",
    recipient="crm",
    key="user_id",
    subject_id="65f2c0ffee0000000000abcd",
    received_at=datetime(2026, 3, 31, 12, tzinfo=UTC),
    erased_at=NOW,
)
SECRET = "whsec_" + base64.b64encode(b"s" * 24).decode()


@dataclass
class Scripted:
    """A server that answers as it was told to."""

    answers: list[Answer | NoAnswer]
    asked: list[tuple[str, str, bytes, dict[str, str]]] = field(default_factory=list)

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        return self._answer("POST", path, body, headers)

    def get(self, path: str, headers: dict[str, str]) -> Answer:
        return self._answer("GET", path, b"", headers)

    def _answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        self.asked.append((method, path, body, headers))
        answer = self.answers.pop(0)
        if isinstance(answer, NoAnswer):
            raise answer
        return answer


def answer(status: int, body: bytes = b"", content_type: str = "application/json") -> Answer:
    return Answer(status=status, content_type=content_type, body=body)


def webhook(*answers: Answer | NoAnswer) -> tuple[Webhook, Scripted]:
    server: Any = Scripted(list(answers))
    return Webhook(server=server, secrets=[b"one", b"two"]), server


def opendsr(*answers: Answer | NoAnswer) -> tuple[OpenDSR, Scripted]:
    server: Any = Scripted(list(answers))
    return OpenDSR(server=server, token="t0ken"), server


def test_a_signature_is_that_of_the_published_example() -> None:
    """Source: the test vector of the reference libraries of Standard Webhooks."""
    secret = secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'

    signed = sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body, secrets=[secret])

    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_an_event_says_who_was_erased_and_nothing_else() -> None:
    assert json.loads(event_of(MESSAGE)) == {
        "type": "erasure.completed",
        "timestamp": "2026-04-01T08:00:00.000Z",
        "data": {
            "request_id": "r-1",
            "subject": {"key": "user_id", "id": "65f2c0ffee0000000000abcd"},
            "received_at": "2026-03-31T12:00:00.000Z",
            "erased_at": "2026-04-01T08:00:00.000Z",
        },
    }


def test_a_repetition_has_the_same_id_and_body_and_every_secret_signs() -> None:
    channel, server = webhook(answer(204), answer(204))

    for second in (0, 1):
        channel.tell(MESSAGE, now=NOW.replace(second=second), is_told=False)

    (_, path, body, first), (_, _, again, second_) = server.asked
    assert (path, body) == ("", again)
    assert first["webhook-id"] == second_["webhook-id"] == MESSAGE.id
    assert int(second_["webhook-timestamp"]) == int(first["webhook-timestamp"]) + 1
    assert first["webhook-signature"] == sign(
        MESSAGE.id, int(first["webhook-timestamp"]), body, secrets=[b"one", b"two"]
    )
    assert len(first["webhook-signature"].split(" ")) == 2


def test_another_request_or_recipient_has_another_id() -> None:
    others = [
        Message(**{name: getattr(MESSAGE, name) for name in MESSAGE.__slots__} | change)
        for change in ({"request_id": "r-2"}, {"recipient": "crm2"}, {"request_id": "r-1crm", "recipient": ""})
    ]

    assert len({MESSAGE.id, *(one.id for one in others)}) == 4
    assert MESSAGE.uuid.version == 4


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b'{"status": "erased"}', "application/json", Said.ERASED),
        (b'{"status": "erased"}', "text/plain", Said.TOLD),
        (b'{"status": "later"}', "application/json", Said.TOLD),
        (b'["erased"]', "application/json", Said.TOLD),
        (b"{", "application/json", Said.TOLD),
        (b"\xff", "application/json", Said.TOLD),
        (b"[" * 60_000, "application/json", Said.TOLD),
    ],
)
def test_only_a_plain_word_says_that_a_recipient_has_erased(body: bytes, content_type: str, expected: Said) -> None:
    channel, _ = webhook(answer(200, body, content_type))

    assert channel.tell(MESSAGE, now=NOW, is_told=False) is expected


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 599])
def test_who_is_busy_or_broken_is_told_again(status: int) -> None:
    with pytest.raises(RecipientUnreachable, match=f"recipient crm answered with status {status}"):
        require_success(answer(status), recipient="crm")


@pytest.mark.parametrize("status", [301, 302, 400, 401, 404, 410, 422])
def test_who_refuses_is_for_a_person(status: int) -> None:
    with pytest.raises(RecipientRefused, match=f"recipient crm refuses the message with status {status}"):
        require_success(answer(status, b"ann.smith@example.org"), recipient="crm")


def test_who_does_not_answer_is_told_again() -> None:
    for channel, _ in (webhook(NoAnswer("cannot be asked")), opendsr(NoAnswer("cannot be asked"))):
        with pytest.raises(RecipientUnreachable, match="recipient crm cannot be asked"):
            channel.tell(MESSAGE, now=NOW, is_told=False)


def test_opendsr_is_asked_once_and_then_for_its_status() -> None:
    channel, server = opendsr(answer(201), answer(200, b'{"request_status": "pending"}'))

    assert channel.tell(MESSAGE, now=NOW, is_told=False) is Said.WORKING
    assert channel.tell(MESSAGE, now=NOW, is_told=True) is Said.WORKING

    (method, path, body, headers), asked = server.asked
    assert (method, path, headers["Authorization"]) == ("POST", "requests", "Bearer t0ken")
    assert json.loads(body) == {
        "regulation": "gdpr",
        "subject_request_id": str(MESSAGE.uuid),
        "subject_request_type": "erasure",
        "submitted_time": "2026-03-31T12:00:00.000Z",
        "subject_identities": [
            {
                "identity_type": "controller_customer_id",
                "identity_value": "65f2c0ffee0000000000abcd",
                "identity_format": "raw",
            }
        ],
        "api_version": "2.0",
    }
    assert asked[:2] == ("GET", f"requests/{MESSAGE.uuid}")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"request_status": "completed"}', Said.ERASED),
        (b'{"request_status": "in_progress"}', Said.WORKING),
        (b"{}", Said.WORKING),
        (b"<html>", Said.WORKING),
    ],
)
def test_opendsr_is_done_when_it_says_so(body: bytes, expected: Said) -> None:
    channel, _ = opendsr(answer(200, body))

    assert channel.tell(MESSAGE, now=NOW, is_told=True) is expected


def test_opendsr_that_has_the_request_already_is_asked_for_its_status() -> None:
    channel, _ = opendsr(answer(409))

    assert channel.tell(MESSAGE, now=NOW, is_told=False) is Said.WORKING


def test_opendsr_that_cancels_is_for_a_person() -> None:
    channel, _ = opendsr(answer(200, b'{"request_status": "cancelled"}'))

    with pytest.raises(RecipientRefused, match="has cancelled"):
        channel.tell(MESSAGE, now=NOW, is_told=True)


def write(folder: Path, text: str) -> Path:
    path = folder / "recipients.yaml"
    path.write_text(text)
    return path


def test_recipients_are_read(tmp_path: Path) -> None:
    found = load_recipients(
        write(
            tmp_path,
            f"""
apiVersion: recipients/v1
recipients:
  crm: {{protocol: webhook, url: "https://crm.example/hook", secrets: ["{SECRET}"]}}
  analytics: {{protocol: opendsr, url: "http://127.0.0.1:1/v2", token: t0ken, timeout_seconds: 2}}
""",
        )
    )

    assert found["crm"].open() == Webhook(
        server=Remote(url="https://crm.example/hook", timeout_seconds=10), secrets=[b"s" * 24]
    )
    assert found["analytics"].open() == OpenDSR(
        server=Remote(url="http://127.0.0.1:1/v2", timeout_seconds=2), token="t0ken"
    )
    assert SECRET not in repr(found)
    assert "t0ken" not in repr(found["analytics"].open())
    assert load_recipients(None) == {}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ('{protocol: webhook, url: "http://crm.example/", secrets: ["SECRET"]}', r"crm\.webhook\.url: expected https"),
        ('{protocol: webhook, url: "https://x:y@crm.example/", secrets: ["SECRET"]}', "without name, password"),
        ('{protocol: webhook, url: "https://crm.example/", secrets: []}', r"crm\.webhook\.secrets"),
        ('{protocol: webhook, url: "https://crm.example/", secrets: ["s3cr3t"]}', "expected whsec_ and 24 to 64"),
        ('{protocol: webhook, url: "https://crm.example/", secrets: ["whsec_c2hvcnQ="]}', "expected whsec_ and 24"),
        ('{protocol: pigeon, url: "https://crm.example/"}', "recipients.crm"),
        ('{protocol: manual, url: "https://crm.example/"}', "recipients.crm"),
        ('{protocol: opendsr, url: "https://crm.example/", extra: s3cr3t}', r"crm\.opendsr\.extra"),
    ],
)
def test_a_wrong_recipient_is_refused_without_its_secret(entry: str, expected: str, tmp_path: Path) -> None:
    text = "apiVersion: recipients/v1\nrecipients:\n  crm: " + entry.replace("SECRET", SECRET)

    with pytest.raises(ConfigurationError, match=expected) as caught:
        load_recipients(write(tmp_path, text))

    assert "s3cr3t" not in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "null", "recipients: {}", "apiVersion: recipients/v2\nrecipients: {}"])
def test_what_is_no_file_of_recipients_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"the recipients recipients\.yaml are"):
        load_recipients(write(tmp_path, text))


def test_a_missing_file_is_named_by_its_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^COMPLIANCE_RECIPIENTS: cannot be read"):
        load_recipients(tmp_path / "nowhere")
