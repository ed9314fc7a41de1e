"""Which migrations run, in which order, and which plans are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.errors import IrreversibleMigration, MigrationError, RevisionEdited, UnknownName
from migrations.plan import Direction, plan_down, plan_up
from migrations.revision import Phase, Revision


def revision(name: str, *, irreversible: str | None = None) -> Revision:
    number, phase = name.removeprefix("v").split("_")[:2]
    return Revision(
        name=name,
        number=int(number),
        phase=Phase[phase.upper()],
        summary="",
        checksum=f"sum of {name}",
        up=lambda _: None,
        down=None if irreversible else lambda _: None,
        irreversible=irreversible,
    )


NAMES = ("v001_pre_a", "v002_pre_b", "v004_pre_c", "v004_data_c", "v004_post_c", "v005_pre_d")
ALL = tuple(map(revision, NAMES))


def applied(*names: str) -> dict[str, str]:
    return {name: f"sum of {name}" for name in names}


def names(revisions: tuple[Revision, ...]) -> list[str]:
    return [found.name for found in revisions]


def test_everything_pending_runs_in_order() -> None:
    plan = plan_up(ALL, applied("v001_pre_a"))

    assert plan.direction is Direction.UP
    assert names(plan.revisions) == list(NAMES[1:])


@pytest.mark.parametrize(
    ("target", "last"),
    [
        ("004", "v004_post_c"),
        ("v004", "v004_post_c"),
        ("004_pre", "v004_pre_c"),
        ("v004_data", "v004_data_c"),
        ("v004_pre_c", "v004_pre_c"),
        ("004_pre_c", "v004_pre_c"),
        ("001", "v001_pre_a"),
        ("005", "v005_pre_d"),
    ],
)
def test_a_target_is_a_number_a_phase_or_a_name(target: str, last: str) -> None:
    end = NAMES.index(last) + 1

    assert names(plan_up(ALL, {}, target).revisions) == list(NAMES[:end])
    assert names(plan_down(ALL, applied(*NAMES), target).revisions) == list(reversed(NAMES[end:]))


@pytest.mark.parametrize("target", ["003", "4", "004_c", "c", "", "v", "zero!", "v004_pre"[:-1]])
def test_an_unknown_target_lists_the_known_ones(target: str) -> None:
    with pytest.raises(UnknownName, match=r"there is no migration .*; known: v001_pre_a, v002_pre_b"):
        plan_down(ALL, applied(*NAMES), target)
    if target:
        with pytest.raises(UnknownName, match="known: v001_pre_a"):
            plan_up(ALL, {}, target)


def test_zero_undoes_everything() -> None:
    assert names(plan_down(ALL, applied(*NAMES), "zero").revisions) == list(reversed(NAMES))


def test_a_target_that_is_reached_leaves_nothing_to_do() -> None:
    assert plan_up(ALL, applied(*NAMES)).revisions == ()
    assert plan_up(ALL, applied(*NAMES[:3]), "002").revisions == ()
    assert plan_down(ALL, applied(*NAMES[:2]), "005").revisions == ()


def test_an_edited_script_is_named() -> None:
    with pytest.raises(RevisionEdited, match="changed after they were applied: v001_pre_a; "):
        plan_up(ALL, {"v001_pre_a": "another"})
    with pytest.raises(RevisionEdited):
        plan_down(ALL, {"v001_pre_a": "another"}, "zero")


def test_a_script_that_is_gone_is_named() -> None:
    with pytest.raises(MigrationError, match="applied but no longer in the folder: v003_pre_gone; "):
        plan_up(ALL, applied("v003_pre_gone"))


def test_a_new_script_before_an_applied_one_is_named() -> None:
    with pytest.raises(MigrationError, match="new but numbered before applied ones: v002_pre_b; renumber"):
        plan_up(ALL, applied("v001_pre_a", "v004_pre_c"))


def test_an_irreversible_script_on_the_way_down_says_why() -> None:
    revisions = (*ALL[:2], revision("v003_data_x", irreversible="values are gone"), *ALL[2:])
    there = applied(*names(revisions))

    with pytest.raises(IrreversibleMigration, match="v003_data_x cannot be undone: values are gone"):
        plan_down(revisions, there, "002")
    assert names(plan_down(revisions, there, "003").revisions) == list(reversed(NAMES[2:]))


@st.composite
def folders(draw: st.DrawFn) -> tuple[Revision, ...]:
    keys = draw(
        st.sets(st.tuples(st.integers(0, 20), st.sampled_from(["pre", "data", "post"])), min_size=1, max_size=9)
    )
    made = [revision(f"v{number:03d}_{phase}_x") for number, phase in keys]
    return tuple(sorted(made, key=lambda found: found.order))


@given(revisions=folders(), data=st.data())
def test_up_and_down_to_zero_are_mirror_images(revisions: tuple[Revision, ...], data: st.DataObject) -> None:
    target = data.draw(st.sampled_from([None, *names(revisions)]))
    up = plan_up(revisions, {}, target).revisions
    there = applied(*names(up))

    assert plan_down(revisions, there, "zero").revisions == tuple(reversed([one for one in up if one.number]))
    assert up + plan_up(revisions, there).revisions == revisions


@given(revisions=folders(), data=st.data())
def test_down_to_a_target_leaves_what_up_to_it_applies(revisions: tuple[Revision, ...], data: st.DataObject) -> None:
    target = data.draw(st.sampled_from(names(revisions)))
    undone = plan_down(revisions, applied(*names(revisions)), target).revisions

    assert plan_up(revisions, {}, target).revisions == tuple(found for found in revisions if found not in undone)
