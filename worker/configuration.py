"""How Celery is set up: one queue per kind of work, JSON only; each setting says why."""

from celery import Celery
from kombu import Queue

from compliance.settings import Settings
from worker import consumer
from worker.broker import broker_settings
from worker.resume import SWEEP_QUEUE, beat_schedule
from worker.resume import TASK as SWEEP
from worker.routing import QUEUES
from worker.tasks import JOBS

OWN_ROUTES = {SWEEP: {"queue": SWEEP_QUEUE}, consumer.REFUSE: {"queue": SWEEP_QUEUE}}


def configure(app: Celery, settings: Settings, *, broker_url: str) -> None:
    """Set up *app* for the broker at *broker_url*."""
    app.conf.update(
        **broker_settings(broker_url, settings),
        worker_consumer=f"{consumer.__name__}:{consumer.CarefulConsumer.__name__}",  # lives whatever strangers send
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # the default gives up after 100
        broker_channel_error_retry=True,  # RabbitMQ closes the channel of a job that takes long; the worker would end
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        event_serializer="json",
        task_ignore_result=True,  # results live in the ledger; in Redis they would be one more copy
        result_backend=None,
        task_acks_late=True,  # an early acknowledgement loses the message with the worker
        task_reject_on_worker_lost=True,  # a message whose worker dies comes again; a job that is leased lets it pass
        task_track_started=True,
        task_queues=[Queue(name, routing_key=name) for name in QUEUES],
        task_default_queue=SWEEP_QUEUE,
        task_create_missing_queues=False,  # a mistyped queue is an error at the sender, not a black hole
        task_routes={kind.task: {"queue": kind.queue} for kind in JOBS.values()} | OWN_ROUTES,
        worker_prefetch_multiplier=1,  # a worker holds what it works on, nothing more
        worker_eta_task_limit=100,  # while MongoDB is away, messages wait in the broker and not in our memory
        worker_max_tasks_per_child=500,
        worker_max_memory_per_child=settings.child_memory_mb * 1024,  # KiB; looked at after a task, never within one
        # A task that hangs renews its lease for ever. Killed, its job is claimed again, and parked if it always hangs.
        task_time_limit=settings.job_limit.total_seconds(),
        worker_cancel_long_running_tasks_on_connection_loss=False,  # the fence guards; cancelling has known bugs
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=True,  # Flower
        task_send_sent_event=True,
        enable_utc=True,
        timezone="UTC",
        beat_scheduler="celery.beat:Scheduler",  # the schedule is code; the default keeps a pickled file
        beat_schedule=beat_schedule(settings.sweep_interval),
    )
