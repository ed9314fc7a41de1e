"""Anchors in files, the file that lists anchors, and the loop that brings checkpoints to them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from witnesses import LEAVES, LOG, MOMENT, ORIGIN, POLICY, REWRITTEN, WITNESS, StillClock, head_of

from compliance.audit.checkpoint import Policy
from compliance.audit.incident import Incident, Kind
from compliance.audit.keys import SigningKey
from compliance.audit.merkle import NodeReader, nodes_of
from compliance.errors import (
    AnchorUnavailable,
    CheckpointRefused,
    ConfigurationError,
    InvalidProof,
    LogForked,
    LogRolledBack,
    StoreUnavailable,
)
from worker.anchors import AnchorLoop, Head, Place
from worker.anchors import loop as looping
from worker.anchors.kinds.file import FileAnchor
from worker.anchors.loop import outcome_of, pause

NAME = "example.com%2Flog%2F2026.notes"


@dataclass
class Store:
    """A log in memory."""

    leaves: Sequence[bytes] = ()
    newest: bytes | None = None
    added: list[tuple[str, int, bytes]] = field(default_factory=list)
    is_away: bool = False

    def grow(self, size: int, leaves: Sequence[bytes] = LEAVES, key: SigningKey = LOG) -> None:
        self.leaves, self.newest = leaves[:size], head_of(size, leaves, key=key).note

    def logs(self) -> Sequence[str]:
        return [ORIGIN]

    @property
    def checkpoints(self) -> "Store":
        return self

    def note(self, log: str) -> bytes | None:
        assert log == ORIGIN
        if self.is_away:
            raise StoreUnavailable("away")
        return self.newest

    def nodes(self, log: str, size: int) -> NodeReader:
        assert (log, size) == (ORIGIN, len(self.leaves))
        return nodes_of(self.leaves)

    def add_cosignatures(self, log: str, size: int, lines: bytes) -> None:
        self.added.append((log, size, lines))


@dataclass
class Ear:
    """An anchor that hears, and fails as it is told."""

    fails: list[Exception | None] = field(default_factory=list)
    heard: list[int] = field(default_factory=list)
    lines: bytes = b""

    def push(self, head: Head) -> bytes:
        error = self.fails.pop(0) if self.fails else None
        if error is not None:
            raise error
        self.heard.append(head.checkpoint.size)
        return self.lines


@dataclass
class Scene:
    """A loop over ears, and everything about it."""

    ears: list[Ear]
    store: Store
    clock: StillClock
    loop: AnchorLoop
    told: list[tuple[str, str]]
    counted: list[tuple[str, str]]
    incidents: list[Incident]

    def turn(self, after: float = 0) -> None:
        self.clock.sleep(timedelta(seconds=after))
        self.loop.turn()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    ears, store, clock = [Ear(), Ear()], Store(), StillClock()
    told: list[tuple[str, str]] = []
    counted: list[tuple[str, str]] = []
    places = [Place(name=f"ear-{number}", anchor=ear, every=timedelta(seconds=10)) for number, ear in enumerate(ears)]
    monkeypatch.setattr(looping, "report_error", lambda error, *, kind, **_: told.append((type(error).__name__, kind)))
    monkeypatch.setattr(looping.metrics.ANCHORED, "inc", lambda *labels: counted.append(labels))
    incidents: list[Incident] = []
    loop = AnchorLoop(places=places, store=store, policy=lambda _: POLICY, clock=clock, alarm=incidents.append)
    return Scene(ears=ears, store=store, clock=clock, loop=loop, told=told, counted=counted, incidents=incidents)


def test_a_log_without_a_checkpoint_is_not_pushed(scene: Scene) -> None:
    scene.turn()

    assert (scene.ears[0].heard, scene.counted, scene.told) == ([], [], [])


def test_every_anchor_hears_what_is_new_and_not_too_often(scene: Scene) -> None:
    for size, after in ((1, 0), (2, 1), (3, 8.999), (3, 0.001), (3, 100), (4, 1), (4, 1)):
        scene.store.grow(size)
        scene.turn(after)

    assert [ear.heard for ear in scene.ears] == [[1, 3, 4]] * 2
    assert scene.counted == [("ear-0", "taken"), ("ear-1", "taken")] * 3
    assert (scene.store.added, scene.told) == ([], [])


def test_cosignatures_are_kept(scene: Scene) -> None:
    scene.ears[1].lines = b"lines\n"
    scene.store.grow(5)
    scene.turn()

    assert scene.store.added == [(ORIGIN, 5, b"lines\n")]


def test_the_witnesses_of_the_policy_need_not_have_signed_yet(scene: Scene) -> None:
    policy = Policy(origin=ORIGIN, keys=(LOG.verifier,), witnesses=(WITNESS.verifier,), quorum=1)
    scene.store.grow(5)
    replace(scene.loop, policy=lambda _: policy).turn()

    assert scene.ears[0].heard == [5]


@pytest.mark.parametrize(
    ("error", "outcome", "level"),
    [
        (LogForked("with other entries"), "fork", "error"),
        (LogRolledBack("which has 3"), "rollback", "error"),
        (CheckpointRefused("no key"), "refused", "error"),
        (InvalidProof("wrong"), "invalid", "error"),
        (ConfigurationError("unknown"), "misconfigured", "warning"),
        (AnchorUnavailable("away"), "failed", "warning"),
        (KeyError("private"), "crashed", "warning"),
    ],
)
def test_a_failure_is_told_counted_and_keeps_no_other_waiting(
    error: Exception, outcome: str, level: str, scene: Scene
) -> None:
    scene.ears[0].fails = [error]
    scene.store.grow(5)
    with capture_logs() as logs:
        scene.turn()

    assert [ear.heard for ear in scene.ears] == [[], [5]]
    assert scene.counted == [("ear-0", outcome), ("ear-1", "taken")]
    assert scene.told == [(type(error).__name__, "anchor/ear-0")]
    told = logs[0]
    assert (told["kind"], told["log_level"], told["log"], told["anchor"]) == (outcome, level, ORIGIN, "ear-0")
    assert told["reason"] == (str(error) if outcome != "crashed" else "KeyError")
    assert "private" not in str(logs)
    assert [incident.kind.value.lower() for incident in scene.incidents] == (
        [outcome] if outcome in {"fork", "rollback"} else []
    )


def test_what_failed_is_tried_again_after_a_growing_pause(scene: Scene) -> None:
    scene.ears[0].fails = [AnchorUnavailable("away")] * 3
    scene.store.grow(5)
    tried = []
    for second in range(12):
        scene.turn(second and 1)
        tried.append(4 - len(scene.ears[0].fails) - 1)

    assert tried == [1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3]
    assert scene.ears[0].heard == [5]
    assert outcome_times(scene) == 3


def outcome_times(scene: Scene) -> int:
    return scene.counted.count(("ear-0", "failed"))


def test_a_pause_begins_small_again_after_a_success(scene: Scene) -> None:
    away = AnchorUnavailable("away")
    scene.ears[0].fails = [away, away, None, away]
    for size, after in ((1, 0), (1, 1), (1, 2), (2, 10), (2, 1)):
        scene.store.grow(size)
        scene.turn(after)

    assert scene.ears[0].heard == [1, 2]


def test_a_conflict_is_told_again_and_again(scene: Scene) -> None:
    scene.ears[0].fails = [LogForked("x")] * 9
    scene.store.grow(5)
    for _ in range(3):
        scene.turn(300)

    assert scene.told == [("LogForked", "anchor/ear-0")] * 3
    assert [incident.kind for incident in scene.incidents] == [Kind.FORK] * 3
    assert len({incident.id for incident in scene.incidents}) == 1


@pytest.mark.parametrize(("failures", "seconds"), [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (10_000, 300)])
def test_pauses_double_up_to_five_minutes(failures: int, seconds: int) -> None:
    assert pause(failures) == timedelta(seconds=seconds)


def test_a_checkpoint_that_we_did_not_sign_is_not_pushed_and_told(scene: Scene) -> None:
    scene.store.grow(5, key=SigningKey.from_seed(ORIGIN, b"i" * 32))
    scene.turn()

    assert [ear.heard for ear in scene.ears] == [[], []]
    assert scene.told == [("InvalidProof", "anchor/ear-0"), ("InvalidProof", "anchor/ear-1")]


def test_a_store_that_is_away_is_the_callers_matter(scene: Scene) -> None:
    scene.store.grow(5)
    scene.store.is_away = True
    with pytest.raises(StoreUnavailable):
        scene.turn()
    scene.store.is_away = False
    scene.turn()

    assert [ear.heard for ear in scene.ears] == [[5], [5]]
    assert scene.told == []


@pytest.mark.parametrize(
    ("size", "leaves", "error"),
    [(4, LEAVES, "LogRolledBack"), (5, REWRITTEN, "LogForked"), (9, REWRITTEN, "LogForked")],
    ids=["shorter", "same size", "longer"],
)
def test_what_does_not_continue_what_was_pushed_is_told_also_where_the_anchor_cannot(
    size: int, leaves: Sequence[bytes], error: str, scene: Scene
) -> None:
    scene.store.grow(5)
    scene.turn()
    scene.store.grow(size, leaves)
    scene.turn(10)

    assert scene.told == [(error, "anchor/ear-0"), (error, "anchor/ear-1")]
    assert scene.ears[0].heard == [5]


def test_the_loop_turns_every_second_until_it_is_told_to_stop(scene: Scene) -> None:
    turns: list[datetime] = []
    scene.store.grow(5)
    loop = replace(scene.loop, on_turn=lambda: turns.append(scene.clock.now()))

    loop.follow(lambda: len(turns) == 3)

    assert turns == [MOMENT + timedelta(seconds=number) for number in range(3)]
    assert scene.ears[0].heard == [5]


def test_every_integrity_error_has_an_outcome_that_is_an_alarm() -> None:
    assert {outcome_of(error("x")) for error in (LogForked, LogRolledBack, CheckpointRefused, InvalidProof)} == {
        "fork",
        "rollback",
        "refused",
        "invalid",
    }


def test_the_loop_brings_a_log_to_a_file_and_notices_that_its_end_was_cut_off(scene: Scene, tmp_path: Path) -> None:
    place = Place(name="disk", anchor=FileAnchor("disk", tmp_path), every=timedelta(seconds=1))
    loop = replace(scene.loop, places=[place])
    for size in (100, 200, 150):
        scene.store.grow(size)
        scene.clock.sleep(timedelta(seconds=1))
        loop.turn()

    assert scene.counted == [("disk", "taken"), ("disk", "taken"), ("disk", "rollback")]
    assert scene.clock.now() > MOMENT
