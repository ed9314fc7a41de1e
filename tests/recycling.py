"""One database for many tests: each finds it as if it were new.

Where a test changed users or roles, or more than documents of a migrated database, the next one gets another database.
"""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from deployment import Deployment, drop, provision_database
from migrated import schemas

from compliance.mongo import Databases
from compliance.provision import ensure_audit_log
from compliance.roles import Role, role_name
from worker.embedded import Stack

RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)


@dataclass(frozen=True)
class Condition:
    """All that a test may have changed in a database and its users."""

    schema: Any
    users: Any
    documents: dict[tuple[str, str], list[RawBSONDocument]]


@dataclass
class Recycler:
    """Lends out one database at a time, the same again while it can be made as it was.

    Attributes:
        migrated: Whether the migrations of the reference domain are applied.
        reuses: Whether there is the same again; processes that were killed may hold on to what they wrote.
    """

    stack: Stack
    cleanup: ExitStack
    migrated: bool
    reuses: bool
    _found: Deployment | None = field(default=None, init=False)
    _condition: Condition | None = field(default=None, init=False)

    @contextmanager
    def lend(self) -> Iterator[Deployment]:
        if self._found is None:
            self._found = provision_database(self.stack, f"t_{uuid.uuid4().hex[:12]}", self.cleanup)
            if self.migrated:
                self._found.migrate()
            self._condition = _condition(self._found.admin)
        found, before = self._found, self._condition
        assert before is not None
        with ExitStack() as borrowed:
            yield replace(found, cleanup=borrowed, published=[], _open={})
        if not self.reuses or not self._restore(found.admin, before):
            self._found = None
        shutil.rmtree(self.stack.home / found.name, ignore_errors=True)

    def _restore(self, admin: Databases, before: Condition) -> bool:
        """Make the database as it was; return whether users and roles are, too."""
        if _users(admin) != before.users:
            return False
        if not self.migrated:
            drop(admin)
            ensure_audit_log(admin)
        if schemas(admin) != before.schema:
            return False
        if self.migrated:
            _put_back(admin, before)
        return True


def _condition(admin: Databases) -> Condition:
    documents = {
        (database.name, name): list(database[name].find())
        for database in map(_raw, (admin.app, admin.audit, admin.compliance))
        for name in database.list_collection_names()
    }
    return Condition(schema=schemas(admin), users=_users(admin), documents=documents)


def _put_back(admin: Databases, before: Condition) -> None:
    for (database, name), documents in before.documents.items():
        collection = _raw(admin.client[database])[name]
        collection.delete_many({})
        if documents:
            collection.insert_many(documents)


def _raw(database: Any) -> Any:
    return database.with_options(codec_options=RAW)


def _users(admin: Databases) -> Any:
    users = admin.compliance.command("usersInfo", showCredentials=True)["users"]
    roles = [role_name(role, admin.name) for role in Role]
    return users, admin.client.admin.command("rolesInfo", roles, showPrivileges=True)["roles"]
