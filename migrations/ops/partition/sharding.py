"""Commands that only a sharded cluster knows."""

from typing import TYPE_CHECKING

from compliance.errors import StepFailed
from compliance.health.index_spec import Keys
from compliance.health.observed import observed_indexes
from compliance.mongo import driver_errors
from migrations.step import Kind

if TYPE_CHECKING:
    from migrations.context import Context


def shard(ctx: "Context", collection: str, keys: Keys) -> None:
    """Shard *collection* by *keys*.

    Raises:
        StepFailed: Anywhere but on a sharded cluster, and where no index begins with *keys*.
    """
    step = ctx.begin(Kind.DDL, f"shard {collection}", collection=collection, keys=keys)
    if step is None:
        return
    with driver_errors():
        is_sharded = ctx.databases.client.admin.command("hello").get("msg") == "isdbgrid"
    if not is_sharded:
        raise StepFailed(
            f"{collection} cannot be sharded: this server is no sharded cluster (hello says so); ctx.partition shares "
            "a collection out among time buckets on a replica set"
        )
    wanted = [tuple(key) for key in keys]
    present = observed_indexes(ctx.databases.app, collection).values()
    if not any([*found.spec["key"].items()][: len(wanted)] == wanted for found in present):
        raise StepFailed(f"{collection} has no index that begins with the shard key; create it in an earlier script")
    ctx.report(step.what)
    if ctx.is_dry_run:
        return
    name = f"{ctx.databases.app.name}.{collection}"
    with driver_errors():
        ctx.databases.client.admin.command("enableSharding", ctx.databases.app.name)
        ctx.databases.client.admin.command("shardCollection", name, key=dict(keys))
    ctx.finish(step, {"op": "shard", "collection": collection})
