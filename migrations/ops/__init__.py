"""The operations of migrations, one module per kind; scripts reach them through ``ctx``."""

from migrations.ops import collections, data, foundation, hidden, indexes, partition, unique, validator

__all__ = ["collections", "data", "foundation", "hidden", "indexes", "partition", "unique", "validator"]
