"""Anchors in files, the file that lists anchors, and the loop that brings checkpoints to them."""

import errno
import fcntl
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from witnesses import LEAVES, LOG, MOMENT, ORIGIN, POLICY, REWRITTEN, WITNESS, Line, StillClock, Witness, head_of

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
from worker.anchors import KINDS, AnchorLoop, Head, Place, load_anchors
from worker.anchors import loop as looping
from worker.anchors.kinds import file as files
from worker.anchors.kinds.command import CommandAnchor
from worker.anchors.kinds.file import FileAnchor, last_checkpoint
from worker.anchors.kinds.witness import WitnessAnchor
from worker.anchors.loop import outcome_of, pause
from worker.anchors.post import Post

PAGE = (Path(__file__).parents[2] / "docs/anchors.md").read_text(encoding="utf-8")
NAME = "example.com%2Flog%2F2026.notes"


@pytest.fixture
def anchor(tmp_path: Path) -> FileAnchor:
    return FileAnchor("disk", tmp_path)


def test_every_checkpoint_is_appended_once(anchor: FileAnchor) -> None:
    heads = [head_of(size) for size in (0, 1, 7, 300)]
    for head in heads:
        assert anchor.push(head) == anchor.push(head) == b""

    assert (anchor.folder / NAME).read_bytes() == b"".join(head.note + b"\n" for head in heads)


def test_each_log_has_a_file_of_its_own(anchor: FileAnchor) -> None:
    next_year = SigningKey.from_seed("example.com/log/2027", b"l" * 32)
    anchor.push(head_of(300))
    anchor.push(head_of(1, key=next_year))

    assert sorted(path.name for path in anchor.folder.iterdir()) == [NAME, NAME.replace("2026", "2027")]


def test_a_name_of_a_log_does_not_lead_out_of_the_folder(anchor: FileAnchor) -> None:
    anchor.push(head_of(1, key=SigningKey.from_seed("../..", b"l" * 32)))

    assert [path.name for path in anchor.folder.iterdir()] == ["..%2F...notes"]


@pytest.mark.parametrize(
    ("earlier", "later", "error"),
    [
        (head_of(200), head_of(199), LogRolledBack),
        (head_of(1), head_of(0), LogRolledBack),
        (head_of(200), head_of(200, REWRITTEN), LogForked),
        (head_of(200), head_of(300, REWRITTEN), LogForked),
        (head_of(200), head_of(100, REWRITTEN), LogRolledBack),
    ],
    ids=["shorter", "emptied", "same size", "longer", "shorter and other"],
)
def test_what_does_not_continue_the_file_is_refused_and_not_written(
    earlier: Head, later: Head, error: type[Exception], anchor: FileAnchor
) -> None:
    anchor.push(earlier)
    before = (anchor.folder / NAME).read_bytes()

    with pytest.raises(error, match=f"anchor disk holds size {earlier.checkpoint.size} of {ORIGIN}"):
        anchor.push(later)

    assert (anchor.folder / NAME).read_bytes() == before


