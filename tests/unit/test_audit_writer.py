"""Every entry is signed, and linked to the one that its thread wrote before."""

import re
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signing import ORIGIN, TRUST, a_writer, signed

from compliance.audit.entry import UNKNOWN_CAUSE, Cause, Entry
from compliance.audit.leaf import canonical_bytes
from compliance.audit.merkle import leaf_hash
from compliance.audit.signed import find_fault
from compliance.audit.wire import encode_base64
from compliance.audit.writer import Writer


def an_entry(event: str = "e", **changes: Any) -> Entry:
    values: dict[str, Any] = {
        "event": event,
        "entity_type": "job",
        "entity_id": "j-1",
        "action": "job.parked",
        "created_at": datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC),
        "performed_by": "worker",
    }
    return Entry(**(values | changes))


def places(documents: list[dict[str, Any]]) -> list[tuple[str, int, str | None]]:
    return [(found["writer"]["stream"], found["writer"]["seq"], found["writer"]["prev"]) for found in documents]


def link(document: dict[str, Any]) -> str:
    return encode_base64(leaf_hash(canonical_bytes(document)))


def test_a_stream_is_numbered_and_names_the_entry_before() -> None:
    writer = a_writer()
    first, second = signed(an_entry("1"), an_entry("2"), writer=writer)
    (third,) = signed(an_entry("3"), writer=writer)
    stream = first["writer"]["stream"]

    assert re.fullmatch("[0-9a-f]{16}", stream)
    assert places([first, second, third]) == [(stream, 0, None), (stream, 1, link(first)), (stream, 2, link(second))]


def test_a_transaction_that_begins_again_writes_the_same_numbers_again() -> None:
    writer = a_writer()
    (before,) = signed(an_entry("0"), writer=writer)
    writer.begin()
    once = writer.sign(an_entry("1"), UNKNOWN_CAUSE)[0]
    writer.begin()
    again = writer.sign(an_entry("1"), UNKNOWN_CAUSE)[0]
    writer.commit()

    assert places([once]) == places([again]) == [(before["writer"]["stream"], 1, link(before))]


def test_a_transaction_whose_end_is_not_known_ends_the_stream() -> None:
    writer = a_writer()
    (before,) = signed(an_entry("0"), writer=writer)
    writer.begin()
    writer.sign(an_entry("1"), UNKNOWN_CAUSE)
    writer.abandon()
    (after,) = signed(an_entry("2"), writer=writer)

    assert after["writer"]["stream"] != before["writer"]["stream"]
    assert places([after])[0][1:] == (0, None)


@pytest.mark.parametrize("begins", [True, False])
def test_a_failed_transaction_without_an_entry_ends_nothing(begins: bool) -> None:  # noqa: FBT001 - a parameter
    writer = a_writer()
    (before,) = signed(an_entry("0"), writer=writer)
    if begins:
        writer.begin()
    writer.abandon()
    (after,) = signed(an_entry("1"), writer=writer)

    assert places([after]) == [(before["writer"]["stream"], 1, link(before))]


def test_each_thread_has_a_stream_of_its_own() -> None:
    writer, found = a_writer(), []
    threads = [threading.Thread(target=lambda: found.extend(signed(an_entry(), writer=writer))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert len({document["writer"]["stream"] for document in found}) == 4
    assert {document["writer"]["seq"] for document in found} == {0}


@pytest.mark.parametrize("end", [Writer.commit, Writer.abandon, lambda _: None])
def test_an_entry_outside_a_transaction_is_a_bug(end: Any) -> None:
    writer = a_writer()
    signed(an_entry(), writer=writer)
    end(writer)

    with pytest.raises(RuntimeError, match=r"Databases\.transact"):
        writer.sign(an_entry(), UNKNOWN_CAUSE)


@pytest.mark.parametrize(("year", "log"), [(2026, f"{ORIGIN}/2026"), (2027, f"{ORIGIN}/2027")])
def test_the_year_of_an_entry_decides_about_its_log(year: int, log: str) -> None:
    (document,) = signed(an_entry(created_at=datetime(year, 1, 1, tzinfo=UTC)))

    assert document["log"] == log


def test_an_entry_says_where_it_comes_from() -> None:
    (document,) = signed(an_entry(), cause=Cause(channel="outbox", trace_id="c" * 32, requested_by="shop"))

    assert document["requested_by"] == "shop"
    assert document["source"] | {"host": "", "process": ""} == {
        "host": "",
        "process": "",
        "channel": "outbox",
        "trace_id": "c" * 32,
    }
    assert document["source"]["process"].startswith("test:")


@given(data=st.data(), count=st.integers(1, 5))
def test_a_signature_is_good_for_these_bytes_only(data: st.DataObject, count: int) -> None:
    documents = signed(*(an_entry(str(number)) for number in range(count)))
    assert [find_fault(document, TRUST) for document in documents] == [None] * count
    victim = data.draw(st.sampled_from(documents))
    name = data.draw(st.sampled_from(sorted(set(victim) - {"writer"})))

    changed = victim | {name: {"text": "x"}}

    assert str(find_fault(changed, TRUST)).startswith("MODIFIED ")
