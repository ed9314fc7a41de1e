"""A name is registered once, and a name that is not known lists those that are."""

import pytest

from compliance.errors import UnknownName
from compliance.registry import Registry


def test_a_second_entry_of_the_same_name_is_refused_and_the_first_stays() -> None:
    registry: Registry[int] = Registry("mask")
    registry.add("hash", 1)

    with pytest.raises(ValueError, match="mask 'hash' is registered twice"):
        registry.add("hash", 2)

    assert dict(registry) == {"hash": 1}


def test_an_unknown_name_lists_the_known_ones_and_is_not_repeated() -> None:
    registry: Registry[int] = Registry("mask")
    registry.add("null", 1)
    registry.add("hash", 2)

    with pytest.raises(UnknownName) as caught:
        registry["ann@x.org"]

    assert str(caught.value) == "there is no mask of that name; known: hash, null"


def test_names_come_in_order_whatever_the_order_of_import() -> None:
    registry: Registry[int] = Registry("mask")
    for name in ("c", "a", "b"):
        assert registry.add(name, 0) == 0

    assert list(registry) == ["a", "b", "c"]
    assert (len(registry), "a" in registry, "z" in registry, 1 in registry) == (3, True, False, False)
