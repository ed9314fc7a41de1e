"""Time as it is stored."""

from datetime import UTC, datetime, timedelta

import bson
from bson.codec_options import CodecOptions
from hypothesis import given
from hypothesis import strategies as st

from compliance.clock import SystemClock, to_milliseconds

MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - as the strategy asks


@given(MOMENTS)
def test_a_cut_time_is_stored_as_it_is(moment: datetime) -> None:
    cut = to_milliseconds(moment)

    assert bson.decode(bson.encode({"at": cut}), CodecOptions(tz_aware=True, tzinfo=UTC)) == {"at": cut}
    assert timedelta() <= moment - cut < timedelta(milliseconds=1)
    assert to_milliseconds(cut) == cut


def test_the_clock_tells_utc_in_milliseconds() -> None:
    now = SystemClock().now()

    assert (now.tzinfo, now.microsecond % 1000) == (UTC, 0)


def test_the_clock_goes_on_while_it_waits() -> None:
    clock = SystemClock()
    before = clock.now()
    clock.sleep(timedelta(milliseconds=3))

    assert clock.now() - before >= timedelta(milliseconds=2)
