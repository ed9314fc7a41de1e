"""Run a function of which the engine knows nothing."""

from typing import TYPE_CHECKING

from compliance.errors import MigrationError
from compliance.mongo import driver_errors
from migrations.step import Kind

if TYPE_CHECKING:
    from migrations.hands import Hands, Opaque


def python(ctx: "Hands", what: str, function: "Opaque", *, reason: str) -> None:
    """Run *function* outside of any transaction; an interrupted run begins it again."""
    if not reason.strip():
        raise MigrationError(f"{what}: say in reason= why no other step does it, and why a repeat is harmless")
    step = ctx.begin(Kind.PYTHON, what, function=function)
    if step is None:
        return
    ctx.report(f"{what} ({reason})")
    if ctx.is_dry_run:
        ctx.sketch.step.opaque = f"a function of which the engine knows nothing: {reason}"
        return
    with driver_errors():
        function(ctx.databases.app)
    ctx.finish(step, {"op": "python", "reason": reason})
