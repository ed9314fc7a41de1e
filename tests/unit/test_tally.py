"""Two multitudes of ids are equal, or it is known where they are not."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from compliance.audit.verification.tally import DIGITS, GROUPS, Tally, after, packed, prefix

IDS = st.text(alphabet="0123456789abcdef", min_size=32, max_size=32)
ALIKE = IDS.map(lambda id_: "000" + id_[3:])  # of one group


def ids(count: int) -> list[str]:
    return [hashlib.sha256(b"%d" % number).hexdigest()[:32] for number in range(count)]


def tallies(one: list[str], other: list[str]) -> tuple[Tally, Tally]:
    mine = Tally()
    theirs = Tally(mine.key)
    mine.add(one)
    theirs.add(id_.encode() for id_ in other)
    return mine, theirs


@given(st.lists(IDS), st.randoms())
def test_the_same_ids_in_any_order_differ_in_nothing(found: list[str], random: object) -> None:
    other = found.copy()
    random.shuffle(other)  # type: ignore[attr-defined]
    mine, theirs = tallies(found, other)

    difference = mine.difference(theirs)

    assert (difference.more, difference.less, difference.groups) == (frozenset(), frozenset(), ())


@given(st.sets(IDS), st.sets(IDS))
def test_every_id_that_differs_is_named_or_its_group_is(one: set[str], other: set[str]) -> None:
    mine, theirs = tallies(sorted(one), sorted(other))

    difference = mine.difference(theirs)

    groups = {prefix(group) for group in difference.groups}
    assert {id_ for id_ in other - one if id_[:DIGITS] not in groups} == difference.more
    assert {id_ for id_ in one - other if id_[:DIGITS] not in groups} == difference.less
    differing = [id_[:DIGITS] for id_ in one ^ other]
    assert all(differing.count(group) > 1 for group in groups)


@given(st.lists(ALIKE, min_size=2, max_size=6, unique=True))
def test_several_ids_of_one_group_are_no_single_one(found: list[str]) -> None:
    mine, theirs = tallies([], found)

    assert mine.difference(theirs).groups == (0,)


def test_equal_sums_are_not_enough() -> None:
    one, other = [f"{5:032x}", f"{8:032x}"], [f"{6:032x}", f"{7:032x}"]
    mine, theirs = tallies(one, other)

    assert mine.difference(theirs).groups == (0,)
    mine, theirs = tallies([*one, f"{1:032x}"], [*other, f"{2:032x}"])  # the sums differ by what could be an id
    assert mine.difference(theirs).groups == (0,)


def test_an_id_twice_is_not_once() -> None:
    (id_,) = ids(1)
    mine, theirs = tallies([id_, id_], [id_])

    assert mine.difference(theirs).less == {id_}
    mine, theirs = tallies([id_] * 3, [id_])
    assert mine.difference(theirs).groups == (int(id_[:DIGITS], 16),)


def test_another_key_gives_another_product() -> None:
    found = ids(10)
    one, other = Tally(1), Tally(2)
    one.add(found)
    other.add(found)

    assert len(one.difference(other).groups) == 10
    assert Tally().key != Tally().key


def test_every_id_lies_between_its_prefix_and_what_comes_after() -> None:
    for id_ in (*ids(100), "0" * 32, "f" * 32):
        group = int(id_[:DIGITS], 16)
        assert prefix(group) <= id_ < after(group)
    assert all(after(group) == prefix(group + 1) for group in range(GROUPS - 1))


def test_ids_are_counted() -> None:
    tally = Tally()
    tally.add(["f" * 32] * 3)
    tally.add(["0" * 32])

    assert [tally.count(group) for group in (0, 1, GROUPS - 1)] == [1, 0, 3]


def test_groups_are_looked_at_together_as_far_as_memory_goes() -> None:
    assert list(packed([1, 2, 3, 4], [5, 5, 1, 10], most=10)) == [[1, 2], [3], [4]]
    assert list(packed([1, 2], [50, 1], most=10)) == [[1], [2]]
    assert list(packed([], [], most=10)) == []
