"""What a test may ask of a migration script: that it can be undone, repeated, interrupted, and run beside writers."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from threading import Lock
from typing import Any

from compliance.clock import SystemClock
from compliance.errors import ComplianceError
from worker.testing.mortal import Mortal, open_mortal
from worker.testing.scene import Scene, Seed, Server, open_scene
from worker.testing.state import Held, State, compare
from worker.testing.writers import FIELD, Application, Writer, p99, writing

LANES = 2
MOST_DEATHS = 200
IDLE = timedelta(seconds=0.5)
BETWEEN_COMMANDS_MS = 2  # so that writers come in between
NOTHING: Mapping[str, Collection[str]] = {}
ENOUGH = 10  # documents: with fewer, nobody would write beside the script


@dataclass(frozen=True, slots=True, kw_only=True)
class Online:
    """What a run beside writers showed.

    Attributes:
        writes: How many were acknowledged or refused.
        p99_idle: What 99 of 100 writes took at most before the script ran.
        p99: The same while it ran.
    """

    writes: int
    p99_idle: timedelta
    p99: timedelta

    def __str__(self) -> str:
        idle, busy = (1000 * one.total_seconds() for one in (self.p99_idle, self.p99))
        return f"{self.writes} writes, p99 {idle:.1f} ms before and {busy:.1f} ms while it ran"


@dataclass(slots=True, kw_only=True)
class MigrationKit:
    """The fixture ``migration``: each assertion makes databases of its own, and leaves nothing behind.

    Attributes:
        server: Where.
        seed: Fills the database as the application would before the script runs; may be given to each call instead.
        tell: Takes a line for people.
    """

    server: Server
    seed: Seed | None = None
    tell: Callable[[str], None] = lambda _: None
    _cleanup: ExitStack = field(default_factory=ExitStack)
    _mortals: list[Mortal] = field(default_factory=list)

    def close(self) -> None:
        """End the processes that were started."""
        self._cleanup.close()

    def assert_reversible(
        self, name: str, *, seed: Seed | None = None, leaves: Mapping[str, Collection[str]] = NOTHING
    ) -> None:
        """Fail unless ``down`` leaves everything as it was before ``up``, and another ``up`` as the first one did.

        Args:
            name: The script.
            seed: Fills the database.
            leaves: Fields at the top of documents, by collection, whose values ``down`` keeps because it means to.
        """
        with self._scene(name, seed) as scene:
            why = scene.revision.irreversible
            if why:
                raise AssertionError(f"{scene.revision.name} is irreversible: {why}")
            before = scene.state()
            _carry_out(scene.up, f"up of {scene.revision.name}")
            after = scene.state()
            _carry_out(scene.down, f"down of {scene.revision.name}")
            undone = _but_for(leaves, scene.state())
            _require(_but_for(leaves, before), undone, f"down of {scene.revision.name} does not undo its up")
            _carry_out(scene.up, f"the second up of {scene.revision.name}")
            _require(after, scene.state(), f"{scene.revision.name} does something else after a down")

    def assert_idempotent(self, name: str, *, seed: Seed | None = None) -> None:
        """Fail unless ``up`` changes nothing where its work is done, even if nobody remembers that it is."""
        with self._scene(name, seed) as scene:
            _carry_out(scene.up, f"up of {scene.revision.name}")
            after = scene.state()
            scene.forget()
            _carry_out(scene.up, f"the second up of {scene.revision.name}")
            _require(after, scene.state(), f"{scene.revision.name} is not idempotent")

    def assert_resumable(self, name: str, *, seed: Seed | None = None, deaths: int = MOST_DEATHS) -> int:
        """Fail unless another ``up`` brings the same end from wherever a process was killed; return how often one was.

        The script runs in a process that gets SIGKILL before its n-th write, for every n: between two writes nothing
        changes, so no other moment leaves anything else.

        Args:
            name: The script.
            seed: Fills the database.
            deaths: Of more writes than that a sample is taken, with the first and the last among them.
        """
        with ExitStack() as cleanup:
            scenes = [cleanup.enter_context(self._scene(name, seed))]
            saved, end, writes = _undisturbed(scenes[0], self._mortal(0))
            numbers = _sample(len(writes), deaths)
            if len(numbers) > ENOUGH:
                scenes += [cleanup.enter_context(self._scene(name, seed)) for _ in range(LANES - 1)]
            self._die(scenes, saved, end, numbers)
        return len(numbers)

    def assert_online(self, name: str, *, writer: Writer | None = None, seed: Seed | None = None) -> Online:
        """Fail unless nothing is lost and nothing is changed twice while the application writes; return what it felt.

        Args:
            name: The script.
            writer: Writes once as the application would: takes the database and a number, and returns a ``Written``
                or None. Called by two threads at once. Without one, documents that are there get a field counted up.
            seed: Fills the database; with less than ten documents there is nothing to write beside.
        """
        with self._scene(name, seed) as scene:
            before, own = scene.state(), scene.own_state()
            _carry_out(scene.up, f"up of {scene.revision.name}")
            end = scene.state()
            scene.restore(before, own)
            documents = _changed(before, end)
            if writer is None and len(documents) < ENOUGH:
                raise AssertionError(
                    f"{scene.revision.name} has {len(documents)} documents to write beside; seed {ENOUGH} or more, "
                    "or give a writer"
                )
            application = Application(scene.admin.app, writer, documents)
            online = _beside(scene, application, self._mortal(0))
            found = scene.state()
        faults = [*application.find_lost(found), *compare(*_comparable(end, found, application))]
        if faults:
            raise AssertionError(f"{name} does harm beside writers: {'; '.join(faults)}")
        self.tell(f"{name} online: {online}")
        return online

    @contextmanager
    def _scene(self, name: str, seed: Seed | None) -> Iterator[Scene]:
        with open_scene(self.server, name, seed or self.seed) as scene:
            yield scene

    def _mortal(self, lane: int) -> Mortal:
        while len(self._mortals) <= lane:
            self._mortals.append(self._cleanup.enter_context(open_mortal()))
        return self._mortals[lane]

    def _die(self, scenes: Sequence[Scene], saved: tuple[State, State], end: State, numbers: Sequence[int]) -> None:
        waiting, lock = iter(numbers), Lock()
        lanes = [(scene, self._mortal(lane)) for lane, scene in enumerate(scenes)]

        def live(lane: tuple[Scene, Mortal]) -> None:
            while True:
                with lock:
                    number = next(waiting, None)
                if number is None:
                    return
                try:
                    _die_once(*lane, number, saved, end)
                except BaseException:
                    with lock:
                        list(islice(waiting, None))  # the others need not go on
                    raise

        with ThreadPoolExecutor(len(lanes)) as pool:
            list(pool.map(live, lanes))


def _undisturbed(scene: Scene, mortal: Mortal) -> tuple[tuple[State, State], State, Sequence[str]]:
    """Let the script run once; return what there was before, what there is behind it, and what it wrote."""
    saved = scene.state(), scene.own_state()
    done = mortal.run(scene)
    if done.error:
        raise AssertionError(f"up of {scene.revision.name} fails: {done.error}")
    return saved, scene.state(), done.writes


def _die_once(scene: Scene, mortal: Mortal, number: int, saved: tuple[State, State], end: State) -> None:
    scene.restore(*saved)
    died = mortal.run(scene, kill_at=number)
    scene.release()
    where = f"after a death at write {number} ({died.writes[-1] if died.writes else 'none'})"
    _carry_out(scene.up, f"{where} another up of {scene.revision.name}")
    _require(end, scene.state(), f"{where} {scene.revision.name} ends otherwise")


def _beside(scene: Scene, application: Application, mortal: Mortal) -> Online:
    """Let the script run beside *application*, which writes for a moment before."""
    clock = SystemClock()
    with writing(application):
        clock.sleep(IDLE)
        idle = len(application.seconds)
        done = mortal.run(scene, pause_ms=BETWEEN_COMMANDS_MS)
    if done.error:
        raise AssertionError(f"up of {scene.revision.name} fails beside writers: {done.error}")
    if application.faults:
        raise AssertionError(f"the writer fails: {', '.join(sorted(set(application.faults)))}")
    seconds = application.seconds
    return Online(writes=len(seconds), p99_idle=p99(seconds[:idle]), p99=p99(seconds[idle:]))


def _carry_out(change: Callable[[], None], what: str) -> None:
    try:
        change()
    except ComplianceError as error:
        raise AssertionError(f"{what} fails: {type(error).__name__}: {error}") from error


def _require(wanted: State, found: State, what: str) -> None:
    faults = compare(wanted, found)
    if faults:
        raise AssertionError(f"{what}: {'; '.join(faults)}")


def _sample(writes: int, most: int) -> list[int]:
    """Return the numbers of the writes to die at: all of them, or *most* in even distances with first and last."""
    if writes <= most:
        return list(range(1, writes + 1))
    if most <= 1:
        return [1][:most]
    return sorted({1 + round(place * (writes - 1) / (most - 1)) for place in range(most)})


def _changed(before: State, end: State) -> list[tuple[str, Any]]:
    """Return the documents that were there before, of the collections that the script changes; else of all."""
    touched = [name for name, held in before.items() if name not in end or held.documents != end[name].documents]
    names = [name for name in touched or before if before[name].kind == "collection"]
    return [(name, document["_id"]) for name in names for document in before[name].documents.values()]


def _comparable(end: State, found: State, application: Application) -> tuple[State, State]:
    """Return both without what the application wrote."""
    fields = application.written_fields()
    return _without(end, fields), _without(found, fields)


def _but_for(leaves: Mapping[str, Collection[str]], state: State) -> State:
    """Return *state* without the fields that may stay."""
    fields = {
        (name, key): set(leaves[name]) for name, held in state.items() if name in leaves for key in held.documents
    }
    return _without(state, fields)


def _without(state: State, fields: Mapping[tuple[str, bytes], set[str]]) -> State:
    return {
        name: Held(
            kind=held.kind,
            options=held.options,
            indexes=held.indexes,
            documents={
                key: {one: value for one, value in document.items() if one not in {FIELD, *fields.get((name, key), ())}}
                for key, document in held.documents.items()
                if "*" not in fields.get((name, key), ())
            },
        )
        for name, held in state.items()
    }
