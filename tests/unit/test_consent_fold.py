"""The state of consent does not depend on the order of arrival."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from compliance.consent.fold import Standing, fold, standing

START = datetime(2026, 1, 1, tzinfo=UTC)
EVENTS = st.lists(
    st.builds(
        lambda minutes, granted: standing(granted=granted, occurred_at=START + timedelta(minutes=minutes)),
        st.integers(0, 5),
        st.booleans(),
    ),
    max_size=12,
)


@given(events=EVENTS, data=st.data())
def test_any_order_and_any_repeats_give_the_same(events: list[Standing], data: st.DataObject) -> None:
    repeated = events + (data.draw(st.lists(st.sampled_from(events))) if events else [])

    assert fold(data.draw(st.permutations(repeated))) == fold(events)


@given(first=EVENTS, second=EVENTS)
def test_folding_what_was_folded_gives_the_same(first: list[Standing], second: list[Standing]) -> None:
    kept = [found for found in (fold(first), fold(second)) if found is not None]

    assert fold(kept) == fold(first + second)


@given(EVENTS.filter(bool))
def test_the_last_decision_counts_and_a_withdrawal_wins_a_tie(events: list[Standing]) -> None:
    last = max(event.occurred_at for event in events)
    result = fold(events)

    assert result is not None
    assert result.occurred_at == last
    assert result.granted is all(event.granted for event in events if event.occurred_at == last)


def test_without_any_event_nothing_was_decided() -> None:
    assert fold([]) is None
