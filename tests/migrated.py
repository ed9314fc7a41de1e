"""What tests of migrations look at and arrange."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployment import Deployment

from compliance.errors import (
    LockHeld,
)
from compliance.mongo import Databases, Document
from compliance.settings import MIGRATIONS
from migrations.discovery import discover

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


ROOT = Path(__file__).parents[1]


NAMES = [revision.name for revision in discover(MIGRATIONS)]


STRING, DATE, ID, OBJECT, ARRAY, BOOL, INT = "string", "date", "objectId", "object", "array", "bool", "int"


SUBSCRIPTIONS = ["FREE", "PREMIUM", "FAMILY", "STUDENT", "TRIAL"]


def snapshot(database: Any) -> dict[str, Any]:
    """The schema: every collection with its options, every index with its own."""
    found = {info["name"]: info for info in database.list_collections()}
    return {
        name: {
            "type": info["type"],
            "options": info["options"],
            "indexes": sorted((dict(index) for index in database[name].list_indexes()), key=lambda index: index["name"])
            if info["type"] != "view"
            else [],
        }
        for name, info in found.items()
    }


def schemas(admin: Databases) -> list[dict[str, Any]]:
    return [snapshot(admin.app), snapshot(admin.audit), snapshot(admin.compliance)]


def hashes(admin: Databases) -> list[dict[str, str]]:
    databases = (admin.app, admin.audit, admin.compliance)
    return [database.command("dbHash")["collections"] for database in databases]


def user(**changes: Any) -> Document:
    return {"email": "mara@example.org", "role": "listener", "status": "ACTIVE", "created_at": NOON} | changes


def names(done: Iterable[Any]) -> list[str]:
    return [revision.name for revision in done]


def write_scripts(folder: Path, scripts: Mapping[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, source in scripts.items():
        (folder / name).write_text("\n".join(line[8:] for line in source.splitlines()).lstrip() + "\n")
    return folder


def leave_the_lease_behind(admin: Databases) -> None:
    """A process that is killed gives nothing back: its lease stands until it ends."""
    until = {"$add": ["$$NOW", 300]}
    lease = {"state": "running", "lease": {"owner": "dead:1", "until": until}}
    admin.compliance["migration_lease"].update_one({"_id": "migrations"}, [{"$set": lease}])


def succeeds(deployment: Deployment) -> bool:
    try:
        deployment.runner().up()
    except LockHeld:
        return False
    return True
