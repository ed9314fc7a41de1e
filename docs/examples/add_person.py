# ruff: noqa: INP001, T201, TID251
"""Put a made-up person into the database of a running `compliance up`, and print the person's id."""

import os
from datetime import UTC, datetime
from pathlib import Path

from bson import ObjectId

from compliance.mongo import open_client
from compliance.settings import load_settings
from worker.embedded import find_stack, resolve_home

settings = load_settings(os.environ)
stack = find_stack(resolve_home(Path(settings.home) if settings.home else None))
if stack is None:
    raise SystemExit("no embedded stack is running; start one with `compliance up`")

now = datetime.now(UTC)
person = ObjectId()
with open_client(stack.mongodb_uri("admin", auth_source="admin"), app_name="example") as client:
    database = client[settings.mongodb_database]
    database.users.insert_one(
        {
            "_id": person,
            "email": f"{person}@example.org",
            "role": "listener",
            "status": "ACTIVE",
            "subscription_type": "FREE",
            "created_at": now,
        }
    )
    database.analytics.insert_many(
        {"user_id": person, "event_type": event, "timestamp": now} for event in ("play", "pause", "skip")
    )
print(person)
