"""The MongoDB users of the system and what each may do (least privilege).

Privileges of MongoDB only add up, so nobody here holds ``readWrite`` on the audit database: with it, delete and drop
go through.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Privilege = dict[str, Any]
Right = tuple[str, str, str]  # database, collection, action; an empty name stands for all of them

AUDIT_LOG = "audit_log"
BATCHES = "audit_batches"
CHECKPOINTS = "audit_checkpoints"
TILES = "audit_tiles"
COSIGNATURES = "audit_cosignatures"
INCIDENTS = "audit_incidents"
SEAL = (BATCHES, CHECKPOINTS, TILES, COSIGNATURES, INCIDENTS)  # what the sealer adds to, and nobody changes
OUTBOX = "outbox"
APPROVALS = "migration_approvals"
PROMOTIONS = "migration_promotions"
CONTROL = "migration_control"
REBUILD = "rebuild:"  # begins the ids of what ``migration_control`` says of collections that are rebuilt
PRE_IMAGES = "compliance_pre_images"  # with the application's data: nobody reads it who may not read that
PROFILES = "system.profile"
STREAM_PRE_IMAGES = "system.preimages"  # of the whole deployment, in the database ``config``
REHEARSAL = "_rehearsal"  # what the name of a copy of the application database ends with
READ = ("find", "listIndexes", "collStats")
ALTERING = frozenset(
    {
        "anyAction",
        "applyOps",
        "bypassDocumentValidation",
        "collMod",
        "convertToCapped",
        "createIndex",
        "dropCollection",
        "dropDatabase",
        "dropIndex",
        "internal",
        "remove",
        "renameCollectionSameDB",
        "update",
    }
)
ESCALATING = frozenset({"applyOps", "changePassword", "createUser", "grantRole"})


class Role(StrEnum):
    """One MongoDB user per kind of process, one for services that send, one for pruning; the value is its user name."""

    WORKER = "compliance_worker"
    MIGRATOR = "compliance_migrator"
    SEALER = "compliance_sealer"
    AUDITOR = "compliance_auditor"
    SENDER = "compliance_sender"
    ARCHIVER = "compliance_archiver"


ON_REQUEST = frozenset({Role.SENDER, Role.ARCHIVER})  # users that are made where their connection string is set


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """Collections of the application database that the worker may write to.

    Attributes:
        erasable: Where an erasure may update and remove.
        importable: Where an import may insert.
        purges: Whether an erasure removes pre-images of change streams: a right on those of the whole deployment.
    """

    erasable: Sequence[str]
    importable: Sequence[str]
    purges: bool = False


def shadow_of(collection: str) -> str:
    """Return the name of the copy that is to take the place of *collection*; roles name it before it is there."""
    return f"{collection}_shadow"


def role_name(role: Role, database: str) -> str:
    """Return the name of the MongoDB role; roles live in ``admin``, so the application's name is part of it."""
    return f"{role.value}@{database}"


def privileges(role: Role, database: str, grants: Grants) -> list[Privilege]:
    """Return what *role* may do in the three databases of the application *database*."""
    app, audit, own = database, f"{database}_audit", f"{database}_compliance"
    match role:
        case Role.WORKER:
            return _worker(app, audit, own, grants)
        case Role.MIGRATOR:
            return [*_migrator(app, audit, own), *_rehearsal(f"{app}{REHEARSAL}")]
        case Role.SEALER:
            return [
                _allow(app, "", "find", "changeStream"),
                _allow(audit, "", "find", "changeStream"),
                _allow(audit, AUDIT_LOG, "insert"),  # a wrong document of the outbox is refused with its entry
                _allow(audit, "", "listCollections", "listIndexes"),
                *(_allow(audit, name, "insert") for name in SEAL),
                _allow("local", "oplog.rs", "find"),  # what change streams do not show
                _allow(own, "jobs", "find", "insert", "update"),
                _allow(own, "watch_tokens", "find", "insert", "update"),
                _allow(own, "erasure_returns", "find", "insert", "update"),
                _allow(own, OUTBOX, "find", "remove"),
                _allow(own, "", "find", "changeStream"),
            ]
        case Role.AUDITOR:
            return [_allow(audit, "", "listCollections", *READ), _allow(own, "", "listCollections", *READ)]
        case Role.SENDER:
            return [_allow(own, OUTBOX, "insert")]
        case Role.ARCHIVER:
            # The only one that may alter the log, by design: it prunes. No process connects as it.
            return [_allow(audit, "", "find"), _allow(audit, AUDIT_LOG, "insert", "remove")]


def _worker(app: str, audit: str, own: str, grants: Grants) -> list[Privilege]:
    return [
        _allow(app, "", "listCollections", *READ),
        *(_allow(app, name, "update", "remove") for name in grants.erasable),
        *(_allow(app, shadow_of(name), "remove") for name in grants.erasable),
        *(_allow(app, name, "insert") for name in grants.importable),
        _allow(app, PRE_IMAGES, "remove"),
        _allow(app, "consent", "insert", "update"),
        _allow(audit, "", "listCollections", *READ),
        _allow(audit, AUDIT_LOG, "insert"),
        _allow(own, "", "listCollections", *READ),
        *(_allow(own, name, "insert", "update") for name in ("jobs", "erasure_requests", "holds", "schedules")),
        _allow(own, "erasure_returns", "insert", "update"),
        _allow(own, "jobs", "remove"),
        *(_allow(own, name, "insert") for name in ("consent_events", "health_checks", "data_maps")),
        *_surfaces(app, grants),
    ]


