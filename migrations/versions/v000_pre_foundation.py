"""Create the audit database, the roles and the collections of the compliance database.

Comes before everything else, so that no migration runs without a trail.
"""

from migrations.context import Context

OWNER = "platform"
REVIEWED_BY = "data protection"

IRREVERSIBLE = "the audit log and the history of migrations are kept"


def up(ctx: Context) -> None:
    """Create what is missing."""
    ctx.ensure_foundation()
