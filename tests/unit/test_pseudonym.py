"""Keyed pseudonyms: the same for the same person, telling nothing, and made by anybody who has the formula."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.datamap.pseudonym import PseudonymKey, Pseudonyms, is_pseudonym, parse_pseudonym_keys
from compliance.errors import ConfigurationError, InvalidPayload
from worker.client import pseudonym

OLD, NEW = PseudonymKey("k2025", "a1" * 20), PseudonymKey("k2026", "b2" * 20)
BOTH = Pseudonyms("members", (NEW, OLD))
SECRET = "zzSecret77"
VALUES = st.one_of(st.emails(), st.text(st.characters(exclude_categories=["Cs"])))


def test_the_formula_is_the_documented_one() -> None:
    digest = hmac.new(b"b2" * 20, b"members\x00ann@x.org", hashlib.sha256).hexdigest()

    assert BOTH.make("ann@x.org") == f"hmac-sha256:k2026:{digest}"
    assert pseudonym("ann@x.org", collection="members", keys=f"k2026:{'b2' * 20}") == BOTH.make("ann@x.org")


@given(VALUES)
def test_a_pseudonym_is_stable_and_is_no_address(value: str) -> None:
    found = BOTH.make(value)

    assert found == BOTH.make(value)
    assert is_pseudonym(found)
    assert "@" not in found


@given(VALUES, VALUES)
def test_pseudonyms_differ_by_person(one: str, other: str) -> None:
    assert (BOTH.make(one) == BOTH.make(other)) is (one == other)


@given(VALUES)
def test_pseudonyms_differ_by_collection_and_by_key(value: str) -> None:
    found = {BOTH.make(value), Pseudonyms("users", (NEW,)).make(value), Pseudonyms("members", (OLD,)).make(value)}
    same_name = Pseudonyms("members", (PseudonymKey("k2026", "c3" * 20),)).make(value)

    assert len(found | {same_name}) == 4


def test_the_first_key_makes_and_every_key_recognises() -> None:
    old = Pseudonyms("members", (OLD,)).make("ann@x.org")

    assert BOTH.all_of("ann@x.org") == (BOTH.make("ann@x.org"), old)
    assert BOTH.make("ann@x.org").startswith("hmac-sha256:k2026:")
    assert BOTH.is_of(old, "ann@x.org")
    assert BOTH.only(old).keys == (OLD,)
    assert not BOTH.is_of(old, "Ann@x.org")


def test_a_key_that_is_not_there_is_named_with_those_that_are() -> None:
    alone = Pseudonyms("members", (NEW,))
    old = BOTH.all_of("ann@x.org")[1]

    assert not alone.knows_key_of(old)
    with pytest.raises(InvalidPayload, match=r"COMPLIANCE_PSEUDONYM_KEYS does not hold; it holds: k2026$"):
        alone.only(old)


@pytest.mark.parametrize(
    "text",
    [
        "", "ann@x.org", "hmac-sha256:k:" + "0" * 63, "hmac-sha256:k:" + "0" * 65, "hmac-sha256:k:" + "A" * 64,
        "hmac-sha256::" + "0" * 64, "hmac-sha256:" + "0" * 64, "hmac-sha256:a b:" + "0" * 64,
        "hmac-sha256:k:" + "0" * 64 + "\n", "sha256:k:" + "0" * 64,
    ],
)  # fmt: skip
def test_what_has_another_form_is_no_pseudonym(text: str) -> None:
    assert not is_pseudonym(text)


def test_keys_are_read_in_their_order() -> None:
    assert parse_pseudonym_keys(f" k2026:{NEW.secret}\n k2025:{OLD.secret} ") == (NEW, OLD)


@pytest.mark.parametrize(
    "text",
    ["", " ", SECRET, f"k:{SECRET}", f"{SECRET * 4}", f"K:{SECRET * 4}", f"k:{SECRET * 4}! k2:{SECRET * 4}",
     f"k:{SECRET * 4} {SECRET}", f"k@:{SECRET * 4}", f"k:{SECRET * 3}zzSecret7", f"{'k' * 33}:{SECRET * 4}"],
)  # fmt: skip
def test_keys_of_another_form_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^COMPLIANCE_PSEUDONYM_KEYS: expected name:secret") as caught:
        parse_pseudonym_keys(text)

    assert SECRET not in str(caught.value)


def test_two_keys_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="two keys have the same name"):
        parse_pseudonym_keys(f"k:{SECRET * 4} k:{SECRET * 5}")


def test_no_representation_shows_a_secret() -> None:
    assert NEW.secret not in repr(BOTH)
