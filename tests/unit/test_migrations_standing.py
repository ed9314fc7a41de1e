"""Folder and history side by side: the state of each script in a word."""

from dataclasses import replace

from revisions import past, revision

from migrations.past import Past
from migrations.plan import Scripts
from migrations.standing import State, standings

NAMES = ("v001_pre_a", "v002_pre_b", "v003_pre_c", "v004_pre_d")
ALL = tuple(map(revision, NAMES))


def states(scripts: Scripts) -> dict[str, State]:
    return {one.revision.name: one.state for one in standings(scripts)}


def test_what_never_ran_or_was_undone_is_pending() -> None:
    found = standings(Scripts(folder=ALL[:2], past=past("v001_pre_a", v002_pre_b="reverted")))

    assert [(one.state, one.by) for one in found] == [(State.APPLIED, "test"), (State.PENDING, "test")]
    assert [(one.state, one.by, one.at) for one in standings(Scripts(folder=ALL[:1], past=past()))] == [
        (State.PENDING, None, None)
    ]
    assert [one.depends_on for one in found] == [(), ("v001_pre_a",)]


def test_what_is_half_done_is_told_as_such() -> None:
    found = states(Scripts(folder=ALL[:2], past=past(v001_pre_a="reverting", v002_pre_b="started")))

    assert list(found.values()) == [State.REVERTING, State.STARTED]


def test_late_edited_missing_and_accepted_are_told_apart() -> None:
    gone = (revision("v005_pre_e"), revision("v006_pre_f"))
    traces = past("v001_pre_a", "v003_pre_c", "v005_pre_e", "v006_pre_f").traces
    edited = replace(traces["v001_pre_a"], checksum="another")
    missed = replace(traces["v006_pre_f"], is_missed=True)
    scripts = Scripts(folder=ALL[:3], past=Past({**traces, "v001_pre_a": edited, "v006_pre_f": missed}), gone=gone)

    assert states(scripts) == {
        "v001_pre_a": State.EDITED,
        "v002_pre_b": State.LATE,
        "v003_pre_c": State.APPLIED,
        "v005_pre_e": State.MISSING,
        "v006_pre_f": State.GONE,
    }
