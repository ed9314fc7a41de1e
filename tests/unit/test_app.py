"""The Celery application: what it accepts, where it sends, and what it shows."""

import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import kombu
import pytest
from celery import Celery, signals
from celery.app.trace import build_tracer
from celery.exceptions import Reject, Retry
from kombu import Connection
from kombu.utils.imports import symbol_by_name
from structlog.testing import capture_logs

from compliance.clock import SystemClock
from compliance.errors import ConfigurationError, StoreUnavailable
from compliance.jobs.document import from_document
from compliance.jobs.job import Job, RequestId, State, to_stand_in
from compliance.settings import Settings
from worker import celery_tasks
from worker.app import create_app, refuse_unknown_tasks
from worker.celery_tasks import HiddenRequest, JobCrashed
from worker.client import sign
from worker.consumer import FAULT, REFUSE, CarefulConsumer
from worker.doorbell import HIDDEN, RECORDED, publisher
from worker.envelope import FAULTS, PUT_OFF, fault_of
from worker.refusal import UNKNOWN
from worker.resume import TASK as SWEEP
from worker.routing import QUEUES
from worker.services import Services
from worker.signals import StopFlag
from worker.signature import Keyring
from worker.tasks import JOBS

SECRET = "ann.smith@example.org"
SOUND = b"[[], {}, {}]"
SIGNALS = (
    signals.setup_logging,
    signals.celeryd_init,
    signals.beat_init,
    signals.worker_ready,
    signals.worker_shutting_down,
)


Refused = tuple[str, str, str]
"""Kind, id and class of error of a note."""


class Recorder:
    """A ledger that keeps what it is told; every job is done already."""

    def __init__(self) -> None:
        self.recorded: list[tuple[str, str, dict[str, Any]]] = []
        self.refused: list[Refused] = []
        self.error: Exception | None = None

    @property
    def jobs(self) -> Any:
        return SimpleNamespace(find_one=lambda *_, **__: None, insert_one=self._refuse)

    def _refuse(self, note: dict[str, Any], **_: Any) -> None:
        self.refused.append((note["kind"], note["_id"], note["error"]["code"]))

    def record(self, document: dict[str, Any], **_: Any) -> Job:
        if self.error is not None:
            raise self.error
        self.recorded.append((document["_id"], document["kind"], document["payload"]))
        return from_document(document | {"state": State.DONE.value})


@pytest.fixture
def ledger() -> Recorder:
    return Recorder()


@pytest.fixture
def app(ledger: Recorder) -> Iterator[Celery]:
    """An application on a broker in memory, with a ledger that only records."""
    before = {signal: list(signal.receivers or ()) for signal in SIGNALS}
    clock = SimpleNamespace(now=lambda: datetime(2026, 3, 31, tzinfo=UTC))
    databases = SimpleNamespace(transact=lambda work: work(None))
    log = SimpleNamespace(holds=lambda *_, **__: False, append=lambda *_, **__: None)
    found = SimpleNamespace(ledger=ledger, clock=clock, keyring=None, databases=databases, log=log)
    services = cast("Services", found)
    yield create_app(Settings(), broker_url="memory://", build=lambda _app, _stop: services, check=lambda _: None)
    for signal, receivers in before.items():
        signal.receivers = receivers


def a_job(kind: str = "audit.verify", payload: dict[str, Any] | None = None) -> Job:
    now = datetime(2026, 3, 31, tzinfo=UTC)
    return Job(request_id=RequestId("r-1"), kind=kind, payload=payload or {}, state=State.QUEUED, created_at=now)


def test_only_json_is_accepted_and_sent(app: Celery) -> None:
    assert app.conf.accept_content == ["json"]
    assert {app.conf.task_serializer, app.conf.result_serializer, app.conf.event_serializer} == {"json"}


def test_every_queue_is_declared_and_every_job_is_routed(app: Celery) -> None:
    assert {queue.name for queue in app.conf.task_queues} == set(QUEUES)
    assert app.conf.task_routes == {kind.task: {"queue": kind.queue} for kind in JOBS.values()} | {
        SWEEP: {"queue": "compliance.health"},
        REFUSE: {"queue": "compliance.health"},
    }
    assert not app.conf.task_create_missing_queues


