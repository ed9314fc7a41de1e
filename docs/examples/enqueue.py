# ruff: noqa: INP001, T201, TID251
"""Ask for an erasure as any other service does: plain Celery, no code of this project.

Usage: REDIS_URL=redis://... python docs/examples/enqueue.py SUBJECT_ID REQUEST_ID
"""

import os
import sys

from celery import Celery

subject_id, request_id = sys.argv[1:]
Celery(broker=os.environ["REDIS_URL"]).send_task(
    "compliance.erasure.request",
    kwargs={"subject_id": subject_id, "request_id": request_id},
    queue="compliance.erasure",
)
print(f"asked for {request_id}")
