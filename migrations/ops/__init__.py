"""The operations of migrations, one module per kind; scripts reach them through ``ctx``."""

from migrations.ops import (
    atomic,
    backfill,
    collections,
    foundation,
    gate,
    hidden,
    indexes,
    partition,
    python,
    request,
    restore,
    transform,
    unique,
    validator,
    verify,
    walk,
)

__all__ = [
    "atomic",
    "backfill",
    "collections",
    "foundation",
    "gate",
    "hidden",
    "indexes",
    "partition",
    "python",
    "request",
    "restore",
    "transform",
    "unique",
    "validator",
    "verify",
    "walk",
]
