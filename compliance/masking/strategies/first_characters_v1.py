"""``first_characters_v1``: the first two characters of a text, as the region of a postal code."""

from typing import Any

from compliance.masking.strategy import STRATEGIES

KEPT = 2


def first_characters(value: Any, key: bytes) -> str | None:  # noqa: ARG001 - the form of every strategy
    """Return the first two characters of a text that is longer; null for anything else but such two."""
    return value[:KEPT] if isinstance(value, str) and len(value) >= KEPT else None


STRATEGIES.add("first_characters_v1", first_characters)
