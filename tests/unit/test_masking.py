"""What stands in a field instead of a personal value."""

from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import bson
import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from compliance.errors import UnknownName
from compliance.masking import STRATEGIES

KEY = bytes(range(32))
DATES = st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
VALUES = (
    st.text(min_size=8)
    | st.ip_addresses().map(str)
    | DATES
    | st.integers(-(2**31), 2**31 - 1)
    | st.booleans()
    | st.none()
    | st.binary(min_size=12, max_size=12).map(ObjectId)
    | st.lists(st.text(min_size=8))
)
NAMES = st.sampled_from(sorted(STRATEGIES))


@given(name=NAMES, value=VALUES)
def test_masking_again_changes_nothing(name: str, value: Any) -> None:
    once = STRATEGIES[name](value, KEY)

    assert STRATEGIES[name](once, KEY) == once


@given(
    name=NAMES, value=st.text(alphabet="abcdefghij@.", min_size=8) | st.binary(min_size=12, max_size=12).map(ObjectId)
)
def test_what_stands_there_then_does_not_hold_the_value(name: str, value: Any) -> None:
    raw = bson.encode({"": STRATEGIES[name](value, KEY)})

    assert (value.encode() if isinstance(value, str) else value.binary) not in raw


@given(name=NAMES, value=VALUES)
def test_a_mask_can_be_stored(name: str, value: Any) -> None:
    masked = STRATEGIES[name](value, KEY)

    assert bson.encode({"": masked})


@pytest.mark.parametrize(
    ("name", "value", "masked"),
    [
        ("null_v1", "ann", None),
        ("text_v1", 7, "[erased]"),
        ("first_characters_v1", "10115", "10"),
        ("first_characters_v1", "1", None),
        ("first_characters_v1", 10115, None),
        ("network_v1", "192.0.2.77", "192.0.2.0"),
        ("network_v1", "2001:db8:1:2::3", "2001:db8:1::"),
        ("network_v1", "ann", None),
        ("network_v1", 3221225985, None),
        ("year_v1", datetime(1987, 6, 5, 4, tzinfo=UTC), datetime(1987, 1, 1, tzinfo=UTC)),
        ("year_v1", "1987-06-05", None),
    ],
)
def test_each_strategy_leaves_what_it_says(name: str, value: Any, masked: Any) -> None:
    assert STRATEGIES[name](value, KEY) == masked


@given(address=st.ip_addresses())
def test_neighbours_share_a_network(address: Any) -> None:
    neighbour = type(address)(int(address) ^ 1)

    assert STRATEGIES["network_v1"](str(address), KEY) == STRATEGIES["network_v1"](str(neighbour), KEY)
    assert ip_address(STRATEGIES["network_v1"](str(address), KEY)).version == address.version


def test_equal_values_stay_equal_under_one_key_and_nobody_can_try_values_without_it() -> None:
    hashed = STRATEGIES["keyed_hash_v1"]

    assert hashed("ann", KEY) == hashed("ann", KEY)
    assert hashed("ann", KEY) != hashed("bob", KEY)
    assert hashed("ann", KEY) != hashed("ann", KEY[::-1])
    assert hashed(1, KEY) != hashed("1", KEY)


def test_an_unknown_strategy_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownName, match=r"masking strategy of that name; known: .*null_v1"):
        STRATEGIES["rot13_v1"]
