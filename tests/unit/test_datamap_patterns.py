"""Personal data is recognised by its form, also where it is packed; what only looks alike is not."""

import base64
import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.datamap.patterns import MOST_BYTES, Pattern, is_card, is_iban, patterns_in

ADDRESS = "ann.b@x.org"
IBAN = "DE89370400440532013000"
CARD = "4111111111111111"


def token(claims: Any) -> str:
    head, body = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in ({"alg": "none"}, claims))
    return f"{head.rstrip('=')}.{body.rstrip('=')}.c2ln"


@pytest.mark.parametrize(
    ("value", "patterns"),
    [
        ("call ann@x.org today", {"email"}),
        ("Μαρία@παράδειγμα.example", {"email"}),
        ("call +49 30 901820 now", {"phone"}),
        ("call 0049-30-901820", {"phone"}),
        ("DE89 3704 0044 0532 0130 00", {"iban"}),
        (IBAN, {"iban"}),
        ("4111 1111 1111 1111", {"card"}),
        (int(CARD), {"card"}),
        ("from 192.0.2.1.", {"ip"}),
        ("2001:db8::1", {"ip"}),
        ("::1", {"ip"}),
        (token({"sub": "1"}), {"jwt"}),
        (token({"email": ADDRESS}), {"jwt", "email"}),
        (f"to={ADDRESS.replace('@', '%40')}", {"email"}),
        (json.dumps({"a": [ADDRESS]}), {"email"}),
        (base64.b64encode(ADDRESS.encode()).decode(), {"email"}),
        (base64.b64encode(base64.b64encode(ADDRESS.encode())).decode(), {"email"}),
        (ADDRESS.encode().hex(), {"email"}),
        (ADDRESS.encode(), {"email"}),
        (gzip.compress(ADDRESS.encode(), mtime=0), {"email"}),
        (base64.b64encode(gzip.compress(f"{ADDRESS} {IBAN}".encode(), mtime=0)).decode(), {"email", "iban"}),
        ({"inner": [{ADDRESS: 1}]}, {"email"}),
    ],
)
def test_what_is_personal_is_recognised(value: Any, patterns: set[str]) -> None:
    assert patterns_in(value) == patterns


@pytest.mark.parametrize(
    "value",
    ["", "hello world", "a@b", "user@localhost", "12:34:56", "00:1B:44:11:3A:B7", "1.2.3", "1.2.3.4.5", "300.1.1.1",
     "2026-01-01T12:00:00Z", "5f1d7f3e2c9b4a0012345678", "c8edabc3-f738-4ca3-b68d-ab92a91478a3", IBAN[:-1] + "1",
     CARD[:-1] + "2", int(CARD) + 2, "1234567", "+1 23", 3.5, None, True, 10**40, b"\x00\xff", b"\x1f\x8b broken",
     "eyJub.eyJub.x", "{broken", "%zz", "https://x.org/a/b"],
)  # fmt: skip
def test_what_only_looks_alike_is_not(value: Any) -> None:
    assert patterns_in(value) == frozenset()


@given(st.integers(0, 21), st.sampled_from("0123456789"))
def test_one_wrong_digit_is_no_account(place: int, digit: str) -> None:
    changed = IBAN[:place] + digit + IBAN[place + 1 :]

    assert place < 2 or is_iban(changed) == (changed == IBAN)


@given(st.integers(0, 15), st.sampled_from("0123456789"))
def test_one_wrong_digit_is_no_card(place: int, digit: str) -> None:
    changed = CARD[:place] + digit + CARD[place + 1 :]

    assert is_card(changed) == (changed == CARD)


@given(st.recursive(st.text() | st.binary() | st.integers() | st.none(), st.lists, max_leaves=5))
def test_any_value_is_read(value: Any) -> None:
    assert patterns_in(value) <= set(Pattern)


def test_a_bomb_is_unpacked_no_further_than_it_is_read() -> None:
    bomb = gzip.compress(b" " * (50 * MOST_BYTES) + ADDRESS.encode())

    assert patterns_in(bomb) == frozenset()
