"""Try pending scripts on a copy of the database: up, verify, down, and up again."""

from migrations.rehearsal.rehearse import Outcome, RehearsedScript, rehearse, sweep

__all__ = ["Outcome", "RehearsedScript", "rehearse", "sweep"]
