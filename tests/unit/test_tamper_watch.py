"""Events of one transaction are judged together, and only those."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import worker.tamper
from worker.tamper import TamperWatch


class Stream:
    """Gives events as a change stream does, None where nothing waits, and ends behind the last."""

    def __init__(self, events: list[dict[str, Any] | None]) -> None:
        self.events: Iterator[dict[str, Any] | None] = iter(events)
        self.alive = True

    def try_next(self) -> dict[str, Any] | None:
        for found in self.events:
            return found
        self.alive = False
        return None


def event(number: int, transaction: int | None = None) -> dict[str, Any]:
    session = {} if transaction is None else {"lsid": {"id": b"1", "uid": b"2"}, "txnNumber": transaction}
    return {"_id": number, **session}


def groups(*events: dict[str, Any] | None) -> list[list[int]]:
    lookout: Any = SimpleNamespace(should_stop=lambda: False)
    stream: Any = Stream(list(events))
    found = TamperWatch(lookout)._groups(stream)
    return [[one["_id"] for one in group] for group in found]


def test_writes_outside_a_transaction_stand_alone() -> None:
    assert groups(event(1), event(2)) == [[1], [2], []]


def test_a_transaction_is_one_group_and_the_next_one_another() -> None:
    assert groups(event(1, 7), event(2, 7), event(3, 8), event(4), event(5, 8)) == [[1, 2], [3], [4], [5], []]


def test_a_transaction_ends_where_nothing_waits() -> None:
    assert groups(event(1, 7), None, event(2, 7)) == [[1], [], [2], []]


def test_a_transaction_that_is_too_large_is_judged_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.tamper, "MAX_TRANSACTION", 2)

    assert groups(*(event(number, 7) for number in range(5))) == [[0, 1], [2, 3], [4], []]
