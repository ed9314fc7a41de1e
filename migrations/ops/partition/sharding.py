"""Commands that only a sharded cluster knows."""

from typing import TYPE_CHECKING

from compliance.errors import StepFailed
from compliance.health.index_spec import Keys
from compliance.mongo import driver_errors
from migrations.command import Command, carry_out
from migrations.ops.observed import indexes_of
from migrations.step import Kind

if TYPE_CHECKING:
    from migrations.hands import Hands


def shard(ctx: "Hands", collection: str, keys: Keys) -> None:
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
    present = indexes_of(ctx, collection).values()
    if not any([*found.spec["key"].items()][: len(wanted)] == wanted for found in present):
        raise StepFailed(f"{collection} has no index that begins with the shard key; create it in an earlier script")
    ctx.report(step.what)
    name = f"{ctx.databases.app.name}.{collection}"
    with driver_errors():
        carry_out(ctx, Command(body={"enableSharding": ctx.databases.app.name}, database="admin"))
        carry_out(ctx, Command(body={"shardCollection": name, "key": dict(keys)}, database="admin"))
    if not ctx.is_dry_run:
        ctx.finish(step, {"op": "shard", "collection": collection})
