"""Verify the whole log, or what came since a checkpoint."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from compliance.audit.batch import MAX_LEAVES, Batch
from compliance.audit.checkpoint import Checkpoint
from compliance.audit.leaf import EPOCH
from compliance.audit.pruned import Boundary
from compliance.audit.seals import CLOCKS_APART, Seals
from compliance.audit.trust import Trust
from compliance.audit.verification.finding import Fault, Findings, Report
from compliance.audit.verification.readers import Parallel, Readers, Records, read, reading
from compliance.audit.verification.shape import find_drift
from compliance.audit.verification.signatures import check_signatures
from compliance.audit.verification.streams import Streams
from compliance.audit.verification.tally import Tally
from compliance.audit.verification.tree import say_planted
from compliance.audit.verification.unsealed import Unsealed
from compliance.audit.verification.year import YearCheck
from compliance.mongo import Databases
from compliance.roles import AUDIT_LOG

STALE_AFTER = timedelta(hours=2)  # the log has a heartbeat every hour

Progress = Callable[[int, int], None]
"""Told how many entries were verified, of about how many."""


def verify_log(
    databases: Databases,
    trust: Trust,
    *,
    now: datetime,
    since: bytes | None = None,
    against: Iterable[bytes] = (),
    on_progress: Progress = lambda _done, _total: None,
    stale_after: timedelta = STALE_AFTER,
    parallel: Parallel | None = None,
) -> Report:
    """Recompute the log and return what is wrong with it.

    Args:
        databases: Reached with rights to read the audit database.
        trust: Whose signatures count.
        now: The time by which an entry that is not sealed is late.
        since: A signed checkpoint up to which the log was verified before; what it covers is not read again.
        against: Signed checkpoints that were kept elsewhere.
        on_progress: Told every now and then.
        stale_after: How long the log may be silent.
        parallel: Processes that read and hash, where this one may start any: one of a worker's pool may not.

    Raises:
        InvalidProof: When *since* or one of *against* is not a checkpoint of this log by its own key.
        ConfigurationError: When no key of the log is known.
        StoreUnavailable: When MongoDB does not answer.
    """
    verification = _Verification(
        databases=databases,
        trust=trust,
        now=now,
        on_progress=on_progress,
        stale_after=stale_after,
        parallel=parallel,
    )
    begin = trust.open(since) if since is not None else None
    return verification.run(begin, [trust.open(note) for note in against])


@dataclass(slots=True, kw_only=True)
class _Verification:
    databases: Databases
    trust: Trust
    now: datetime
    on_progress: Progress
    stale_after: timedelta
    parallel: Parallel | None
    findings: Findings = field(default_factory=Findings)
    tally: Tally = field(default_factory=Tally)
    known_until: int = 0

    @property
    def _seals(self) -> Seals:
        return Seals(self.databases)

    @property
    def _unsealed(self) -> Unsealed:
        return Unsealed(databases=self.databases, trust=self.trust, now=self.now, findings=self.findings)

    def run(self, since: Checkpoint | None, against: list[Checkpoint]) -> Report:
        seals, streams = self._seals, Streams(is_whole=since is None)
        self.trust.policy(self.trust.origin)  # without a key nothing below says anything
        for name, why in find_drift(self.databases):
            self.findings.add(Fault.SCHEMA_DRIFT, name, why)
        logs = [log for log in seals.logs() if since is None or log >= since.origin]
        checks = [self._check(log, streams, since, against) for log in logs]
        for known in against:
            if known.origin not in logs and (since is None or known.origin >= since.origin):
                self.findings.add(Fault.TRUNCATED, known.origin, f"it had {known.size} entries, and it is gone")
        for check in checks:
            check.excuse_pruned()
        check_signatures(streams, self.findings, databases=self.databases, trust=self.trust)
        for stream, why in streams.gaps():
            self.findings.add(Fault.STREAM_GAP, f"stream {stream}", why)
        if since is None:
            say_planted(seals, self.findings)
            for _ in seals.checkpoints.odd():
                self.findings.add(Fault.FORGED, "a checkpoint with a size that is none", "the sealer writes none")
        pending = self._find_unsealed(checks, since)
        self._look_for_silence(checks)
        checks.sort(key=lambda check: check.sealed_at or EPOCH)
        return Report(
            entries=sum(check.entries for check in checks),
            pending=pending,
            findings=tuple(self.findings),
            checkpoints=tuple(check.note for check in checks if check.note is not None),
            pruned=tuple((check.log, check.boundary) for check in checks if check.boundary),
        )

    def _check(self, log: str, streams: Streams, since: Checkpoint | None, against: list[Checkpoint]) -> YearCheck:
        """Verify the log of one year."""
        check = YearCheck(
            seals=self._seals,
            trust=self.trust,
            log=log,
            now=self.now,
            findings=self.findings,
            streams=streams,
            tally=self.tally,
            find_boundary=Boundary(databases=self.databases, log=log, trust=self.trust).find,
            elsewhere=[known for known in against if known.origin == log],
        )
        check.begin(since if since is not None and since.origin == log else None)
        if check.before is not None:
            check.recall(read(self.databases, check.before.ids))
            self.known_until = check.times.latest
        with reading(self.databases, self.parallel) as readers:
            self._read(check, readers)
        check.end()
        self._look_at_unsigned(check)
        return check

    def _read(self, check: YearCheck, readers: Readers) -> None:
        """Verify the batches of one log; entries are read while those before them are compared."""
        total = check.size + self.databases.audit[AUDIT_LOG].estimated_document_count()
        waiting: deque[tuple[list[Batch], Callable[[], Records]]] = deque()
        for batches in _chunks(check.batches()):
            waiting.append((batches, readers.submit([id_ for batch in batches for id_ in batch.ids])))
            if len(waiting) > readers.ahead:
                self._take(check, *waiting.popleft())
                self.on_progress(check.size, total)
        while waiting:
            self._take(check, *waiting.popleft())

    def _look_at_unsigned(self, check: YearCheck) -> None:
        """Look at the signatures of entries in batches that no checkpoint signs: anybody may have put them there."""
        for batch in check.batches_behind(check.signed):
            for raw in self._unsealed.read(batch.ids):
                self._unsealed.say_fault(raw, "no checkpoint signs it")

    def _take(self, check: YearCheck, batches: list[Batch], found: Callable[[], Records]) -> None:
        records = found()
        for batch in batches:
            check.take(batch, records)

    def _find_unsealed(self, checks: list[YearCheck], since: Checkpoint | None) -> int:
        """Say which entries no batch holds; return how many of them are so new that they need not be sealed yet."""
        if since is None:
            verified = {check.log: check.size for check in checks}
            return self._unsealed.look_at_all(self.tally, verified=verified)
        known = EPOCH + timedelta(milliseconds=self.known_until)
        return self._unsealed.look_since(min(known, self.now) - CLOCKS_APART)

    def _look_for_silence(self, checks: list[YearCheck]) -> None:
        """Say that nothing was written lately, by the entries that are signed."""
        last = max(checks, key=lambda check: check.times.signed, default=None)
        if last is None or not last.times.signed:
            return
        moment = EPOCH + timedelta(milliseconds=last.times.signed)
        if self.now - moment > self.stale_after:
            why = f"the last entry that is sealed is of {moment:%Y-%m-%d %H:%M:%S} UTC"
            self.findings.add(Fault.STALE, last.log, why)


def _chunks(batches: Iterable[Batch]) -> Iterator[list[Batch]]:
    """Join batches, so that small ones do not cost a question each."""
    chunk: list[Batch] = []
    size = 0
    for batch in batches:
        if chunk and size + len(batch.ids) > MAX_LEAVES:
            yield chunk
            chunk, size = [], 0
        chunk.append(batch)
        size += len(batch.ids)
    if chunk:
        yield chunk
