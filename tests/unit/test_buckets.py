"""Every moment has one bucket, and buckets follow each other without gap or overlap."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.datamap.buckets import Every, bucket_of, buckets_between, parse_bucket

moments = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001 - hypothesis adds the zone
    datetime(2200, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=13)), timezone(timedelta(hours=-11))]),
)


@given(moments, st.sampled_from(Every))
def test_a_moment_lies_in_its_bucket_and_the_next_one_begins_where_it_ends(moment: datetime, every: Every) -> None:
    bucket = bucket_of("events", every, moment)
    behind = bucket_of("events", every, bucket.end)

    assert bucket.start <= moment < bucket.end
    assert behind.start == bucket.end
    assert every.before(behind.start, 1) == bucket.start
    assert bucket_of("events", every, bucket.start) == bucket
    assert bucket_of("events", every, bucket.end - timedelta(milliseconds=1)) == bucket


@given(moments, st.sampled_from(Every))
def test_a_bucket_is_known_again_by_its_name(moment: datetime, every: Every) -> None:
    bucket = bucket_of("events", every, moment)

    assert parse_bucket("events", every, bucket.name) == bucket
    assert parse_bucket("event", every, bucket.name) is None


@pytest.mark.parametrize(
    ("every", "name"),
    [
        (Every.MONTH, "events"),
        (Every.MONTH, "events_2026"),
        (Every.MONTH, "events_2026_13"),
        (Every.MONTH, "events_2026_11_05"),
        (Every.DAY, "events_2026_11"),
        (Every.DAY, "events_2026_02_30"),
        (Every.YEAR, "events_2026_11"),
        (Every.YEAR, "events_all"),
        (Every.MONTH, "other_2026_11"),
        (Every.MONTH, "events_2026_11_history"),
    ],
)
def test_other_collections_are_no_buckets(every: Every, name: str) -> None:
    assert parse_bucket("events", every, name) is None


@pytest.mark.parametrize(
    ("every", "names"),
    [
        (Every.MONTH, ["e_2025_12", "e_2026_01", "e_2026_02"]),
        (Every.YEAR, ["e_2025", "e_2026"]),
    ],
)
def test_the_buckets_of_a_time_are_named_from_the_first_to_the_last(every: Every, names: list[str]) -> None:
    assert [bucket.name for bucket in buckets_between("e", every, date(2025, 12, 31), date(2026, 2, 1))] == names


def test_the_bucket_before_the_first_of_march_is_february() -> None:
    start = datetime(2024, 3, 1, tzinfo=UTC)

    assert Every.MONTH.before(start, 2) == datetime(2024, 1, 1, tzinfo=UTC)
    assert Every.DAY.before(start, 1) == datetime(2024, 2, 29, tzinfo=UTC)
    assert Every.YEAR.before(datetime(2024, 1, 1, tzinfo=UTC), 1) == datetime(2023, 1, 1, tzinfo=UTC)
    assert bucket_of("e", Every.DAY, start).name == "e_2024_03_01"
