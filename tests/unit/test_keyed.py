"""People of whom only pseudonyms are left are found wherever their id stands."""

from typing import Any

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.datamap.pseudonym import PseudonymKey, Pseudonyms
from compliance.erasure.keyed import KeyedNeedles
from compliance.erasure.sweep import normalise

OLD, NEW = PseudonymKey("old", "a1" * 20), PseudonymKey("new", "b2" * 20)
BOTH = Pseudonyms("members", (NEW, OLD))
ANN = "Ann.Lee@x.org"


def needles(*values: str, key: PseudonymKey = NEW, known: Pseudonyms = BOTH) -> KeyedNeedles:
    return KeyedNeedles(known, frozenset(Pseudonyms("members", (key,)).make(value) for value in values))


@pytest.mark.parametrize(
    "document",
    [
        {"_id": ANN},
        {"a": [{"b": ANN}]},
        {"text": f"write to <{ANN}>, please"},
        {ANN: 1},
        {"url": "?to=Ann.Lee%40x.org"},
    ],
)
@pytest.mark.parametrize("key", [OLD, NEW])
def test_an_address_is_found_wherever_it_stands_by_any_key(document: dict[str, Any], key: PseudonymKey) -> None:
    assert needles(ANN, key=key).first_in(bson.encode(document)) == ANN


@pytest.mark.parametrize("text", ["ann.lee@x.org", "mail ANN.LEE@X.ORG now"])
def test_an_address_is_found_in_another_case_by_its_normalised_form(text: str) -> None:
    raw = bson.encode({"a": text})

    assert not needles(ANN).found_in(raw)
    assert needles(ANN, normalise(ANN)).found_in(raw)


@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=200))
def test_a_text_that_is_a_whole_value_is_found_whatever_it_is(text: str) -> None:
    assert needles(text).found_in(bson.encode({"n": 7, "a": [{"deep": text}], "z": "other"}))
    assert needles(text).found_in(bson.encode({"n": 1}) + bson.encode({"x": "y", "a": text}))


@pytest.mark.parametrize(
    "document", [{"a": "bob@x.org"}, {"a": "Ann.Lee"}, {"a": f"{ANN}.au"}, {}, {"a": b"\x02a\x00"}]
)
def test_others_are_not_found(document: dict[str, Any]) -> None:
    assert not needles(ANN).found_in(bson.encode(document))


def test_nobody_is_nowhere() -> None:
    assert not needles().found_in(bson.encode({"a": ANN}))


def test_people_whose_key_is_gone_are_counted() -> None:
    alone = Pseudonyms("members", (NEW,))

    assert needles(ANN, key=OLD, known=alone).lost == 1
    assert needles(ANN, key=NEW, known=alone).lost == 0