@given(place=st.integers(0, len(head_of(7).note) + 1), again=st.integers(0, len(head_of(9).note) + 1))
def test_a_note_that_a_crash_cut_off_is_passed_over(
    place: int, again: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    anchor = FileAnchor("disk", tmp_path_factory.mktemp("disk"))
    path = anchor.folder / NAME
    anchor.push(head_of(5))
    whole = path.read_bytes()
    path.write_bytes(whole + (head_of(7).note + b"\n")[:place])

    anchor.push(head_of(8))
    path.write_bytes(path.read_bytes() + (head_of(9).note + b"\n")[:again])
    anchor.push(head_of(10))

    assert path.read_bytes().startswith(whole)
    assert last_checkpoint(path.read_bytes(), POLICY) == head_of(10).checkpoint
    with pytest.raises(LogRolledBack):
        anchor.push(head_of(9))


@pytest.mark.parametrize("place", range(len(head_of(7).note)))
def test_even_the_first_note_may_be_cut_off(place: int, anchor: FileAnchor) -> None:
    (anchor.folder / NAME).write_bytes(head_of(7).note[:place])

    anchor.push(head_of(8))

    assert last_checkpoint((anchor.folder / NAME).read_bytes(), POLICY) == head_of(8).checkpoint


def test_a_file_with_notes_of_another_key_is_left_alone(anchor: FileAnchor) -> None:
    impostor = SigningKey.from_seed(ORIGIN, b"i" * 32)
    anchor.push(head_of(7, key=impostor))

    with pytest.raises(InvalidProof, match=r"no checkpoint of example\.com/log/2026 by a key that is known"):
        anchor.push(head_of(8))

    assert (anchor.folder / NAME).read_bytes() == head_of(7, key=impostor).note + b"\n"


def test_a_key_that_was_replaced_still_counts_for_what_it_signed(anchor: FileAnchor) -> None:
    after = SigningKey.from_seed(ORIGIN, b"n" * 32)
    both = Policy(origin=ORIGIN, keys=(LOG.verifier, after.verifier))
    anchor.push(head_of(200))

    with pytest.raises(LogForked):
        anchor.push(replace(head_of(300, REWRITTEN, key=after), policy=both))
    anchor.push(replace(head_of(300, key=after), policy=both))

    assert last_checkpoint((anchor.folder / NAME).read_bytes(), both) == head_of(300).checkpoint


def test_only_the_end_of_a_long_file_is_read(anchor: FileAnchor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "TAIL_BYTES", 500)
    for size in range(30):
        anchor.push(head_of(size))

    with pytest.raises(LogRolledBack, match="size 29"):
        anchor.push(head_of(28))


def test_a_folder_that_is_not_there_is_told_without_its_name(tmp_path: Path) -> None:
    with pytest.raises(AnchorUnavailable, match=r"^anchor disk cannot be written \(FileNotFoundError\)$"):
        FileAnchor("disk", tmp_path / "nowhere").push(head_of(1))


def test_a_link_in_the_place_of_the_file_is_not_followed(anchor: FileAnchor, tmp_path: Path) -> None:
    (anchor.folder / NAME).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(AnchorUnavailable):
        anchor.push(head_of(1))

    assert not (tmp_path / "elsewhere").exists()


def test_two_processes_do_not_write_at_once(anchor: FileAnchor) -> None:
    with (anchor.folder / NAME).open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        with pytest.raises(AnchorUnavailable, match="BlockingIOError"):
            anchor.push(head_of(1))

    anchor.push(head_of(1))


@pytest.mark.parametrize("taken", [0, 1, 50])
def test_a_full_disk_is_told_and_later_the_note_is_there(
    taken: int, anchor: FileAnchor, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor.push(head_of(5))
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", lambda handle, data: write(handle, data[:taken]))
        with pytest.raises(AnchorUnavailable, match="is the disk full"):
            anchor.push(head_of(6))

    anchor.push(head_of(7))

    assert last_checkpoint((anchor.folder / NAME).read_bytes(), POLICY) == head_of(7).checkpoint


def test_a_disk_that_fails_is_told(anchor: FileAnchor, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(handle: int) -> None:
        raise OSError(errno.EIO, "private")

    monkeypatch.setattr(files.os, "fsync", fails)

    with pytest.raises(AnchorUnavailable, match=r"cannot be written \(OSError\)$"):
        anchor.push(head_of(1))


# The file of anchors


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").touch()
    path = tmp_path / "anchors.yaml"
    path.write_text(f"""
apiVersion: anchors/v1
anchors:
  - {{name: disk, kind: file, path: {tmp_path}, every_seconds: 60}}
  - {{name: upload, kind: command, command: [upload, -v], timeout_seconds: 5, environment: {{HOME: /tmp}}}}
  - {{name: outside, kind: witness, url: "https://w.example/p", vkey: {WITNESS.verifier.vkey},
      ca_file: {tmp_path}/ca.pem}}
""")
    return path


def test_anchors_are_read(listed: Path, tmp_path: Path) -> None:
    disk, upload, outside = load_anchors(listed, clock=StillClock())

    assert (disk.name, disk.every, disk.anchor) == ("disk", timedelta(minutes=1), FileAnchor("disk", tmp_path))
    assert (upload.every, upload.anchor) == (
        timedelta(seconds=10),
        CommandAnchor(name="upload", command=("upload", "-v"), timeout_seconds=5, environment={"HOME": "/tmp"}),
    )
    assert isinstance(outside.anchor, WitnessAnchor)
    assert (outside.anchor.witness, outside.anchor.post) == (
        WITNESS.verifier,
        Post(url="https://w.example/p", ca_file=tmp_path / "ca.pem", timeout_seconds=10),
    )


def test_there_are_three_kinds() -> None:
    assert list(KINDS) == ["command", "file", "witness"]


SECRET = "s3cr3t"
TWO_WRONG = f"""
apiVersion: anchors/v1
anchors:
  - {{name: a, kind: command, command: []}}
  - {{name: b, kind: witness, url: {SECRET}, vkey: {SECRET}, timeout_seconds: 0}}
"""


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", ["file: "]),
        ("a: [", ["not valid YAML"]),
        ("apiVersion: anchors/v2\nanchors: []", ["apiVersion: ", "anchors: "]),
        (f"apiVersion: anchors/v1\nanchors: [{{name: a, kind: {SECRET}}}]", ["anchors.0.kind: ", "command, file, wit"]),
        ("apiVersion: anchors/v1\nanchors: [{name: a}]", ["anchors.0.kind: "]),
        (
            f"apiVersion: anchors/v1\nanchors: [{{name: A, kind: file, path: {SECRET}, more: {SECRET}}}]",
            ["anchors.0.name: ", "anchors.0.path: expected an absolute path", "anchors.0.more: "],
        ),
        (
            TWO_WRONG,
            [
                "anchors.0.command: ",
                "anchors.1.url: ",
                "anchors.1.vkey: a verifier key is",
                "anchors.1.timeout_seconds",
            ],
        ),
        (
            "apiVersion: anchors/v1\nanchors: [{name: a, kind: file, path: /a}, {name: a, kind: file, path: /b}]",
            ["anchors: a stands there 2 times"],
        ),
        ("apiVersion: anchors/v1\nanchors: [{name: a, kind: file, path: /a, every_seconds: 0.5}]", ["every_seconds: "]),
        (
            f"apiVersion: anchors/v1\nanchors: [{{name: w, kind: witness, url: https://w, vkey: {LOG.verifier.vkey}}}]",
            ["anchors.0.vkey: the key of a witness is of type 0x04"],
        ),
    ],
    ids=range(10),
)
def test_every_fault_of_the_file_is_named_at_once_and_no_value(text: str, faults: list[str], tmp_path: Path) -> None:
    path = tmp_path / "anchors.yaml"
    path.write_text(text)

    with pytest.raises(ConfigurationError) as caught:
        load_anchors(path, clock=StillClock())

    assert [fault for fault in faults if fault not in str(caught.value)] == []
    assert SECRET not in str(caught.value)


def test_a_file_that_is_not_there_is_told_by_the_name_of_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^COMPLIANCE_ANCHORS: cannot be read \(FileNotFoundError\)$"):
        load_anchors(tmp_path / "nowhere", clock=StillClock())


def test_the_example_of_the_page_is_read(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "anchors.yaml"
    path.write_text(example)

    places = load_anchors(path, clock=StillClock())

    assert sorted(example.count(f"kind: {kind}") for kind in KINDS) == [1, 1, 1]
    assert [place.name for place in places] == ["disk", "bucket", "outside"]


def test_the_page_lists_exactly_the_fields_and_the_outcomes() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    fields = {name for options in KINDS.values() for name in options.model_fields}

    assert set(listed) == fields | {outcome for _, outcome in looping.OUTCOMES} | {looping.TAKEN, looping.CRASHED}


@pytest.mark.parametrize(
    "url",
    [
        "http://w.example/",
        "http://127.0.0.2.example/",
        "ftp://localhost/",
        "https://",
        "https:///path",
        "https://user@w.example/",
        "https://:p@w.example/",
        "https://w.example:0/",
        "https://w.example:x/",
        "https://w.example/?a",
        "https://w.example/#a",
        "https://w.example/a b",
        "https://w.example/\u00e9",
        f"https://{'a' * 64}.example/",
        "w.example",
    ],
)
def test_a_witness_is_reached_by_https(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        KINDS["witness"].model_validate({"name": "w", "kind": "witness", "url": url, "vkey": WITNESS.verifier.vkey})


@pytest.mark.parametrize(
    "url",
    ["https://w.example", "https://w.example:8443/a/b/", "http://localhost:1/", "http://127.0.0.1", "http://[::1]/"],
)
def test_on_this_machine_a_witness_may_be_reached_in_the_clear(url: str) -> None:
    KINDS["witness"].model_validate({"name": "w", "kind": "witness", "url": url, "vkey": WITNESS.verifier.vkey})


# A witness, without a network


def witnessed(witness: Witness) -> WitnessAnchor:
    return WitnessAnchor(name="outside", witness=WITNESS.verifier, post=Line(witness), clock=StillClock())  # type: ignore[arg-type]


def test_a_witness_is_asked_once_while_it_is_known_how_far_it_is() -> None:
    witness = Witness()
    anchor = witnessed(witness)

    lines = [anchor.push(head_of(size)) for size in (0, 1, 100, 100, 300)]

    assert all(line.startswith("— witness.example ".encode()) for line in lines)
    assert [body.partition(b"\n")[0] for body in witness.asked] == [
        b"old 0",
        b"old 0",
        b"old 1",
        b"old 100",
        b"old 100",
    ]


def test_after_a_start_it_is_learnt_how_far_the_witness_is() -> None:
    witness = Witness()
    witnessed(witness).push(head_of(100))

    witnessed(witness).push(head_of(200))

    assert [body.partition(b"\n")[0] for body in witness.asked] == [b"old 0", b"old 0", b"old 100"]


def test_a_witness_that_forgot_cosigns_again_and_that_is_told() -> None:
    witness = Witness()
    anchor = witnessed(witness)
    anchor.push(head_of(100))
    witness.latest.clear()
    with capture_logs() as logs:
        anchor.push(head_of(200))

    assert witness.latest[ORIGIN].size == 200
    assert [(line["event"], line["size"], line["before"]) for line in logs] == [("anchor.forgot", 0, 100)]


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize(
    ("later", "error"),
    [
        (head_of(199), LogRolledBack),
        (head_of(200, REWRITTEN), LogForked),
        (head_of(300, REWRITTEN), LogForked),
        (head_of(100, REWRITTEN), LogRolledBack),
        (head_of(300, key=SigningKey.from_seed(ORIGIN, b"i" * 32)), CheckpointRefused),
        (head_of(1, key=SigningKey.from_seed("example.com/log/2027", b"l" * 32)), ConfigurationError),
    ],
    ids=["shorter", "same size", "longer", "shorter and other", "key", "log"],
)
def test_a_witness_refuses_what_does_not_continue(later: Head, error: type[Exception], *, is_new: bool) -> None:
    witness = Witness()
    anchor = witnessed(witness)
    anchor.push(head_of(200))

    with pytest.raises(error):
        (witnessed(witness) if is_new else anchor).push(later)

    assert witness.latest == {ORIGIN: head_of(200).checkpoint}


def test_a_witness_that_never_agrees_is_given_up_on() -> None:
    witness = Witness()
    answers = iter(range(1, 100))
    witness.answer = lambda _: (409, "text/x.tlog.size", b"%d\n" % next(answers))  # type: ignore[method-assign]

    with pytest.raises(AnchorUnavailable, match="another size with every answer"):
        witnessed(witness).push(head_of(200))

    assert next(answers) == 4


# The loop


@dataclass
class Store:
    """A log in memory."""

    leaves: Sequence[bytes] = ()
    note: bytes | None = None
    added: list[tuple[str, int, bytes]] = field(default_factory=list)
    is_away: bool = False

    def grow(self, size: int, leaves: Sequence[bytes] = LEAVES, key: SigningKey = LOG) -> None:
        self.leaves, self.note = leaves[:size], head_of(size, leaves, key=key).note

    def logs(self) -> Sequence[str]:
        return [ORIGIN]

    def checkpoint(self, log: str) -> bytes | None:
        assert log == ORIGIN
        if self.is_away:
            raise StoreUnavailable("away")
        return self.note

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
