"""Verify the sealed log: recompute everything that was signed, and name what is not as it was.

Nothing that the database holds is believed. What counts are the keys of the writers and of the log, and checkpoints
that were kept elsewhere; without one of these a log that was rolled back to an earlier state as a whole looks in order.
"""

from compliance.audit.verification.finding import Fault, Finding, Report
from compliance.audit.verification.log import verify_log
from compliance.audit.verification.readers import Parallel

__all__ = ["Fault", "Finding", "Parallel", "Report", "verify_log"]
