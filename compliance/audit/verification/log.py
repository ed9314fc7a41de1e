"""Verify the whole log, or what came since a checkpoint."""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from compliance.audit.batch import MAX_LEAVES, Batch
from compliance.audit.checkpoint import Checkpoint, open_checkpoint
from compliance.audit.log import LENIENT
from compliance.audit.pruned import find_boundary
from compliance.audit.seals import CLOCKS_APART, Seals
from compliance.audit.signed import find_fault
from compliance.audit.trust import Trust
from compliance.audit.verification.finding import MAX_FINDINGS, Fault, Findings, Report
from compliance.audit.verification.readers import Parallel, Readers, Records, reading
from compliance.audit.verification.shape import find_drift
from compliance.audit.verification.streams import Streams
from compliance.audit.verification.tally import Tally
from compliance.audit.verification.year import SEALED_WITHIN, YearCheck
from compliance.errors import InvalidProof
from compliance.mongo import Databases, Document, driver_errors
from compliance.roles import AUDIT_LOG

STALE_AFTER = timedelta(hours=2)  # the log has a heartbeat every hour
AT_ONCE = 20_000
ID = re.compile(r"[0-9a-f]{32}")

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
    begin = _opened(since, trust) if since is not None else None
    return verification.run(begin, [_opened(note, trust) for note in against])


