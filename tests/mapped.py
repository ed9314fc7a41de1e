"""A database of people by a data map of the test's own: arranged by the administrator, erased by the worker."""

import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import bson
from bson import ObjectId
from deployment import Deployment, provision_database

from compliance.datamap.model import DataMap
from compliance.jobs.job import Job, RequestId
from compliance.provision import ensure_roles
from compliance.roles import Grants
from worker.attempt import carry_out
from worker.embedded import Stack
from worker.intake import submit
from worker.tasks import JOBS

ANN, BOB = ObjectId("65f0000000000000000000aa"), ObjectId("65f0000000000000000000bb")
ANN_MAIL = "Ann.Example@x.org"
DELETE = {"action": "delete"}
TOMBSTONE = {"$oid": "0" * 24}
LAW = {"ground": "GDPR Art. 17(3)(b)", "why": "a law demands it"}
NAMES = tuple(f"c{number}" for number in range(6))
COLLECTIONS = ("people", *NAMES, *(f"{name}_old" for name in ("people", *NAMES)), "photos.files", "photos.chunks")


@dataclass
class World:
    """The database, and what is asked of it."""

    deployment: Deployment
    data_map: DataMap = field(init=False)

    @classmethod
    def make(cls, stack: Stack, cleanup: ExitStack) -> "World":
        found = provision_database(stack, f"t_{uuid.uuid4().hex[:12]}", cleanup)
        ensure_roles(found.admin, grants=Grants(erasable=COLLECTIONS, importable=COLLECTIONS))
        return cls(found)

    def begin(self, collections: dict[str, Any], **more: Any) -> Any:
        """Empty the database, take a map, and return the database with Ann and Bob in it."""
        for name in self.app.list_collection_names(filter={"type": {"$in": ["collection", "timeseries"]}}):
            if not name.startswith("system."):
                self.app[name].drop()
        self.data_map = map_of(collections, **more)
        tenant = {"tenant": "t1"} if self.data_map.tenant else {}
        self.app["people"].insert_many(
            [{"_id": ANN, "email": ANN_MAIL, **tenant}, {"_id": BOB, "email": "bob@x.org", **tenant}]
        )
        return self.app

    @property
    def app(self) -> Any:
        return self.deployment.admin.app

    def erase(
        self,
        subject: ObjectId = ANN,
        *,
        batch_docs: int = 3,
        on_progress: Callable[[Any], None] = lambda _: None,
        **values: Any,
    ) -> Job:
        """Erase a person, in small batches."""
        id_ = uuid.uuid4().hex
        services = self.deployment.services()
        settings = services.settings.model_copy(update={"batch_docs": batch_docs})
        services = replace(services, data_map=self.data_map, settings=settings)
        kind = JOBS["erasure.request"]
        submit(kind, {"subject_id": str(subject), **values}, request_id=id_, origin="test", services=services)
        carry_out(kind, RequestId(id_), services=services, on_progress=on_progress)
        job = services.ledger.find(id_)
        assert job is not None
        return job

    def request(self, job: Job) -> dict[str, Any]:
        return self.deployment.admin.compliance["erasure_requests"].find_one({"_id": job.request_id}) or {}

    def everything(self) -> dict[str, dict[bytes, bytes]]:
        """Every document as bytes, by collection and ``_id``; collections without any are left out."""
        listed = self.app.list_collection_names(filter={"type": {"$in": ["collection", "timeseries"]}})
        found = {
            name: {bson.encode({"": one["_id"]}): bson.encode(one) for one in self.app[name].find()}
            for name in listed
            if not name.startswith("system.")
        }
        return {name: documents for name, documents in found.items() if documents}


def map_of(collections: dict[str, Any], **more: Any) -> DataMap:
    keys = {"id": {"path": "_id", "type": "objectId"}, "email": {"path": "email", "type": "string", "personal": True}}
    subject = {"collection": "people", "key": "id", "keys": keys, "tombstone": TOMBSTONE}
    return DataMap.model_validate({"apiVersion": "datamap/v1", "subject": subject, "collections": collections, **more})


def rule(path: str = "user_id", on_erase: Any = DELETE, *, kept: Any = None, where: Any = None, **locate: Any) -> Any:
    """A rule by the id of the person, unless *locate* says another key or what is referred to."""
    by = {} if "of" in locate or "key" in locate else {"key": "id"}
    also = ({"kept": kept} if kept else {}) | ({"where": where} if where else {})
    return {"locate": {"path": path, **by, **locate}, "on_erase": on_erase, **also}
