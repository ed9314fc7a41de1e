"""Everything that the system shows or keeps outside the application database, as text."""

import base64
import json
import re
from collections.abc import Iterable
from typing import Any

import redis
from celery import Celery
from system import System

INSPECT = ("active", "reserved", "scheduled", "active_queues", "registered", "stats", "conf")
ANSWER_SECONDS = 20


def inspected(system: System, task_ids: Iterable[str]) -> str:
    """What ``celery inspect`` is told by the worker, also about these tasks."""
    with Celery("somebody-else", broker=system.environ["REDIS_URL"], set_as_current=False) as app:
        inspect = app.control.inspect(timeout=ANSWER_SECONDS, limit=1)
        told = {name: getattr(inspect, name)() for name in INSPECT}
        told["query_task"] = inspect.query_task(*task_ids)
    assert all(told.values()), {name: answer is not None for name, answer in told.items()}
    return json.dumps(told)


def scheduled(system: System) -> str:
    """The messages that the worker takes up again later."""
    with Celery("somebody-else", broker=system.environ["REDIS_URL"], set_as_current=False) as app:
        return json.dumps(app.control.inspect(timeout=ANSWER_SECONDS, limit=1).scheduled())


def flower_pages(system: System) -> str:
    """Every page and answer of Flower, those of each task too."""
    tasks = [task["uuid"] for task in system.flower_tasks()]
    paths = ["/workers", "/tasks", "/broker", "/metrics", "/api/tasks", "/api/workers?refresh=1", "/api/task/types"]
    paths += [path for task in tasks for path in (f"/task/{task}", f"/api/task/info/{task}")]
    return "".join(system.flower(path) for path in paths)


def logs(system: System) -> str:
    """What all processes have written."""
    return "".join(path.read_text(errors="replace") for path in system.home.glob("*.log"))


def envelopes(system: System) -> str:
    """What Sentry was sent."""
    return b"".join(system.sentry.envelopes).decode(errors="replace")


def audit_log(system: System) -> str:
    return str(list(system.deployment.admin.audit["audit_log"].find()))


def own_collections(system: System) -> str:
    """Jobs, requests, checks, tokens and whatever else is ours."""
    database = system.deployment.admin.compliance
    return str({name: list(database[name].find()) for name in database.list_collection_names()})


def broker(system: System) -> str:
    """Every value in the broker."""
    with redis.Redis.from_url(system.environ["REDIS_URL"]) as client:
        return "".join(decoded(str(_values(client, key)).encode()) for key in client.scan_iter())


def _values(client: "redis.Redis[bytes]", key: bytes) -> Any:
    match client.type(key):
        case b"list":
            return key, client.lrange(key, 0, -1)
        case b"hash":
            return key, client.hgetall(key)
        case b"zset":
            return key, client.zrange(key, 0, -1)
        case b"set":
            return key, client.smembers(key)
    return key, client.get(key)


def append_only_file(system: System) -> str:
    """All that was ever written to the broker."""
    folder = system.deployment.stack.home / "valkey"
    files = [path for path in folder.rglob("*") if path.is_file() and ".aof" in path.name]
    return "".join(decoded(path.read_bytes()) for path in files)


def decoded(raw: bytes) -> str:
    """The text of *raw*, with the bodies of messages (base64) as they are and decoded."""
    bodies = re.findall(rb'body\\*"\s*:\s*\\*"([A-Za-z0-9+/=]{16,})', raw)
    texts = [base64.b64decode(body + b"==") for body in bodies]
    return b"".join([raw, *texts]).decode(errors="replace")
