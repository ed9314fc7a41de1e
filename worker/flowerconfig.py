"""Flower as we run it; ``celery -A worker flower`` reads this file.

Read-only and on loopback. ``/metrics`` and ``/healthcheck`` of Flower ask for no password: put a proxy before it.
Override by options of the command; this file goes before ``FLOWER_*`` variables.
"""

address = "127.0.0.1"
port = 5555
read_only = True
natural_time = True
purge_offline_workers = 300
max_tasks = 10_000
tasks_columns = "name,uuid,state,result,retries,received,runtime,worker"
