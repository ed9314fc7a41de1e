"""The commands that a client sends, as the driver tells them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bson import json_util
from deployment import Deployment
from pymongo import MongoClient  # noqa: TID251 - a client that is heard
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from compliance.mongo import Databases
from compliance.roles import Role

CHANGING = frozenset(
    {"create", "collMod", "createIndexes", "drop", "dropIndexes", "renameCollection", "insert", "update", "delete"}
)
OF_THE_DRIVER = frozenset(
    {"lsid", "txnNumber", "startTransaction", "autocommit", "readConcern", "$clusterTime", "$db", "$readPreference"}
)


class Heard(CommandListener):
    """Keeps every command that changes something."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name in CHANGING:
            self.events.append((event.database_name, dict(event.command)))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Nothing."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Nothing."""

    def on(self, database: str) -> list[dict[str, Any]]:
        """What was sent to *database*."""
        return [command for name, command in self.events if name == database]


def sent(command: dict[str, Any]) -> str:
    """*command* without what the driver adds, in canonical Extended JSON."""
    added = {*OF_THE_DRIVER, "maxTimeMS"} if "autocommit" in command else OF_THE_DRIVER  # what is left of its time
    body = {name: value for name, value in command.items() if name not in added}
    return json_util.dumps(body, json_options=json_util.CANONICAL_JSON_OPTIONS, ensure_ascii=False)


@contextmanager
def listened(deployment: Deployment) -> Iterator[tuple[Databases, Heard]]:
    """Yield the databases as the migrator, and what its client sends."""
    heard = Heard()
    uri = deployment.addresses.mongodb_uri(Role.MIGRATOR)
    options: dict[str, Any] = {"w": "majority", "readConcernLevel": "majority", "tz_aware": True}
    with MongoClient(uri, event_listeners=[heard], **options) as client:
        yield Databases(client, deployment.name, deployment.addresses.writer("test")), heard
