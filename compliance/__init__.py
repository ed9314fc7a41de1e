"""The compliance domain on MongoDB: jobs, audit log, data map, erasure, consent, transfer, health.

Knows no Celery, no Redis, no Sentry and no HTTP: ``worker`` brings those.
"""
