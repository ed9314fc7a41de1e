"""Verify entries one by one: each still has the bytes that its writer signed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from compliance.audit.leaf import SIGNATURE, canonical_bytes, unsigned
from compliance.audit.trust import Trust
from compliance.audit.wire import decode_base64
from compliance.errors import InvalidProof


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a verification: how many entries were read, and what is wrong with which."""

    entries: int
    findings: tuple[str, ...]

    @property
    def is_ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def verify(documents: Iterable[Mapping[str, Any]], trust: Trust) -> Report:
    """Look at the signature of each of *documents*; memory does not grow with their number."""
    entries = 0
    findings: list[str] = []
    for document in documents:
        entries += 1
        finding = find_fault(document, trust)
        if finding is not None and len(findings) < 1000:  # noqa: PLR2004 - a broken log is broken, memory is bounded
            findings.append(f"{finding.partition(' ')[0]} {document['_id']}: {finding.partition(' ')[2]}")
    return Report(entries=entries, findings=tuple(findings))


def find_fault(document: Mapping[str, Any], trust: Trust) -> str | None:
    """Return what is wrong with an entry by itself, None where its writer signed just these bytes."""
    writer = document.get("writer")
    verifier = trust.writer(writer.get("key")) if isinstance(writer, Mapping) else None
    if verifier is None:
        return "FORGED no known writer signed it"
    try:
        signed = canonical_bytes(unsigned(document))
    except (TypeError, ValueError):
        return "MODIFIED holds a value that no entry can hold"
    try:
        verifier.verify(signed, decode_base64(str(document.get(SIGNATURE)), what="a signature"))
    except InvalidProof:
        return "MODIFIED its bytes are not those that were signed"
    return None
