"""Which migrations run, in which order, and which plans are refused."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from revisions import folders, past, revision

from compliance.errors import (
    DependencyRefused,
    IrreversibleMigration,
    RevisionEdited,
    RevisionLate,
    RevisionMissing,
    UnknownName,
)
from migrations.graph import build_graph
from migrations.past import Past
from migrations.plan import Direction, Plan, Scripts, find_one, plan_down, plan_only, plan_up
from migrations.revision import Revision

NAMES = ("v001_pre_a", "v002_pre_b", "v004_pre_c", "v004_data_c", "v004_post_c", "v005_pre_d")
ALL = tuple(map(revision, NAMES))


def scripts(folder: tuple[Revision, ...], *applied: str, **others: str) -> Scripts:
    return Scripts(folder=folder, past=past(*applied, **others))


def up(folder: tuple[Revision, ...], *applied: str, target: str | None = None) -> list[str]:
    return names(plan_up(scripts(folder, *applied), target).revisions)


def down(folder: tuple[Revision, ...], *applied: str, target: str) -> list[str]:
    return names(plan_down(scripts(folder, *applied), target).revisions)


def names(revisions: tuple[Revision, ...]) -> list[str]:
    return [found.name for found in revisions]


def test_everything_pending_runs_in_order() -> None:
    plan = plan_up(scripts(ALL, "v001_pre_a"))

    assert plan == Plan(direction=Direction.UP, revisions=ALL[1:])


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

    assert up(ALL, target=target) == list(NAMES[:end])
    assert down(ALL, *NAMES, target=target) == list(reversed(NAMES[end:]))


@pytest.mark.parametrize("target", ["003", "4", "004_c", "c", "", "v", "zero!", "v004_pre"[:-1]])
def test_an_unknown_target_lists_the_known_ones(target: str) -> None:
    with pytest.raises(UnknownName, match=r"there is no migration .*; known: v001_pre_a, v002_pre_b"):
        down(ALL, *NAMES, target=target)
    if target:
        with pytest.raises(UnknownName, match="known: v001_pre_a"):
            up(ALL, target=target)


def test_zero_undoes_everything_but_the_foundation() -> None:
    assert down(ALL, *NAMES, target="zero") == list(reversed(NAMES))
    with_foundation = (revision("v000_pre_foundation"), *ALL)
    assert down(with_foundation, *names(with_foundation), target="zero") == list(reversed(NAMES))


def test_a_target_that_is_reached_leaves_nothing_to_do() -> None:
    assert up(ALL, *NAMES) == []
    assert up(ALL, *NAMES[:3], target="002") == []
    assert down(ALL, *NAMES[:2], target="005") == []


@pytest.mark.parametrize("mark", ["started", "reverting"])
def test_what_is_half_done_is_finished_or_undone(mark: str) -> None:
    half = scripts(ALL, "v001_pre_a", v002_pre_b=mark)

    assert names(plan_up(half).revisions) == list(NAMES[1:])
    assert names(plan_down(half, "001").revisions) == ["v002_pre_b"]


def test_what_was_undone_is_pending() -> None:
    assert names(plan_up(scripts(ALL[:2], "v001_pre_a", v002_pre_b="reverted")).revisions) == ["v002_pre_b"]
    assert names(plan_down(scripts(ALL[:2], "v001_pre_a", v002_pre_b="reverted"), "zero").revisions) == ["v001_pre_a"]


def edited(name: str) -> Past:
    return Past({name: replace(past(name).traces[name], checksum="another")})


def test_an_edited_script_is_named_with_both_ways_out() -> None:
    found = Scripts(folder=ALL, past=edited("v001_pre_a"))

    for plan in (lambda: plan_up(found), lambda: plan_down(found, "zero"), lambda: plan_only(found, "002")):
        with pytest.raises(
            RevisionEdited, match=r"after they were applied: v001_pre_a; restore .* repair --accept NAME"
        ):
            plan()


def test_a_script_that_is_edited_while_it_is_half_applied_is_left_to_its_steps() -> None:
    half = Past({name: replace(trace, checksum="x") for name, trace in past(v001_pre_a="started").traces.items()})

    assert names(plan_up(Scripts(folder=ALL, past=half)).revisions) == list(NAMES)


def test_a_script_that_is_gone_is_named_with_three_ways_out() -> None:
    for plan in (plan_up, lambda found: plan_only(found, "001")):
        with pytest.raises(RevisionMissing) as refused:
            plan(scripts(ALL, "v001_pre_a", "v003_pre_gone"))

        message = str(refused.value)
        assert message.startswith("applied but no longer in the folder: v003_pre_gone; bring the scripts back")
        assert "migrate down" in message
        assert "repair --accept NAME --reason TEXT" in message


def test_a_script_that_was_renamed_is_told_its_old_name() -> None:
    found = Scripts(folder=(replace(revision("v001_pre_b"), checksum="sum of v001_pre_a"),), past=past("v001_pre_a"))

    with pytest.raises(
        RevisionMissing, match=r"folder: v001_pre_a \(v001_pre_a is now v001_pre_b: give it its old name"
    ):
        plan_up(found)


def test_a_half_applied_script_that_is_gone_cannot_be_accepted() -> None:
    with pytest.raises(
        RevisionMissing, match="half applied and no longer in the folder: v003_pre_gone; bring"
    ) as refused:
        plan_up(scripts(ALL, "v001_pre_a", v003_pre_gone="started"))

    assert "repair" not in str(refused.value)


def test_what_was_accepted_as_missing_is_no_fault_and_can_be_undone() -> None:
    gone = revision("v003_pre_gone")
    traces = past("v001_pre_a", "v002_pre_b", "v003_pre_gone").traces
    accepted = Past({**traces, gone.name: replace(traces[gone.name], is_missed=True)})
    found = Scripts(folder=ALL, past=accepted, gone=(gone,))

    assert names(plan_up(found).revisions) == list(NAMES[2:])
    assert names(plan_down(found, "001").revisions) == ["v003_pre_gone", "v002_pre_b"]


def test_a_script_that_only_the_history_holds_is_undone_in_its_place() -> None:
    newer = revision("v006_pre_e")
    found = Scripts(folder=ALL, past=past(*NAMES, newer.name), gone=(newer,))

    assert names(plan_down(found, "005").revisions) == ["v006_pre_e"]
    assert names(plan_down(found, "004_data").revisions) == ["v006_pre_e", "v005_pre_d", "v004_post_c"]


def test_a_new_script_before_an_applied_one_is_named_with_the_ways_out() -> None:
    late = scripts(ALL, "v001_pre_a", "v004_pre_c")

    with pytest.raises(
        RevisionLate, match=r"new but before applied ones: v002_pre_b; renumber .* DEPENDS_ON .* --allow-late"
    ):
        plan_up(late)
    with pytest.raises(RevisionLate, match="v002_pre_b"):
        plan_up(late, allow_late=["v004_data_c"])
    with pytest.raises(RevisionLate, match="v002_pre_b"):
        plan_only(late, "002")
    assert names(plan_up(late, allow_late=["v002_pre_b"]).revisions) == ["v002_pre_b", *NAMES[3:]]
    assert names(plan_only(late, "002", allow_late=["v002_pre_b"]).revisions) == ["v002_pre_b"]
    assert names(plan_down(late, "zero").revisions) == ["v004_pre_c", "v001_pre_a"]


def test_a_name_that_is_allowed_late_has_to_be_one() -> None:
    for plan in (plan_up, lambda found, **allow: plan_only(found, "001", **allow)):
        with pytest.raises(UnknownName, match="no migration '002'; write its full name; known: v001_pre_a"):
            plan(scripts(ALL), allow_late=["002"])


def test_a_branch_that_says_what_it_depends_on_is_not_late() -> None:
    branches = (ALL[0], revision("v002_pre_b", "v001_pre_a"), revision("v003_pre_c", "v001_pre_a"))

    assert up(branches, "v001_pre_a", "v003_pre_c") == ["v002_pre_b"]
    assert down(branches, *names(branches), target="003") == ["v002_pre_b"]
    assert up(branches, target="003") == ["v001_pre_a", "v003_pre_c"]


def test_one_migration_runs_by_name_when_what_it_depends_on_is_applied() -> None:
    assert names(plan_only(scripts(ALL, *NAMES[:2]), "004_pre").revisions) == ["v004_pre_c"]
    assert plan_only(scripts(ALL, *NAMES), "001").revisions == ()
    with pytest.raises(DependencyRefused, match=r"v004_pre_c depends on v002_pre_b, .*up --to v004_pre_c"):
        plan_only(scripts(ALL, "v001_pre_a"), "004_pre")
    with pytest.raises(DependencyRefused, match="v002_pre_b"):
        plan_only(scripts(ALL, "v001_pre_a", v002_pre_b="started"), "004_pre")
    with pytest.raises(
        UnknownName, match="'004' names several migrations: v004_pre_c, v004_data_c, v004_post_c; say which"
    ):
        plan_only(scripts(ALL, *NAMES[:2]), "004")


def test_late_ones_elsewhere_do_not_keep_one_migration_by_name() -> None:
    late = scripts(ALL, "v001_pre_a", "v004_pre_c")

    assert names(plan_only(late, "004_data").revisions) == ["v004_data_c"]


def test_a_name_names_one() -> None:
    assert find_one(scripts(ALL).graph(), "004_data").name == "v004_data_c"


def test_an_irreversible_script_on_the_way_down_says_why() -> None:
    revisions = (*ALL[:2], revision("v003_data_x", irreversible="values are gone"), *ALL[2:])

    with pytest.raises(IrreversibleMigration, match="v003_data_x cannot be undone: values are gone"):
        down(revisions, *names(revisions), target="002")
    assert down(revisions, *names(revisions), target="003") == list(reversed(NAMES[2:]))


@given(revisions=folders(), data=st.data())
def test_up_and_down_to_zero_are_mirror_images(revisions: tuple[Revision, ...], data: st.DataObject) -> None:
    target = data.draw(st.sampled_from([None, *names(revisions)]))
    there = up(revisions, target=target)

    assert down(revisions, *there, target="zero") == [name for name in reversed(there) if not name.startswith("v000")]
    assert sorted(there + up(revisions, *there)) == sorted(names(revisions))


@given(revisions=folders(), data=st.data())
def test_down_to_a_target_leaves_what_up_to_it_applies(revisions: tuple[Revision, ...], data: st.DataObject) -> None:
    target = data.draw(st.sampled_from(names(revisions)))
    undone = down(revisions, *names(revisions), target=target)

    assert set(up(revisions, target=target)) == set(names(revisions)) - set(undone)


@given(revisions=folders(), data=st.data())
def test_no_plan_breaks_a_dependency(revisions: tuple[Revision, ...], data: st.DataObject) -> None:
    """Whatever is applied, and whatever is asked for: at every moment each applied script has what it depends on."""
    parents = build_graph(revisions).parents
    there: list[str] = []
    for _ in range(5):
        target = data.draw(st.sampled_from(names(revisions)))
        if data.draw(st.booleans()):
            for name in up(revisions, *there, target=target):
                assert set(parents[name]) <= set(there)
                there.append(name)
        else:
            for name in down(revisions, *there, target=target):
                there.remove(name)
                assert all(name not in parents[other] for other in there)