def _opened(note: bytes, trust: Trust) -> Checkpoint:
    log = note.partition(b"\n")[0].decode(errors="replace")
    if log.rpartition("/")[0] != trust.origin:
        raise InvalidProof(f"a checkpoint that was given is not one of {trust.origin}")
    return open_checkpoint(note, policy=trust.policy(log)).checkpoint


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

    def run(self, since: Checkpoint | None, against: list[Checkpoint]) -> Report:
        seals, streams = Seals(self.databases), Streams(is_whole=since is None)
        self.trust.policy(self.trust.origin)  # without a key nothing below says anything
        for name, why in find_drift(self.databases):
            self.findings.add(Fault.SCHEMA_DRIFT, name, why)
        logs = [log for log in seals.logs() if since is None or log >= since.origin]
        checks = []
        for log in logs:
            check = YearCheck(
                seals=seals,
                trust=self.trust,
                log=log,
                findings=self.findings,
                streams=streams,
                tally=self.tally,
                find_boundary=partial(find_boundary, self.databases, log, self.trust),
                elsewhere=[known for known in against if known.origin == log],
            )
            check.begin(since if since is not None and since.origin == log else None)
            with reading(self.databases, self.parallel) as readers:
                self._read(check, readers)
            check.end(self.now)
            self._look_at_unsigned(check)
            checks.append(check)
        for known in against:
            if known.origin not in logs and (since is None or known.origin >= since.origin):
                self.findings.add(Fault.TRUNCATED, known.origin, f"it had {known.size} entries, and it is gone")
        for check in checks:
            check.excuse_pruned()
        for stream, why in streams.gaps():
            self.findings.add(Fault.STREAM_GAP, f"stream {stream}", why)
        pending = self._find_unsealed(seals, since)
        self._look_for_silence(seals)
        return Report(
            entries=sum(check.entries for check in checks),
            pending=pending,
            findings=tuple(self.findings),
            checkpoints=tuple(check.note for check in checks if check.note is not None),
        )

    def _read(self, check: YearCheck, readers: Readers) -> None:
        """Verify the batches of one log; entries are read while those before them are compared."""
        total = check.frontier.size + self.databases.audit[AUDIT_LOG].estimated_document_count()
        waiting: deque[tuple[list[Batch], Future[Records]]] = deque()
        for batches in _chunks(check.batches()):
            waiting.append((batches, readers.submit([id_ for batch in batches for id_ in batch.ids])))
            if len(waiting) > readers.ahead:
                self._take(check, *waiting.popleft())
                self.on_progress(check.frontier.size, total)
        while waiting:
            self._take(check, *waiting.popleft())

    def _look_at_unsigned(self, check: YearCheck) -> None:
        """Look at the signatures of entries in batches that no checkpoint signs: anybody may have put them there."""
        for batch in check.seals.batches(check.log, start=check.signed):
            with driver_errors():
                log = self.databases.audit.get_collection(AUDIT_LOG, codec_options=LENIENT)
                found = list(log.find({"_id": {"$in": list(batch.ids)}}))
            for document in found:
                self._say_fault(document, "no checkpoint signs it")

    def _say_fault(self, document: Document, and_: str) -> bool:
        fault = find_fault(document, self.trust)
        if fault is not None:
            kind, _, why = fault.partition(" ")
            self.findings.add(Fault(kind), f"entry {_shown(document)}", f"{and_}, and {why}")
        return fault is not None

    def _take(self, check: YearCheck, batches: list[Batch], found: "Future[Records]") -> None:
        records = found.result()
        for batch in batches:
            check.take(batch, records)

    def _find_unsealed(self, seals: Seals, since: Checkpoint | None) -> int:
        """Say which entries no batch holds; return how many of them are so new that they need not be sealed yet."""
        pending = 0
        for document in self._unsealed(seals, since):
            created_at = document.get("created_at")
            if self._say_fault(document, "it is not sealed"):
                continue
            if isinstance(created_at, datetime) and created_at > self.now - SEALED_WITHIN:
                pending += 1
            else:
                self.findings.add(Fault.UNSEALED, f"entry {_shown(document)}", "no batch holds it")
        return pending

    def _unsealed(self, seals: Seals, since: Checkpoint | None) -> Iterator[Document]:
        log = self.databases.audit.get_collection(AUDIT_LOG, codec_options=LENIENT)
        if since is not None:
            yield from self._unsealed_since(seals, since)
            return
        there, odd = self._ids_there()
        with driver_errors():
            yield from log.find({"_id": {"$in": odd}})
        for group in self.tally.differing(there):
            with driver_errors():
                found = log.find({"_id": {"$gte": group, "$lt": _after(group)}}, {"_id": 1})
                ids = {document["_id"] for document in found if _is_id(document["_id"])}
            sealed = [id_ for id_ in self._sealed_ids(seals) if id_.startswith(group)]
            for twice in _twice(sealed):
                self.findings.add(Fault.FORGED, f"entry {twice}", "it is sealed twice")
            with driver_errors():
                yield from log.find({"_id": {"$in": sorted(ids.difference(sealed))}})

    def _unsealed_since(self, seals: Seals, since: Checkpoint) -> Iterator[Document]:
        """Yield entries that are as new as what came since a checkpoint; older ones are for a whole verification."""
        last = next(seals.batches(since.origin, start=since.size), None)
        begin = (last.sealed_at if last else self.now) - CLOCKS_APART
        sealed: set[str] = set()
        for log in seals.logs():
            if log >= since.origin:
                before = since.size - MAX_LEAVES if log == since.origin else 0
                sealed.update(id_ for batch in seals.batches(log, start=max(before, 0)) for id_ in batch.ids)
        log_ = self.databases.audit.get_collection(AUDIT_LOG, codec_options=LENIENT)
        with driver_errors():
            for document in log_.find({"created_at": {"$gte": begin}}):
                if document["_id"] not in sealed:
                    yield document

    def _ids_there(self) -> tuple[Tally, list[Any]]:
        """Return the tally of the ids of the collection, and ids that are no ids."""
        there = Tally(self.tally.key)
        odd: list[Any] = []
        log = self.databases.audit.get_collection(AUDIT_LOG, codec_options=LENIENT)
        with driver_errors(), log.find({}, {"_id": 1}, hint="_id_", batch_size=AT_ONCE) as found:
            while ids := [document["_id"] for document in found.to_list(AT_ONCE)]:
                strange = [id_ for id_ in ids if not _is_id(id_)]
                there.add(filter(_is_id, ids) if strange else ids)
                odd += strange[: MAX_FINDINGS - len(odd)]
        return there, odd

    def _sealed_ids(self, seals: Seals) -> Iterator[str]:
        for log in seals.logs():
            for batch in seals.batches(log):
                yield from batch.ids

    def _look_for_silence(self, seals: Seals) -> None:
        logs = seals.logs()
        last = seals.last_batch(logs[-1]) if logs else None
        if last is not None and self.now - last.sealed_at > self.stale_after:
            self.findings.add(Fault.STALE, last.log, f"nothing was sealed since {last.sealed_at:%Y-%m-%d %H:%M:%S} UTC")


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


def _is_id(value: object) -> bool:
    return isinstance(value, str) and ID.fullmatch(value) is not None


def _after(group: str) -> str:
    return f"{int(group, 16) + 1:02x}" if group != "ff" else "fg"


def _twice(ids: list[str]) -> list[str]:
    seen: set[str] = set()
    return [id_ for id_ in ids if id_ in seen or seen.add(id_)]  # type: ignore[func-returns-value]


def _shown(document: Document) -> str:
    return document["_id"] if _is_id(document["_id"]) else "with an id that is none"