def test_every_job_kind_is_a_task_and_nothing_else_of_ours_is(app: Celery) -> None:
    ours = {name for name in app.tasks if not name.startswith("celery.")}

    assert ours == {SWEEP, REFUSE, *(kind.task for kind in JOBS.values())}


def test_a_message_outlives_its_worker_and_results_are_kept_in_the_ledger_only(app: Celery) -> None:
    conf = app.conf

    assert (conf.task_acks_late, conf.worker_prefetch_multiplier) == (True, 1)
    assert (conf.task_reject_on_worker_lost, conf.task_ignore_result, conf.result_backend) == (True, True, None)
    assert conf.broker_connection_max_retries is None
    assert all(app.tasks[kind.task].ignore_result for kind in JOBS.values())


def test_the_arguments_of_a_request_are_shown_nowhere(app: Celery) -> None:
    app.send_task("compliance.erasure.request", kwargs={"subject_id": SECRET}, queue="compliance.erasure")
    with app.connection_for_read() as connection:
        message = received(connection, "compliance.erasure")
    request = HiddenRequest(message, app=app, task=app.tasks["compliance.erasure.request"], hostname="h")

    assert (request.argsrepr, request.kwargsrepr) == (HIDDEN, HIDDEN)
    assert SECRET not in f"{request!r} {request} {request.info()} {request.info(safe=False)}"
    assert (request._request_dict["argsrepr"], request._request_dict["kwargsrepr"]) == (HIDDEN, HIDDEN)


def received(connection: Connection, queue: str) -> Any:
    message = connection.default_channel.basic_get(queue, no_ack=True)
    assert message is not None
    return message


def test_every_task_hides_its_requests(app: Celery) -> None:
    assert {app.tasks[kind.task].Request for kind in JOBS.values()} == {"worker.celery_tasks:HiddenRequest"}


def test_a_doorbell_rings_on_the_queue_of_its_kind_with_the_request_id(app: Celery) -> None:
    publisher(app)(a_job("erasure.request", {"subject_id": "65f000000000000000000001"}))
    with app.connection_for_read() as connection:
        message = received(connection, "compliance.erasure")

    assert message.headers["task"] == "compliance.erasure.request"
    assert message.payload[1] == {"subject_id": "65f000000000000000000001", "request_id": "r-1"}
    assert (message.headers["argsrepr"], message.headers["kwargsrepr"]) == (HIDDEN, HIDDEN)
    assert message.headers[RECORDED] is True


@pytest.mark.parametrize(
    ("request_", "is_repeat"),
    [({}, False), ({RECORDED: True}, True), ({"delivery_info": {"redelivered": True}}, True)],
    ids=str,
)
def test_a_message_that_only_rings_is_no_new_one(
    app: Celery, monkeypatch: pytest.MonkeyPatch, request_: dict[str, Any], *, is_repeat: bool
) -> None:
    receive = Mock()
    monkeypatch.setattr(celery_tasks, "receive", receive)
    task = app.tasks["compliance.audit.verify"]
    task.push_request(id="celery-id", called_directly=False, args=(), kwargs={}, **request_)
    task.run()
    task.pop_request()

    assert receive.call_args.args[0].is_repeat is is_repeat


def test_what_our_own_processes_send_has_no_fault(app: Celery) -> None:
    now = datetime(2026, 3, 31, tzinfo=UTC)
    publisher(app)(a_job("erasure.request", {"subject_id": "65f000000000000000000001"}))
    app.send_task(SWEEP, queue="compliance.health", expires=20)
    with app.connection_for_read() as connection:
        sent = [received(connection, queue) for queue in ("compliance.erasure", "compliance.health")]

    assert [fault_of(message.headers, message.payload, now=now) for message in sent] == [None, None]


@pytest.mark.parametrize("broker", ["redis://127.0.0.1:1/0", "redis://nowhere.invalid/0", "nonsense://x"])
def test_a_doorbell_never_raises_when_the_broker_is_gone(app: Celery, broker: str) -> None:
    app.conf.update(broker_url=broker)

    with capture_logs() as logs:
        publisher(app)(a_job("erasure.request", {"subject_id": SECRET}))

    assert [(line["event"], line["request_id"]) for line in logs] == [("job.not_published", "r-1")]
    assert SECRET not in str(logs)


def deliver(app: Celery, task: str, *args: Any, **kwargs: Any) -> Any:
    """Run *task* as a worker would, eagerly."""
    return app.tasks[task].apply(args=args, kwargs=kwargs, task_id="celery-id")