def _surfaces(app: str, grants: Grants) -> list[Privilege]:
    """What tells how long data of an erased person lasts beside the collections."""
    purges = [_allow("config", STREAM_PRE_IMAGES, "find", "remove")] if grants.purges else []
    return [
        _allow(app, PROFILES, "find"),
        _allow("local", "oplog.rs", "collStats"),  # how large it is, nothing of what is in it
        {"resource": {"cluster": True}, "actions": ["getClusterParameter", "serverStatus"]},
        *purges,
    ]


def _migrator(app: str, audit: str, own: str) -> list[Privilege]:
    ddl = (
        "listCollections",
        "createCollection",
        "createIndex",
        "dropIndex",
        "collMod",
        "dropCollection",
        "renameCollectionSameDB",
    )
    return [
        _allow(app, "", "insert", "update", "remove", "bypassDocumentValidation", "indexStats", *ddl, *READ),
        _allow(app, "", "changeStream"),  # online changes and rebuilt collections follow writers
        _allow(audit, "", "listCollections"),
        _allow(audit, AUDIT_LOG, "insert", *READ),
        _allow(own, "", "listCollections", "createCollection", "createIndex", "dropIndex", *READ),
        *(_allow(own, name, "insert", "update") for name in ("migration_lease", "set_aside")),
        *(_allow(own, name, "insert", "update") for name in ("migration_control", APPROVALS)),
        *(
            _allow(own, name, "insert")
            for name in ("migration_history", "migration_steps", "migration_sources", OUTBOX, PROMOTIONS)
        ),
        *(_allow(own, name, "insert", "update", "remove") for name in ("declared_schema", "pre_image_sets")),
        _allow(own, "migration_writes", "insert", "remove"),
        _allow("admin", "", "viewRole"),
        _allow("local", "oplog.rs", "collStats"),  # how large it is, nothing of what is in it
        # How far an index build is, and how busy the servers are.
        {"resource": {"cluster": True}, "actions": ["inprog", "replSetGetStatus", "serverStatus"]},
    ]


def _rehearsal(clone: str) -> list[Privilege]:
    """Everything that scripts may do, and to fill and to drop the copy: on its three databases and no others."""
    ddl = ("createCollection", "createIndex", "dropIndex", "collMod", "dropCollection", "dropDatabase")
    writes = ("insert", "update", "remove", "bypassDocumentValidation")
    reads = ("listCollections", "indexStats", *READ)
    return [
        _allow(clone, "", "convertToCapped", *writes, *ddl, *reads),  # to create a capped one takes that right
        _allow(f"{clone}_audit", "", "insert", "createCollection", "createIndex", "dropDatabase", *reads),
        _allow(f"{clone}_compliance", "", *writes, *ddl, *reads),
    ]


def _allow(database: str, collection: str, *actions: str) -> Privilege:
    return {"resource": {"db": database, "collection": collection}, "actions": sorted(set(actions))}


def rights(granted: Iterable[Privilege]) -> frozenset[Right]:
    """Return one right per resource and action: the server merges the privileges of one resource."""
    return frozenset(
        (privilege["resource"].get("db", ""), privilege["resource"].get("collection", ""), action)
        for privilege in granted
        for action in privilege["actions"]
    )


def lacking(wanted: Iterable[Right], held: Collection[Right]) -> list[Right]:
    """Return the rights among *wanted* that *held* does not hold, nor a wider one."""
    return sorted(
        (database, collection, action)
        for database, collection, action in wanted
        if not any(
            (where, what, which) in held
            for where in (database, "")
            for what in (collection, "")
            for which in (action, "anyAction")
        )
    )


def altering_actions(granted: Iterable[Privilege], database: str) -> frozenset[str]:
    """Return the actions among *granted* that could alter or remove an entry of the audit log of *database*.

    Who administers users or roles could grant the rest to itself, so those actions count, too.

    Args:
        granted: ``authInfo.authenticatedUserPrivileges`` of the server's ``connectionStatus``.
        database: Name of the application database.
    """
    return frozenset(
        action
        for privilege in granted
        for action in privilege["actions"]
        if _matters(action, privilege["resource"], f"{database}_audit")
    )


def _matters(action: str, resource: dict[str, Any], audit: str) -> bool:
    if action in ALTERING and _covers(resource, audit):
        return True
    # Who administers another database only can grant nothing beyond that database.
    everywhere = bool(resource.get("cluster") or resource.get("anyResource"))
    return action in ESCALATING and (everywhere or resource.get("db") in ("", "admin", audit))


def _covers(resource: dict[str, Any], audit: str) -> bool:
    if resource.get("anyResource"):
        return True
    return resource.get("db") in ("", audit) and resource.get("collection") in ("", AUDIT_LOG, *SEAL)
