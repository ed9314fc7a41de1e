"""What a run would do, to be shown: scripts, steps, commands in Extended JSON, and what they cost; pure.

Commands are shown in the canonical form of Extended JSON: it alone tells a 32-bit number from a 64-bit one and from a
double, so a command that is pasted into a shell is the one that would be sent.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bson import json_util

from migrations.command import Command
from migrations.plan import Direction
from migrations.revision import Revision
from migrations.sketch import Estimate, Oplog, PlannedStep

MEGABYTE = 1_000_000
OPLOG_SHARE = 0.1  # from here on a plan warns: secondaries and watchers that are away lose that much of their time


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedScript:
    """One script, with its steps in order."""

    revision: Revision
    steps: tuple[PlannedStep, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Everything a run would do.

    Attributes:
        oplog: None where this user may not look at it.
    """

    direction: Direction
    scripts: tuple[PlannedScript, ...]
    oplog: Oplog | None

    @property
    def revisions(self) -> tuple[Revision, ...]:
        """The scripts that would run, in order."""
        return tuple(script.revision for script in self.scripts)

    @property
    def oplog_bytes(self) -> int:
        """How much all steps would write to the oplog, as far as that is known."""
        estimates = (step.estimate for script in self.scripts for step in script.steps)
        return sum(estimate.oplog_bytes or 0 for estimate in estimates if estimate)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to think about before it runs."""
        if self.oplog is None or self.oplog_bytes < OPLOG_SHARE * self.oplog.size_bytes:
            return ()
        written, size = _size(self.oplog_bytes), _size(self.oplog.size_bytes)
        warning = (
            f"this writes about {written} to an oplog of {size} ({self.oplog_bytes / self.oplog.size_bytes:.0%}): a "
            "secondary or a watcher that is away meanwhile may lose its place; make the oplog larger, or run the "
            "scripts one by one"
        )
        return (warning,)


def describe(preview: Preview) -> dict[str, Any]:
    """Return *preview* for machines; commands are in canonical Extended JSON."""
    oplog = preview.oplog
    return {
        "direction": preview.direction.value,
        "oplog_bytes": preview.oplog_bytes,
        "oplog": {"size_bytes": oplog.size_bytes, "seconds": oplog.seconds} if oplog else None,
        "warnings": list(preview.warnings),
        "scripts": [
            {"name": script.revision.name, "steps": [_describe_step(step) for step in script.steps]}
            for script in preview.scripts
        ],
    }


def lines(preview: Preview) -> Iterator[str]:
    """Yield *preview* line by line, for people."""
    for script in preview.scripts:
        yield f"{script.revision.name}: {script.revision.summary}"
        for step in script.steps:
            yield from (f"  {line}" for line in _step_lines(step))
    if any(step.estimate and step.estimate.oplog_bytes for script in preview.scripts for step in script.steps):
        yield _oplog_line(preview)
    yield from (f"warning: {warning}" for warning in preview.warnings)


def extended(command: Command) -> str:
    """Return *command* in canonical Extended JSON."""
    return json_util.dumps(command.body, json_options=json_util.CANONICAL_JSON_OPTIONS, ensure_ascii=False)


def _describe_step(step: PlannedStep) -> dict[str, Any]:
    return {
        "number": step.number,
        "kind": step.kind.value,
        "what": step.what,
        "line": step.line,
        "opaque": step.opaque or None,
        "locks": step.locks,
        "notes": step.notes,
        "estimate": _describe_estimate(step.estimate) if step.estimate else None,
        "commands": [
            {
                "database": command.database or "application",
                "in_transaction": command.in_transaction,
                "is_masked": command.is_masked,
                "command": json.loads(extended(command)),
            }
            for command in step.commands
        ],
    }


def _describe_estimate(estimate: Estimate) -> dict[str, Any]:
    return {
        "collection": estimate.collection,
        "documents": estimate.documents,
        "is_counted": estimate.is_counted,
        "collection_documents": estimate.collection_documents,
        "scan": estimate.scan,
        "batch_docs": estimate.batch_docs,
        "batches": estimate.batches,
        "seconds": round(estimate.seconds, 3),
        "rate": round(estimate.rate),
        "is_rate_measured": estimate.is_measured,
        "oplog_bytes": estimate.oplog_bytes,
    }


def _step_lines(step: PlannedStep) -> Iterator[str]:
    yield f"{step.number}. {step.what}"
    if step.opaque:
        yield f"   opaque: {step.opaque}"
    yield from (f"   {line}" for line in (*step.notes, *(f"locks {lock}" for lock in step.locks)))
    if step.estimate:
        yield f"   {_estimate_line(step.estimate)}"
    is_first = step.estimate is not None and step.estimate.batches is not None
    for command in step.commands:
        where = f"{command.database}: " if command.database else ""
        how = "in a transaction: " if command.in_transaction else ""
        yield f"   {'first batch, ' if is_first else ''}{where}{how}{extended(command)}"


def _estimate_line(estimate: Estimate) -> str:
    counted = "" if estimate.is_counted else "about "
    parts = [f"{counted}{estimate.documents} of {estimate.collection_documents} documents", f"found by {estimate.scan}"]
    if estimate.batches is not None:
        parts.append(f"{estimate.batches} batches of {estimate.batch_docs} or more")
    known = "measured here" if estimate.is_measured else "assumed"
    parts.append(f"about {estimate.seconds:.0f} s at {estimate.rate:.0f} documents a second ({known})")
    if estimate.oplog_bytes is not None:
        parts.append(f"oplog {_size(estimate.oplog_bytes)}")
    return ", ".join(parts)


def _oplog_line(preview: Preview) -> str:
    written = f"about {_size(preview.oplog_bytes)} of oplog in all"
    if preview.oplog is None:
        return f"{written}; how large the oplog is cannot be read by this user"
    hours = preview.oplog.seconds / 3600
    share = preview.oplog_bytes / preview.oplog.size_bytes
    return f"{written}, {share:.2%} of its {_size(preview.oplog.size_bytes)}; it reaches back {hours:.1f} h now"


def _size(number: int) -> str:
    return f"{number / MEGABYTE:.1f} MB" if number >= MEGABYTE else f"{number / 1000:.1f} kB"
