"""Whatever anybody pushes into a queue: the worker lives, nothing comes back for ever, and the reason is found.

The messages are made by hand, as clients in other languages and people with a Redis shell make them.
"""

import base64
import hashlib
import hmac
import json
import signal
import time
import uuid
import zlib
from pathlib import Path
from typing import Any

import pytest
import redis
from system import System

SECRET = "ann.smith@example.org"
NAME = "Ann Smith-Planted"
TASK, QUEUE = "compliance.audit.verify", "compliance.audit"
SWEEP = "compliance.jobs.sweep"
BOMB = zlib.compress(b" " * 100_000_000)
DEEP = b"[" * 100_000 + b"]" * 100_000


def message(
    body: Any, *, task: Any = TASK, kind: Any = "application/json", top: dict[str, Any] | None = None, **headers: Any
) -> str:
    """A message of protocol 2 as it stands in a Redis list; *body* is JSON unless it is bytes."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    envelope = {
        "body": base64.b64encode(raw).decode(),
        "content-encoding": "utf-8",
        "content-type": kind,
        "headers": {"lang": "js", "task": task, "id": str(uuid.uuid4()), **headers},
        "properties": {
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "delivery_mode": 2,
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    return json.dumps(envelope | (top or {}))


def without(name: str, text: str) -> str:
    return json.dumps({key: value for key, value in json.loads(text).items() if key != name})


SOUND = message([[], {}, {}])
PROTOCOL_1 = {"task": TASK, "id": "p-1", "args": [], "kwargs": {"email": SECRET}}
# What a log line names, for what has no known task; a note says no more than that.
LOGGED: dict[str, tuple[str | bytes, str]] = {
    "no JSON": (f"{NAME} {SECRET}", "message.unreadable"),
    "no text": (b"\xff\xfe", "message.unreadable"),
    "nested too deep": (DEEP, "message.unreadable"),
    "a list": (json.dumps([NAME]), "message.unreadable"),
    "a number": ("5", "message.unreadable"),
    "nothing": ("null", "message.unreadable"),
    "an empty object": ("{}", "message.unreadable"),
    "no properties": (without("properties", SOUND), "message.unreadable"),
    "a body that is no base64": (message(None, top={"body": f"!!{SECRET}"}), "message.unreadable"),
    "a body that is no text": (message(None, top={"body": {"a": NAME}}), "message.unreadable"),
    "headers that are a list": (message([[], {}, {}], top={"headers": [NAME]}), "message.unknown_task"),
    "no headers": (without("headers", SOUND), "message.unknown_task"),
    "a task that nobody knows": (message([[], {"a": SECRET}, {}], task=f"compliance.{NAME}"), "message.unknown_task"),
    "a task of Celery": (message([[TASK, [[]]], {}, {}], task="celery.starmap"), "message.unknown_task"),
    "a task that is a number": (message([[], {}, {}], task=7), "message.unknown_task"),
    "a task that is an object": (message([[], {}, {}], task={"a": NAME}), "message.unknown_task"),
    "protocol 1 without a task": (
        message({"kwargs": {"a": NAME}}, top={"headers": {}}),
        "message.unknown_task",
    ),
}
# What the note says, under the request id that the worker could read or made.
NOTED: dict[str, tuple[str, str]] = {
    "positional arguments": (message([[SECRET], {}, {}]), "args: expected a list, which must be empty"),
    "args that are nothing": (message([None, {}, {}]), "args: expected a list"),
    "args that are text": (message([SECRET, {}, {}]), "args: expected a list"),
    "kwargs that are nothing": (message([[], None, {}]), "kwargs: expected an object"),
    "kwargs that are a list": (message([[], [SECRET], {}]), "kwargs: expected an object"),
    "kwargs that are text": (message([[], SECRET, {}]), "kwargs: expected an object"),
    "an unknown field": (message([[], {NAME: SECRET}, {}]), "(a field whose name is not shown)"),
    "a field named self": (message([[], {"self": SECRET}, {}]), "self: Extra inputs are not permitted"),
    "two parts": (message([[], {}]), "[args, kwargs, embed]"),
    "four parts": (message([[], {}, {}, {}]), "[args, kwargs, embed]"),
    "an object": (message({"args": [SECRET]}), "[args, kwargs, embed]"),
    "a text": (message("x"), "[args, kwargs, embed]"),
    "a number for a body": (message(7), "[args, kwargs, embed]"),
    "nothing for a body": (message(None), "[args, kwargs, embed]"),
    "embed that is a list": (message([[], {}, [SECRET]]), "embed: "),
    "callbacks": (message([[], {}, {"callbacks": [SECRET]}]), "embed: "),
    "a body that is no JSON": (message(SECRET.encode()), "the body is no JSON"),
    "a body that is no text": (message(b"\xff\xfe"), "the body is no JSON"),
    "a body that is nested too deep": (message(DEEP), "the body is no JSON"),
    "a number that is too long": (message(b'[[], {"priority": ' + b"9" * 5000 + b"}, {}]"), "the body is no JSON"),
    "an enormous body": (message([[], {"a": "x" * 2_000_000}, {}]), "larger than 1048576 bytes"),
    "compressed": (message(zlib.compress(b"[[], {}, {}]"), compression="gzip"), "compression: expected none"),
    "compressed to a thousandth": (message(BOMB, compression="application/x-gzip"), "compression: expected none"),
    "compressed by nobody knows what": (message([[], {}, {}], compression=NAME), "compression: expected none"),
    "compressed by a list": (message([[], {"a": SECRET}, {}], compression=[NAME]), "compression: expected none"),
    "YAML": (message(f"a: {SECRET}".encode(), kind="application/x-yaml"), "the body is no JSON"),
    "pickle": (message(b"cos\nsystem\n(S'true'\ntR.", kind="application/x-python-serialize"), "the body is no JSON"),
    "plain text": (message(SECRET.encode(), kind="text/plain"), "the body is no JSON"),
    "bytes": (message(SECRET.encode(), kind="application/data"), "[args, kwargs, embed]"),
    "a content type that is a list": (message([[], {}, {}], kind=[NAME]), "the body is no JSON"),
    "a time that is none": (message([[], {}, {}], eta=SECRET), "eta: "),
    "a time that is far away": (message([[], {}, {}], eta="9999-01-01T00:00:00Z"), "eta: "),
    "an end that is no time": (message([[], {}, {}], expires=NAME), "expires: "),
    "a limit of other parts": (message([[], {}, {}], timelimit=[0.01, NAME]), "timelimit: "),
    "a limit that is text": (message([[], {}, {}], timelimit=SECRET), "timelimit: "),
    "an id that is an object": (message([[], {"priority": 3}, {}], id={"a": SECRET}), "id: expected"),
    "no id": (message([[], {"priority": 1}, {}], id=None), "id: expected"),
    "an id that is an address": (message([[], {"priority": 2}, {}], id=SECRET), "id: expected"),
    "repeats that are text": (message([[], {}, {}], retries=SECRET), "a header that Celery reads"),
    "a parent that is a list": (message([[], {}, {}], parent_id=[SECRET]), "a header that Celery reads"),
    "a chain in a header": (message([[], {}, None], chain=[SECRET]), "a header that Celery reads"),
    "half a character": (message(b'[[], {"request_id": "\\ud800"}, {}]'), "request_id: expected"),
    "a request id that is a list": (message([[], {"request_id": [SECRET]}, {}]), "request_id: expected"),
    "a number that is none": (message(b'[[], {"priority": NaN}, {}]'), "priority: "),
    "a deadline before all time": (
        message([[], {"deadline": "0001-01-01T00:00:00+14:00"}, {}]),
        "deadline: ",
    ),
    "properties of other types": (message(None, top={"properties": {"delivery_tag": [NAME]}}), "the body is no JSON"),
    "protocol 1": (message(PROTOCOL_1, top={"headers": {}}), "email: Extra inputs are not permitted"),
}

# Of the sweep, which is no job, and takes nothing.
SWEPT: dict[str, str] = {
    "a field": message([[], {NAME: SECRET}, {}], task=SWEEP),
    "a position": message([[SECRET], {"request_id": SECRET}, {}], task=SWEEP),
    "a field named self": message([[], {"self": SECRET}, {}], task=SWEEP),
}


def push(system: System, *messages: str | bytes) -> None:
    with redis.Redis.from_url(system.environ["REDIS_URL"]) as broker:
        broker.lpush(QUEUE, *messages)


def is_drained(system: System) -> bool:
    with redis.Redis.from_url(system.environ["REDIS_URL"]) as broker:
        return broker.llen(QUEUE) == broker.hlen("unacked") == 0


def test_no_message_ends_the_worker_or_comes_back_and_each_leaves_its_reason(system: System) -> None:
    (worker,) = system.start("worker").children
    push(system, *(text for text, _ in LOGGED.values()), *(text for text, _ in NOTED.values()))
    push(system, *SWEPT.values(), message([[], {"request_id": "good"}, {}]))
    system.wait_for(lambda: system.job("good").get("state") == "done", "the last message is carried out", timeout=90)
    system.wait_for(lambda: is_drained(system), "nothing is left in the broker")
    notes = list(system.deployment.admin.compliance["jobs"].find({"refused": True}))
    log = worker.log.read_text()

    assert worker.process.poll() is None
    said = [note["error"]["message"] for note in notes]
    assert [name for name, (_, says) in NOTED.items() if not any(says in text for text in said)] == []
    assert len([note for note in notes if note["kind"] != "unknown"]) == len(NOTED)
    unknown = [note["error"]["message"] for note in notes if note["kind"] == "unknown"]
    swept = [text for text in unknown if text.startswith(SWEEP)]
    assert {text.partition(" known: ")[0] for text in unknown} == {"there is no such task;", *swept}
    assert len(swept) == len(SWEPT)
    assert len(unknown) - len(swept) == 7  # four came with an id; of the others those with the same body are the same
    events = [json.loads(line)["event"] for line in log.splitlines() if line.startswith("{")]  # not Celery's banner
    assert "Traceback" not in log
    assert events.count("message.unreadable") == sum(event == "message.unreadable" for _, event in LOGGED.values())
    assert events.count("message.unknown_task") == len(LOGGED)
    assert not [
        planted for planted in (SECRET, NAME, "ann.smith") if planted in f"{log}{notes}{system.deployment.entries()}"
    ]


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.storm)])
def test_what_a_worker_had_taken_does_not_end_the_next_one(system: System, *, killed: bool) -> None:
    broken = [text for text, _ in NOTED.values()]
    (worker,) = system.start("worker").children
    system.wait_for(lambda: "ready" in worker.log.read_text(), "the worker is ready")
    push(system, *broken)
    system.wait_for(lambda: "message.malformed" in worker.log.read_text(), "the worker has begun")
    worker.process.send_signal(signal.SIGKILL if killed else signal.SIGTERM)
    worker.process.wait(30)
    system.start("worker")
    push(system, message([[], {"request_id": "good"}, {}]))

    system.wait_for(lambda: system.job("good").get("state") == "done", "the next worker works", timeout=90)


def test_a_sound_message_of_a_foreign_client_is_carried_out(system: System) -> None:
    system.start("worker")
    push(system, message([[], {"request_id": "r-2"}, None], timelimit=[0.001, 0.001]))
    push(system, message([[], {"request_id": "late"}, {}], expires="2026-01-01T00:00:00Z"))
    push(system, message({**PROTOCOL_1, "id": "p-2", "kwargs": {}}, top={"headers": {}}))

    system.wait_for(lambda: system.job("r-2").get("state") == "done", "protocol 2")
    system.wait_for(lambda: system.job("p-2").get("state") == "done", "protocol 1")
    system.wait_for(lambda: system.job("late").get("state") == "done", "one that came late")


def by_hand(key: str, request_id: str, kwargs: dict[str, Any]) -> dict[str, str]:
    """The headers of a signed message, from the documentation and without code of ours."""
    digest = hashlib.sha256(json.dumps(kwargs, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    text = f"v1\ncrm\n{int(time.time())}\n{TASK}\n{request_id}\n{digest}"
    return {
        "compliance_service": "crm",
        "compliance_timestamp": text.split("\n")[2],
        "compliance_signature": f"v1={hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()}",
    }


def test_where_messages_are_signed_only_those_of_known_services_are_carried_out(system: System, tmp_path: Path) -> None:
    key = "k" * 40
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"crm:\n  keys: [{key}]\n  tasks: [{TASK}]\n", encoding="utf-8")
    system.environ["COMPLIANCE_SIGNING_KEYS_FILE"] = str(keys)
    system.start("worker", "beat")
    push(
        system,
        message([[], {"request_id": "unsigned", "priority": 7}, {}]),
        message([[], {"request_id": "forged"}, {}], **by_hand("x" * 40, "forged", {})),
        message([[], {"request_id": "changed", "priority": 9}, {}], **by_hand(key, "changed", {"priority": 7})),
        message([[], {"request_id": "signed", "priority": 7}, {}], **by_hand(key, "signed", {"priority": 7})),
    )
    system.wait_for(lambda: system.job("signed").get("state") == "done", "the signed one is done")
    system.wait_for(lambda: len(refused(system)) == 3, "the others are refused")

    assert refused(system) == {"unsigned", "forged", "changed"}
    assert {entry["details"]["code"] for entry in system.deployment.entries(action="message.refused")} == {
        "UntrustedSender"
    }
    assert json.loads(system.compliance("jobs", "show", "signed", "--json"))["sender"] == "crm"
    person = str(system.seeded.subjects[0])
    system.compliance("erasure", "request", person, "--request-id", "by-command", "--wait")


def refused(system: System) -> set[str]:
    return {note["_id"] for note in system.deployment.admin.compliance["jobs"].find({"refused": True})}


def test_a_worker_with_keys_that_cannot_be_read_says_so_and_ends(system: System) -> None:
    done = system.command("celery", "-A", "worker", "worker", COMPLIANCE_SIGNING_KEYS=f"crm: {{keys: [{NAME}]}}")

    assert done.returncode == 78
    assert "COMPLIANCE_SIGNING_KEYS: keys.0: " in done.stderr
    assert NAME not in done.stderr + done.stdout
