"""Retention: drop the buckets that are older than the retention period, whole."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from compliance.audit.entry import Detail
from compliance.datamap.buckets import Bucket
from compliance.datamap.subject import Identity
from compliance.erasure.holds import Holds
from compliance.erasure.sweep import compile_needles, sweep_collection
from compliance.errors import LegalHoldActive, StepFailed
from compliance.health.declared import DECLARED
from compliance.mongo import Session, driver_errors
from migrations.ops.ddl import alter
from migrations.ops.partition.scheme import get_scheme, present_buckets
from migrations.ops.partition.view import NAMESPACE_NOT_FOUND, route
from migrations.step import Kind, Step

if TYPE_CHECKING:
    from migrations.hands import Hands

PSEUDONYM = "hmac-sha256:"


def drop(ctx: "Hands", collection: str, *, keep: int) -> None:
    """Drop every bucket but the present one and the *keep* before it, in one step.

    The entry of a bucket in the audit log comes before it goes, so that none goes without; who goes on after an
    interruption drops what is left.

    Raises:
        LegalHoldActive: When one of them holds data of a person under a legal hold; none of them was dropped.
        StepFailed: When *collection* is not partitioned.
    """
    if keep < 1:
        raise StepFailed("keep at least one bucket beside the present one")
    step = ctx.begin(Kind.DDL, f"drop old buckets of {collection}", collection=collection, keep=keep)
    if step is None:
        return
    scheme = get_scheme(ctx, collection)
    first = scheme.every.before(scheme.every.start_of(ctx.databases.server_time()), keep)
    present = present_buckets(ctx, scheme)
    old = [bucket for bucket in present if bucket.end <= first]
    _refuse_held(ctx, old)
    for number, bucket in enumerate(old, 1):
        _announce(ctx, step, bucket)
        route(ctx, scheme, [other.name for other in present if other not in old[:number]])
        alter(ctx, "drop", bucket.name, allowed=(NAMESPACE_NOT_FOUND,))
    if not old:
        ctx.report(f"no bucket of {collection} is older than {first:%Y-%m-%d}")
    if not ctx.is_dry_run:
        ctx.finish(step, {"op": "drop_buckets", "collection": collection, "is_done": True})


def _announce(ctx: "Hands", step: Step, bucket: Bucket) -> None:
    """Say which bucket goes; it is declared no more."""
    with driver_errors():
        documents = ctx.databases.app[bucket.name].count_documents({})  # somebody may write until it is gone
    ctx.report(f"drop bucket {bucket.name}: about {documents} documents dated before {bucket.end:%Y-%m-%d}")
    if ctx.is_dry_run:
        return

    def effect(session: Session) -> None:
        ctx.databases.compliance[DECLARED].delete_many({"collection": bucket.name}, session=session)

    details: dict[str, Detail] = {"op": "drop_bucket", "collection": bucket.name, "documents": documents}
    ctx.commit(step, details, effect, place=dict)


def _refuse_held(ctx: "Hands", buckets: Iterable[Bucket]) -> None:
    """Look for people under a legal hold in the buckets that would go."""
    now = ctx.databases.server_time()
    held = Holds(ctx.databases).held(now=now)
    names = [bucket.name for bucket in buckets]
    if not held or not names:
        return
    if any(str(subject_id).startswith(PSEUDONYM) for subject_id in held):
        raise LegalHoldActive(
            "people whose ids are pseudonyms are under a legal hold, and cannot be looked for here; release the holds, "
            "or drop the buckets when they have ended"
        )
    needles = compile_needles(Identity({"subject_id": subject_id}) for subject_id in held)
    for name in names:
        if any(True for _ in sweep_collection(ctx.databases.app[name], needles)):
            raise LegalHoldActive(
                f"{name} holds data of a person under a legal hold; release it with `compliance erasure release`, or "
                "wait"
            )
