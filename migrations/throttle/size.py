"""How many documents the next batch looks at; pure."""

from datetime import timedelta


def next_size(size: int, *, took: timedelta, target: timedelta, most: int) -> int:
    """Return the size that would have taken *target*: at least one, at most *most*, and twice *size*.

    Source: the idea of ``--chunk-time`` of pt-online-schema-change.
    """
    factor = min(2.0, max(0.5, target / took)) if took else 2.0
    return max(1, min(most, int(size * factor)))