def test_the_request_id_of_a_message_is_the_key_of_its_job(app: Celery, ledger: Recorder) -> None:
    deliver(app, "compliance.audit.verify", request_id="r-7")

    assert ledger.recorded == [("r-7", "audit.verify", {})]


@pytest.mark.parametrize("absent", [{}, {"request_id": None}])
def test_without_a_request_id_celerys_own_counts(app: Celery, ledger: Recorder, absent: dict[str, Any]) -> None:
    deliver(app, "compliance.audit.verify", **absent)

    assert ledger.recorded == [("celery-id", "audit.verify", {})]


@pytest.mark.parametrize("wrong", ["", 0, False, []])
def test_a_wrong_request_id_is_refused_and_not_replaced_by_celerys_own(
    app: Celery, ledger: Recorder, wrong: Any
) -> None:
    deliver(app, "compliance.audit.verify", request_id=wrong)

    assert (ledger.recorded, ledger.refused) == ([], [("audit.verify", "celery-id", "InvalidPayload")])


def test_positional_arguments_are_called_so(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    receive = Mock()
    monkeypatch.setattr(celery_tasks, "receive", receive)
    deliver(app, "compliance.audit.verify", SECRET)

    assert receive.call_args.args[0].fault == FAULTS["args"]


def test_the_task_for_what_does_not_exist_records_that_under_the_request_id(app: Celery, ledger: Recorder) -> None:
    deliver(app, REFUSE, request_id="r-7")
    deliver(app, REFUSE, subject_id=SECRET)
    deliver(app, REFUSE, request_id="schedule:nightly-audit:2026-03-31T03:30:00Z")

    assert ledger.refused == [(UNKNOWN, "r-7", "UnknownName"), *[(UNKNOWN, "celery-id", "UnknownName")] * 2]


SWEPT: list[tuple[tuple[str, ...], dict[str, Any]]] = [((SECRET,), {}), ((), {SECRET: 1}), ((), {"request_id": SECRET})]


@pytest.mark.parametrize(("args", "kwargs"), SWEPT, ids=str)
def test_a_sweep_with_arguments_is_refused_and_nothing_of_them_is_shown(
    app: Celery, ledger: Recorder, args: tuple[str, ...], kwargs: dict[str, Any]
) -> None:
    with capture_logs() as logs:
        result = deliver(app, SWEEP, *args, **kwargs)

    assert ledger.refused == [(UNKNOWN, "celery-id", "InvalidPayload")]
    assert SECRET not in f"{logs} {result.result} {result.traceback}"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StoreUnavailable("MongoDB does not answer"), ("sweep.put_off", "warning", "StoreUnavailable")),
        (ConfigurationError("the schedules are gone"), ("sweep.failed", "error", "the schedules are gone")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_sweep_that_fails_says_so_in_one_line_and_leaves_the_rest_to_the_next(
    app: Celery, monkeypatch: pytest.MonkeyPatch, error: Exception, said: tuple[str, str, str]
) -> None:
    monkeypatch.setattr(celery_tasks, "sweep_in_turn", Mock(side_effect=error))

    with capture_logs() as logs:
        result = deliver(app, SWEEP)

    assert [(line["event"], line["log_level"], line["error"]) for line in logs] == [said]
    assert result.successful()


def prepared(app: Celery, body: bytes = b"{", **headers: Any) -> tuple[kombu.Message, list[Any]]:
    """Return a message, by default one that cannot be read, as it is when Celery gets it, and the log."""
    message = kombu.Message(
        body=body,
        content_type="application/json",
        content_encoding="utf-8",
        headers=headers,
        delivery_info={"routing_key": SECRET},
    )
    with capture_logs() as logs:
        prepare(app, message, now=datetime(2026, 3, 31, tzinfo=UTC))
    return message, [*logs]


def prepare(app: Celery, message: kombu.Message, *, now: datetime) -> None:
    """Look at *message* as a worker with this clock does."""
    clock = SimpleNamespace(now=lambda: now)
    CarefulConsumer._prepare(cast("Any", SimpleNamespace(app=app, strategies=app.tasks, clock=clock)), message)


def test_a_compressed_body_is_refused_before_anybody_decompresses_it(app: Celery) -> None:
    packed = zlib.compress(SOUND)
    message, logs = prepared(app, packed, task="compliance.audit.verify", id="m-1", compression="gzip")
    untouched = kombu.Message(body=packed, headers={"compression": "gzip"})

    assert [(line["event"], line["fault"]) for line in logs] == [("message.malformed", "compression")]
    assert (message.headers[FAULT], message.headers.get("compression")) == ("compression", None)
    assert untouched.body == packed


def test_a_body_that_cannot_be_read_has_the_same_id_at_each_delivery(app: Celery) -> None:
    named, _ = prepared(app, task="compliance.audit.verify", id="m-1")
    unnamed, again = (prepared(app, task="compliance.audit.verify", id=SECRET)[0] for _ in range(2))

    assert named.headers["id"] == "m-1"
    assert unnamed.headers["id"] == again.headers["id"] == to_stand_in(b"{")


@pytest.mark.parametrize("body", [b"{", SOUND])
def test_the_limits_that_a_sender_sets_do_not_count(app: Celery, body: bytes) -> None:
    past = "2026-03-30T00:00:00+00:00"
    message, _ = prepared(app, body, task="compliance.audit.verify", id="m-1", expires=past, timelimit=[1, 1])

    assert (message.headers["expires"], message.headers["timelimit"]) == (None, [None, None])


def test_a_message_for_no_task_of_ours_goes_to_the_task_that_records_that(app: Celery) -> None:
    message, logs = prepared(app, task=SECRET, id="m-1")

    assert (message.headers["task"], message.headers["id"]) == (REFUSE, "m-1")
    assert [(line["event"], line["queue"]) for line in logs] == [("message.unknown_task", "(not known)")]
    assert SECRET not in str(logs)


def test_a_message_of_a_plain_client_travels_to_the_ledger(app: Celery, ledger: Recorder) -> None:
    with Celery("any-service", broker="memory://", set_as_current=False) as client:
        client.send_task(
            "compliance.export.run", kwargs={"collection": "users", "request_id": "r-8"}, queue="compliance.bulk"
        )
    with app.connection_for_read() as connection:
        message = received(connection, "compliance.bulk")
    args, kwargs, _ = message.payload
    tracer = build_tracer(message.headers["task"], app.tasks[message.headers["task"]], app=app)
    tracer(message.headers["id"], args, kwargs, request=dict(message.headers))

    assert ledger.recorded == [("r-8", "export.run", {"collection": "users"})]


def test_while_the_ledger_is_away_the_message_stays_in_the_broker(app: Celery, ledger: Recorder) -> None:
    ledger.error = StoreUnavailable("MongoDB does not answer")
    task = app.tasks["compliance.audit.verify"]
    task.push_request(id="celery-id", called_directly=False, args=(), kwargs={"request_id": "r-7"}, retries=10_000)

    with pytest.raises(Retry) as caught:
        task.run(request_id="r-7")
    task.pop_request()

    assert 1 <= caught.value.when <= 30


@pytest.mark.parametrize("others", [{}, {"headers": {"sentry-trace": "1"}, "sentry-trace": "1"}], ids=str)
def test_a_message_that_is_tried_again_keeps_its_signature_and_its_trace(
    app: Celery, ledger: Recorder, others: dict[str, Any]
) -> None:
    ledger.error = StoreUnavailable("MongoDB does not answer")
    task = app.tasks["compliance.audit.verify"]
    headers = sign(task.name, {}, request_id="r-7", service="crm", key="k" * 32) | {"traceparent": "00-a"}
    task.push_request(id="celery-id", called_directly=False, args=(), kwargs={"request_id": "r-7"}, **headers, **others)

    with pytest.raises(Retry) as caught:
        task.run(request_id="r-7")
    task.pop_request()

    again = caught.value.sig  # type: ignore[attr-defined]  # missing in the stubs
    sent = again.options["headers"]
    assert (again.kwargs, sent) == ({"request_id": "r-7"}, headers | {PUT_OFF: sent[PUT_OFF]})


@pytest.mark.parametrize("skew", [timedelta(), timedelta(hours=2), -timedelta(hours=2), timedelta(days=400)], ids=str)
def test_a_message_that_is_tried_again_is_taken_whatever_the_clock_of_the_next_worker_says(
    app: Celery, ledger: Recorder, skew: timedelta
) -> None:
    ledger.error = StoreUnavailable("MongoDB does not answer")
    task, now = app.tasks["compliance.audit.verify"], SystemClock().now() + skew
    task.push_request(id="celery-id", called_directly=False, args=(), kwargs={"request_id": "r-7"})
    with pytest.raises(Retry):
        task.run(request_id="r-7")
    task.pop_request()
    with app.connection_for_read() as connection:
        message = received(connection, "compliance.audit")
    prepare(app, message, now=now)

    assert message.headers.get(FAULT) is None
    assert timedelta(seconds=1) <= datetime.fromisoformat(message.headers["eta"]) - now <= timedelta(seconds=30)


def test_keys_for_a_task_that_does_not_exist_are_refused_with_the_known_ones() -> None:
    keyring = Keyring.parse(f"crm: {{keys: [{'k' * 32}], tasks: [compliance.erasure.requst]}}")

    with pytest.raises(ConfigurationError, match=r"known: .*compliance\.audit\.verify"):
        refuse_unknown_tasks(keyring)


def test_every_message_is_looked_at_before_celery_reads_it(app: Celery) -> None:
    assert symbol_by_name(app.conf.worker_consumer) is CarefulConsumer


def test_what_we_publish_ourselves_is_taken_by_our_own_consumer(app: Celery, ledger: Recorder) -> None:
    ledger.error = StoreUnavailable("MongoDB does not answer")
    task = app.tasks["compliance.audit.verify"]
    task.push_request(id="celery-id", called_directly=False, args=(), kwargs={"request_id": "r-7"}, timelimit=(5, None))
    with pytest.raises(Retry):
        task.run(request_id="r-7")
    task.pop_request()
    app.tasks[SWEEP].apply_async()
    app.send_task("compliance.export.run", kwargs={"collection": "users"})
    with app.connection_for_read() as connection:
        sent = [received(connection, f"compliance.{queue}") for queue in ("audit", "health", "bulk")]

    faults = [fault_of(message.headers, message.payload, now=SystemClock().now()) for message in sent]
    assert faults == [None, None, None]


def test_while_the_broker_is_away_too_the_message_goes_back_to_its_queue(app: Celery, ledger: Recorder) -> None:
    ledger.error = StoreUnavailable("MongoDB does not answer")
    app.conf.broker_url = "redis://127.0.0.1:9/0"
    task = app.tasks["compliance.audit.verify"]
    task.push_request(id="celery-id", called_directly=False, args=(), kwargs={"request_id": "r-7"})

    with pytest.raises(Reject) as caught:
        task.run(request_id="r-7")
    task.pop_request()

    assert caught.value.requeue


def test_a_bug_is_reported_by_its_type_only(app: Celery, ledger: Recorder) -> None:
    ledger.error = KeyError(SECRET)

    with capture_logs() as logs:
        result = deliver(app, "compliance.audit.verify", request_id="r-7")

    assert isinstance(result.result, JobCrashed)
    assert str(result.result) == "audit.verify: KeyError"
    assert SECRET not in f"{logs} {result.traceback}"
    assert [line["event"] for line in logs] == ["task.crashed"]


@pytest.mark.parametrize(("given", "shown"), [("r-7", "r-7"), (SECRET, "none"), ([SECRET], "none")], ids=str)
def test_a_bug_is_reported_under_a_request_id_that_may_be_shown(
    app: Celery, ledger: Recorder, monkeypatch: pytest.MonkeyPatch, given: Any, shown: str
) -> None:
    report = Mock()
    monkeypatch.setattr(celery_tasks, "report_error", report)
    monkeypatch.setattr(celery_tasks, "receive", Mock(side_effect=KeyError(SECRET)))
    deliver(app, "compliance.audit.verify", request_id=given)

    assert report.call_args.kwargs == {"kind": "audit.verify", "request_id": shown}


def test_the_flag_to_stop_is_raised_once_and_for_all() -> None:
    stop = StopFlag()
    before = stop()
    stop.set()
    stop.set()

    assert (before, stop()) == (False, True)


def test_services_are_built_on_first_use_not_with_the_app() -> None:
    before = {signal: list(signal.receivers or ()) for signal in SIGNALS}
    create_app(Settings(), broker_url="memory://", build=lambda _app, _stop: pytest.fail("built too early"))
    for signal, receivers in before.items():
        signal.receivers = receivers
