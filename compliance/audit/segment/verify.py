"""Verify a segment: every entry is hashed, every tile compared, and all of it hangs from the signed root hash."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

from compliance.audit.checkpoint import Checkpoint, Policy, SignedCheckpoint, open_checkpoint
from compliance.audit.segment.bundles import Run, check_run
from compliance.audit.segment.finding import Fault, Finding
from compliance.audit.segment.folder import CHECKPOINT, Folder, open_folder, printable
from compliance.audit.segment.tree import Tree
from compliance.audit.tiles import WIDTH
from compliance.errors import InvalidPayload, InvalidProof, MalformedProof, TransientError

MAX_FINDINGS = 1000
ALONE_BELOW = 1_000_000  # entries that one process has hashed before others have imported the main module and caught up
MAX_PROCESSES = 8
AHEAD = 2

Progress = Callable[[int], None]
"""Told how many more entries were looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentReport:
    """The result of a verification.

    Attributes:
        begin: The first entry that had to be there.
        signed: The checkpoint and who signed it; None where it is not to be believed, and nothing else was looked at.
        entries: How many entries were looked at.
        findings: What is wrong, the first 1,000 of it.
        found: How much is wrong.
    """

    begin: int
    signed: SignedCheckpoint | None
    entries: int
    findings: tuple[Finding, ...]
    found: int

    @property
    def is_ok(self) -> bool:
        """Whether every entry of the range is the one that was logged, and nothing else is in the folder."""
        return self.signed is not None and not self.found


def verify_segment(
    path: Path,
    *,
    policy: Policy,
    begin: int = 0,
    processes: int | None = None,
    on_progress: Progress = lambda _: None,
) -> SegmentReport:
    """Return what is wrong with the segment at *path*; memory does not grow with its size.

    MUST be called with keys and *begin* that did not come with the folder.

    Args:
        path: The folder.
        policy: The log it has to be of, and whose signatures count.
        begin: The first entry that has to be there; above zero only for a log that was pruned below.
        processes: How many processes hash entries; by default one for a short log, as many as there are processors for
            a long one. With one, the calling process does all; else its main module MUST be safe to import.
        on_progress: Told how many more entries were looked at.

    Raises:
        InvalidPayload: When there is no such folder, or *begin* is not a multiple of 256 below the size of the log.
        TransientError: When a process was killed.
    """
    folder, notes = open_folder(path), Notes()
    signed = _open(folder, policy, notes)
    entries = 0
    if signed is not None:
        check_begin(begin, signed.checkpoint.size)
        for count in examine(folder, signed.checkpoint, begin=begin, processes=processes, note=notes.add):
            entries += count
            on_progress(count)
    return SegmentReport(begin=begin, signed=signed, entries=entries, findings=tuple(notes.findings), found=notes.found)


def summed(on_progress: Callable[[int, int], None], total: int) -> Progress:
    """Return a progress that tells *on_progress* how many entries were looked at so far, of *total*."""
    done = 0

    def add(entries: int) -> None:
        nonlocal done
        done += entries
        on_progress(done, total)

    return add


def check_begin(begin: int, size: int) -> None:
    """Check that a segment of a log of *size* can begin with entry *begin*.

    Raises:
        InvalidPayload: When it cannot.
    """
    if begin % WIDTH or not (begin == 0 or 0 < begin < size):
        raise InvalidPayload(f"begin: expected a multiple of {WIDTH} below {size}, the size of the log")


def examine(
    folder: Folder,
    checkpoint: Checkpoint,
    *,
    begin: int,
    note: Callable[[Finding], None],
    processes: int | None = None,
) -> Iterator[int]:
    """Compare *folder* with *checkpoint*, tell *note* what is wrong, and yield how many more entries were looked at."""
    for path, why in folder.superfluous(begin, checkpoint.size):
        note(Finding(fault=Fault.SUPERFLUOUS_FILE, path=printable(path), why=why))
    runs = Tree(folder=folder, checkpoint=checkpoint, begin=begin, note=note).runs()
    if processes is None:
        is_long = checkpoint.size - begin >= ALONE_BELOW
        processes = min(os.cpu_count() or 1, MAX_PROCESSES) if is_long else 1
    checked = _check_together(folder.path, runs, processes) if processes > 1 else _check_alone(folder.path, runs)
    for run, findings in checked:
        for finding in findings:
            note(finding)
        yield run.entries


@dataclass(slots=True)
class Notes:
    """What was found, up to a limit, and how much there was."""

    findings: list[Finding] = field(default_factory=list)
    found: int = 0

    def add(self, finding: Finding) -> None:
        """Note *finding*."""
        self.found += 1
        if self.found <= MAX_FINDINGS:
            self.findings.append(finding)


def _open(folder: Folder, policy: Policy, notes: Notes) -> SignedCheckpoint | None:
    data = folder.checkpoint()
    if data is None:
        notes.add(Finding(fault=Fault.MISSING_FILE, path=CHECKPOINT, why="is missing, or cannot be read"))
        return None
    try:
        return open_checkpoint(data, policy=policy)
    except MalformedProof as error:
        notes.add(Finding(fault=Fault.BAD_CHECKPOINT, path=CHECKPOINT, why=str(error)))
    except InvalidProof as error:
        notes.add(Finding(fault=Fault.BAD_SIGNATURE, path=CHECKPOINT, why=str(error)))
    return None


def _check_alone(path: Path, runs: Iterable[Run]) -> Iterator[tuple[Run, list[Finding]]]:
    return ((run, check_run(path, run)) for run in runs)


def _check_together(path: Path, runs: Iterable[Run], processes: int) -> Iterator[tuple[Run, list[Finding]]]:
    """Check *runs* in other processes and yield them in their order; only a few are under way at a time."""
    # A fork of a process with threads can hang for ever, so they are started anew.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: deque[tuple[Run, Future[list[Finding]]]] = deque()
        try:
            for run in runs:
                waiting.append((run, pool.submit(check_run, path, run)))
                if len(waiting) > AHEAD * processes:
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        except BrokenProcessPool:
            raise TransientError("a process that verified the log was killed; try again, or with one process") from None


def _first(waiting: deque[tuple[Run, Future[list[Finding]]]]) -> tuple[Run, list[Finding]]:
    run, future = waiting.popleft()
    return run, future.result()
