"""The slots of a schedule, also where clocks go forward or back."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.slots import EPOCH, Cron, Every, When, check_expression, due_slot, find_zone

BERLIN = "Europe/Berlin"
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
LONG_AGO = EPOCH


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def slots(when: When, first: str, last: str) -> list[datetime]:
    """Every slot that somebody takes who looks once a minute; each one taken once."""
    now, end, taken = at(first), at(last), [at(first)]
    while now <= end:
        slot = due_slot(when, now=now, after=taken[-1])
        taken += [slot] if slot else []
        now += MINUTE
    return taken[1:]


@pytest.mark.parametrize(
    ("expression", "now", "newest", "following"),
    [
        ("0 3 * * *", "2026-05-01 12:00", "2026-05-01 03:00", "2026-05-02 03:00"),
        ("0 3 * * *", "2026-05-01 02:59:59.999", "2026-04-30 03:00", "2026-05-01 03:00"),
        ("0 3 * * *", "2026-05-01 03:00", "2026-05-01 03:00", "2026-05-02 03:00"),
        ("0 3 * * *", "2026-05-01 03:00:00.001", "2026-05-01 03:00", "2026-05-02 03:00"),
        ("*/15 * * * *", "2026-05-01 12:44:59", "2026-05-01 12:30", "2026-05-01 12:45"),
        ("0 7 * * MON", "2026-05-01 12:00", "2026-04-27 07:00", "2026-05-04 07:00"),
        ("0 0 L * *", "2026-05-01 12:00", "2026-04-30 00:00", "2026-05-31 00:00"),
        ("0 0 29 2 *", "2026-05-01 12:00", "2024-02-29 00:00", "2028-02-29 00:00"),
    ],
)
def test_a_cron_expression_has_a_newest_and_a_next_slot(expression: str, now: str, newest: str, following: str) -> None:
    when = Cron(expression)

    assert (when.newest(at(now)), when.next(at(now))) == (at(newest), at(following))


@pytest.mark.parametrize(
    ("every", "now", "newest", "following"),
    [
        (Every(1, "hours"), "2026-05-01 12:34:56", "2026-05-01 12:00", "2026-05-01 13:00"),
        (Every(90, "minutes"), "2026-05-01 12:34:56", "2026-05-01 12:00", "2026-05-01 13:30"),
        (Every(10, "seconds"), "2026-05-01 12:34:56", "2026-05-01 12:34:50", "2026-05-01 12:35:00"),
        (Every(1, "days"), "2026-05-01 00:00", "2026-05-01 00:00", "2026-05-02 00:00"),
    ],
)
def test_an_interval_counts_from_a_fixed_moment(every: Every, now: str, newest: str, following: str) -> None:
    assert (every.newest(at(now)), every.next(at(now))) == (at(newest), at(following))


def test_a_time_in_the_skipped_hour_is_due_once_when_the_hour_would_have_ended() -> None:
    # Berlin goes from 02:00 to 03:00 on 29 March: 01:00 UTC.
    assert slots(Cron("30 2 * * *", BERLIN), "2026-03-28 12:00", "2026-03-30 12:00") == [
        at("2026-03-29 01:00"),
        at("2026-03-30 00:30"),
    ]


def test_two_times_in_the_skipped_hour_and_one_at_its_end_are_one_slot() -> None:
    found = slots(Cron("0,30 2,3 * * *", BERLIN), "2026-03-28 12:00", "2026-03-29 12:00")

    assert found == [at("2026-03-29 01:00"), at("2026-03-29 01:30")]


def test_a_time_in_the_repeated_hour_is_due_the_first_time_only() -> None:
    # Berlin goes from 03:00 back to 02:00 on 25 October: 01:00 UTC.
    assert slots(Cron("30 2 * * *", BERLIN), "2026-10-24 12:00", "2026-10-26 12:00") == [
        at("2026-10-25 00:30"),
        at("2026-10-26 01:30"),
    ]


@pytest.mark.parametrize("minutes", range(0, 61, 5))
def test_who_comes_back_in_the_repeated_hour_still_finds_the_slot_of_its_first_pass(minutes: int) -> None:
    now = at("2026-10-25 01:00") + minutes * MINUTE

    assert Cron("30 2 * * *", BERLIN).newest(now) == at("2026-10-25 00:30")


def test_a_star_follows_the_time_that_passes() -> None:
    spring = slots(Cron("*/30 * * * *", BERLIN), "2026-03-29 00:00", "2026-03-29 02:00")
    autumn = slots(Cron("*/30 * * * *", BERLIN), "2026-10-25 00:00", "2026-10-25 02:00")

    assert [slot - spring[0] for slot in spring] == [n * MINUTE * 30 for n in range(4)]
    assert [slot - autumn[0] for slot in autumn] == [n * MINUTE * 30 for n in range(4)]


def test_a_zone_moves_a_slot_with_summer_time() -> None:
    assert slots(Cron("0 7 * * *", BERLIN), "2026-03-28 00:00", "2026-03-30 00:00") == [
        at("2026-03-28 06:00"),
        at("2026-03-29 05:00"),
    ]


def test_of_many_missed_slots_the_newest_is_due_once() -> None:
    when, now = Cron("0 * * * *"), at("2026-05-08 12:34")
    slot = due_slot(when, now=now, after=at("2026-05-01 12:00"))

    assert slot == at("2026-05-08 12:00")
    assert due_slot(when, now=now, after=slot) is None


def test_a_clock_that_goes_back_makes_nothing_due() -> None:
    assert due_slot(Cron("0 * * * *"), now=at("2026-05-01 11:59"), after=at("2026-05-01 12:00")) is None


NUMBERS = st.lists(st.integers(0, 59), min_size=1, max_size=3)
CLOCK = st.builds(
    lambda minutes, hours: f"{','.join(map(str, minutes))} {','.join(str(hour % 24) for hour in hours)}",
    NUMBERS,
    NUMBERS,
)
STARS = st.sampled_from(["* *", "*/7 *", "*/20 2", "15 *", "10,50 */2", "5-25 1-3"])
DAYS = st.sampled_from(["* * *", "* * SUN", "25-31 3,10 *", "* * 1-5", "L * *", "29 3 *", "13 * FRI"])
ZONES = ["UTC", BERLIN, "America/New_York", "Asia/Kolkata"]
# Not for stars: cronsim walks over them by whole hours, and forgets the second pass of an hour that ends a day.
HALF_AN_HOUR_OR_AT_MIDNIGHT = ["Australia/Lord_Howe", "America/Santiago"]


def crons(clock: st.SearchStrategy[str], zones: list[str]) -> st.SearchStrategy[Cron]:
    return st.builds(lambda clock, days, zone: Cron(f"{clock} {days}", zone), clock, DAYS, st.sampled_from(zones))


CRONS = st.one_of(crons(CLOCK, ZONES + HALF_AN_HOUR_OR_AT_MIDNIGHT), crons(STARS, ZONES))
EVERY = st.builds(Every, st.integers(1, 1000), st.sampled_from(["seconds", "minutes", "hours", "days"]))
WHENS = st.one_of(CRONS, EVERY)
CHANGES = st.sampled_from(
    [
        at("2026-03-29 01:00"),
        at("2026-10-25 01:00"),
        at("2026-10-04 15:30"),
        at("2026-04-04 15:00"),
        at("2026-04-05 03:00"),
        at("2026-09-06 04:00"),
    ]
)
MOMENTS = st.one_of(
    st.builds(lambda change, seconds: change + timedelta(seconds=seconds), CHANGES, st.integers(-9000, 9000)),
    st.builds(lambda seconds: at("2026-01-01") + timedelta(seconds=seconds), st.integers(0, 366 * 86_400)),
)


@given(WHENS, MOMENTS)
def test_the_next_slot_is_the_newest_one_as_soon_as_it_has_come(when: When, now: datetime) -> None:
    newest, following = when.newest(now), when.next(now)

    assert newest is not None
    assert following is not None
    assert newest <= now < following
    assert when.newest(following) == following
    assert when.newest(following - timedelta(microseconds=1)) == newest
    assert when.next(newest) == following


@given(WHENS, st.lists(MOMENTS, min_size=2, max_size=8))
def test_slots_only_go_forward_and_none_is_taken_twice(when: When, moments: list[datetime]) -> None:
    taken = [LONG_AGO]
    for now in moments:  # in any order, as clocks that go back would have it
        slot = due_slot(when, now=now, after=taken[-1])
        taken += [slot] if slot else []

    assert taken == sorted(set(taken))


@given(WHENS, MOMENTS, st.integers(1, 400 * 86_400))
def test_after_any_absence_one_slot_is_due_and_then_none(when: When, began: datetime, seconds: int) -> None:
    now = began + timedelta(seconds=seconds)
    slot = due_slot(when, now=now, after=began)
    following = when.next(began)

    assert following is not None
    assert (slot is None) is (following > now)
    if slot is not None:
        assert began < slot <= now < (when.next(slot) or now)
        assert due_slot(when, now=now, after=slot) is None


@given(CRONS, MOMENTS)
def test_a_slot_does_not_depend_on_the_zone_in_which_the_time_is_given(when: Cron, now: datetime) -> None:
    elsewhere = now.astimezone(find_zone("Pacific/Auckland"))

    assert when.newest(now) == when.newest(elsewhere)
    assert when.next(now) == when.next(elsewhere)


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("0 3 * *", "five fields"),
        ("0 0 3 * * *", "five fields"),
        ("", "five fields"),
        ("60 3 * * *", "bad minute"),
        ("0 24 * * *", "bad hour"),
        ("0 3 * * MOON", "bad day-of-week"),
        ("0 3 31 2 *", "bad day-of-month"),
        ("@daily 0 0 0 0", "bad minute"),
        ("* * */20 * 1L", "no moment"),
    ],
)
def test_a_wrong_expression_says_what_is_wrong(expression: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_expression(expression)


@given(st.text("0123456789*/,-L#MONJAN ", max_size=40))
def test_any_text_is_an_expression_or_a_value_error(text: str) -> None:
    try:
        expression = check_expression(text)
    except ValueError:
        return

    assert Cron(expression).next(EPOCH) is not None


@pytest.mark.parametrize("name", ["Europe/Atlantis", "Europe", "../../etc/passwd", "", "Berlin"])
def test_an_unknown_zone_is_a_value_error(name: str) -> None:
    with pytest.raises(ValueError, match="there is no time zone"):
        find_zone(name)
