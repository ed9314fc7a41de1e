"""Entries of a stream: without a gap, and the last one of a run speaks for all of it."""

from compliance.audit.verification.streams import MAX_EXCUSED, Run, Streams

ONE, TWO = ("writer+1", "s1"), ("writer+2", "s1")


def a_stream(count: int, streams: Streams, *, place: tuple[str, str] = ONE) -> None:
    streams.add((f"id{seq}", place, seq, b"h%d" % (seq - 1) if seq else None, b"h%d" % seq) for seq in range(count))


def add(streams: Streams, place: tuple[str, str], seq: int, prev: bytes) -> None:
    streams.add([(f"id{seq}", place, seq, prev, b"h%d" % seq)])


def test_entries_that_name_each_other_are_one_run() -> None:
    streams = Streams(is_whole=True)
    a_stream(4, streams)

    assert list(streams.runs()) == [("s1", Run(0, None, 3, b"h3", "id3"))]
    assert list(streams.gaps()) == []


def test_an_entry_that_does_not_name_the_one_before_begins_a_run() -> None:
    streams = Streams(is_whole=True)
    a_stream(2, streams)
    add(streams, ONE, 2, b"another")
    add(streams, ONE, 4, b"h2")

    assert [(run.first, run.last, run.last_id) for _, run in streams.runs()] == [
        (0, 1, "id1"),
        (2, 2, "id2"),
        (4, 4, "id4"),
    ]
    assert list(streams.gaps()) == [
        ("s1", "number 2 does not follow the entry before it"),
        ("s1", "numbers 3 to 3 are missing"),
    ]


def test_a_stream_is_that_of_one_key() -> None:
    streams = Streams(is_whole=True)
    a_stream(2, streams)
    add(streams, TWO, 2, b"h1")

    assert [run.last_id for _, run in streams.runs()] == ["id1", "id2"]
    assert list(streams.gaps()) == [("s1", "it begins with number 2")]


def test_runs_in_another_order_are_no_gap() -> None:
    streams = Streams(is_whole=True)
    add(streams, ONE, 2, b"h1")
    a_stream(2, streams)

    assert list(streams.gaps()) == []
    assert {run.last_id for _, run in streams.runs()} == {"id2", "id1"}
    assert streams.befores() == {b"h1"}


def test_what_is_known_to_be_missing_is_no_gap() -> None:
    streams = Streams(is_whole=True)
    a_stream(2, streams)
    add(streams, ONE, 4, b"h3")
    streams.excuse(b"h3")

    assert list(streams.gaps()) == []


def test_only_so_many_are_remembered() -> None:
    streams = Streams(is_whole=True)
    for number in range(MAX_EXCUSED + 1):
        streams.excuse(b"x%d" % number)
    add(streams, ONE, 1, b"x%d" % MAX_EXCUSED)
    add(streams, TWO, 1, b"x%d" % (MAX_EXCUSED - 1))

    assert [why for _, why in streams.gaps()] == ["it begins with number 1"]


def test_a_stream_may_begin_before_a_checkpoint() -> None:
    streams = Streams(is_whole=False)
    add(streams, ONE, 5, b"h4")

    assert list(streams.gaps()) == []
