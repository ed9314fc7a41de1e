"""``null_v1``: nothing."""

from typing import Any

from compliance.masking.strategy import STRATEGIES


def null(value: Any, key: bytes) -> None:
    """Return null for every value."""


STRATEGIES.add("null_v1", null)
