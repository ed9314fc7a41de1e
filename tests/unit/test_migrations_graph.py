"""Scripts run after those they depend on, and otherwise by number, phase and name."""

from collections.abc import Mapping
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from revisions import folders, revision

from compliance.errors import DependencyRefused
from migrations.graph import build_graph
from migrations.revision import Revision


def order(*revisions: Revision) -> list[str]:
    return [one.name for one in build_graph(revisions).revisions]


def heads(*revisions: Revision) -> list[str]:
    return [one.name for one in build_graph(revisions).heads()]


A, B, C, D = (f"v00{number}_pre_x" for number in (1, 2, 3, 4))


def test_a_folder_without_declarations_is_a_line_by_number_and_phase() -> None:
    names = ["v000_pre_f", "v001_pre_b", "v001_data_a", "v001_post_a", "v002_pre_a"]
    graph = build_graph(map(revision, reversed(names)))

    assert [one.name for one in graph.revisions] == names
    assert graph.parents == {"v000_pre_f": ()} | {name: (before,) for before, name in pairwise(names)}
    assert [one.name for one in graph.heads()] == ["v002_pre_a"]


def test_a_diamond_runs_its_last_one_last() -> None:
    """``a -> (b, c) -> z`` where z has the lowest number but one: others ran it before c."""
    diamond = (revision("v001_pre_a"), revision("v003_pre_b", "v001_pre_a"), revision("v004_pre_c", "v001_pre_a"))

    assert order(revision("v002_pre_z", "v003_pre_b", "v004_pre_c"), *diamond) == [
        "v001_pre_a",
        "v003_pre_b",
        "v004_pre_c",
        "v002_pre_z",
    ]


def test_branches_have_several_heads_until_a_script_merges_them() -> None:
    branches = (revision(A), revision(B, A), revision(C, A))

    assert heads(*branches) == [B, C]
    assert heads(*branches, revision(D, B, C)) == [D]
    assert heads(*branches, revision(D)) == [B, D]
    assert heads() == []


def test_what_does_not_depend_on_each_other_comes_by_number_and_phase() -> None:
    roots = [revision(name, is_root=True) for name in ("v010_pre_a", "v002_post_b", "v002_data_c", "v002_pre_d")]

    assert order(*roots) == ["v002_pre_d", "v002_data_c", "v002_post_b", "v010_pre_a"]


def test_nothing_comes_before_the_foundation() -> None:
    graph = build_graph([revision(A, is_root=True), revision(B, A), revision("v000_pre_f")])

    assert graph.parents == {"v000_pre_f": (), A: ("v000_pre_f",), B: (A,)}


@pytest.mark.parametrize(
    ("revisions", "circle"),
    [
        ([revision(A, A)], f"{A} -> {A}"),
        ([revision(A, B), revision(B, A)], f"{A} -> {B} -> {A}"),
        ([revision(A, C), revision(B), revision(C)], f"{A} -> {C} -> {B} -> {A}"),
        ([revision(A), revision(B, D), revision(C, B), revision(D, C)], f"{B} -> {D} -> {C} -> {B}"),
        ([revision(A, B), revision(B), revision(C)], f"{A} -> {B} -> {A}"),
        ([revision(A, C), revision(B, D), revision(C, D), revision(D, C)], f"{C} -> {D} -> {C}"),
    ],
)
def test_a_circle_is_named_with_the_way_out(revisions: list[Revision], circle: str) -> None:
    with pytest.raises(DependencyRefused, match=f"in a circle: {circle}; take one name out of a DEPENDS_ON"):
        build_graph(revisions)


def test_a_name_that_is_not_there_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DependencyRefused, match=f"{B} depends on v001, gone, which .* full name .* known: {A}, {B}"):
        build_graph([revision(A), revision(B, "v001", A, "gone")])


def test_ancestors_are_found_through_every_path() -> None:
    graph = build_graph([revision(A), revision(B, A), revision(C, A), revision(D, B)])

    assert graph.with_ancestors([D]) == {A, B, D}
    assert graph.with_ancestors([C, B]) == {A, B, C}
    assert graph.with_ancestors([]) == frozenset()


def is_allowed(names: tuple[str, ...], parents: Mapping[str, tuple[str, ...]]) -> bool:
    return all(names.index(parent) < names.index(name) for name in names for parent in parents[name])


@given(revisions=folders(most=6))
def test_the_order_is_the_least_of_all_that_keep_dependencies(revisions: tuple[Revision, ...]) -> None:
    """The oracle tries every permutation; the least compares number, phase and name, place by place."""
    graph = build_graph(revisions)
    rank = {one.name: one.order for one in revisions}
    allowed = [names for names in permutations(rank) if is_allowed(names, graph.parents)]

    assert [one.name for one in graph.revisions] == list(min(allowed, key=lambda names: [rank[name] for name in names]))


@given(edges=st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8))
def test_a_graph_is_refused_exactly_when_no_order_keeps_its_dependencies(edges: set[tuple[int, int]]) -> None:
    names = [f"v00{number + 1}_pre_x" for number in range(5)]
    parents = {name: tuple(names[b] for a, b in sorted(edges) if names[a] == name) for name in names}
    revisions = [revision(name, *depends_on, is_root=True) for name, depends_on in parents.items()]
    possible = any(is_allowed(one, parents) for one in permutations(names))

    if possible:
        assert is_allowed(tuple(order(*revisions)), parents)
    else:
        with pytest.raises(DependencyRefused, match=r"in a circle: (v00._pre_x) -> .*\1;"):
            build_graph(revisions)
