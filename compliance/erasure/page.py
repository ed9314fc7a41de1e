"""A certificate as one page for people: HTML without scripts that can be printed."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from compliance.erasure.certificate import Verified, statement_digest

_LEVELS = {
    "E1": "What was erased is gone from every place that was known; not every place was looked at again.",
    "E2": "What was erased was looked for in the whole database and not found. Copies that servers keep for their own "
    "work may last until the dates below.",
    "E3": "What was erased is gone from the database and from what the servers keep for their own work. Backups and "
    "packages may last until the dates below.",
    "E4": "What was erased is gone from the database, from what the servers keep for their own work, and from backups.",
}
_NOTHING = "<p>None.</p>"


def to_page(verified: Verified) -> bytes:
    """Return the page of a certificate.

    Raises:
        ValueError: When *verified* has faults: what is not proven is not put on paper.
    """
    statement, inclusion = verified.statement, verified.inclusion
    if verified.faults or statement is None or inclusion is None:
        raise ValueError("only a certificate that verified has a page")
    request = statement["request"]
    texts = {
        "request": request["id"],
        "subject": request["subject"],
        "application": statement["application"],
        "received": _day(request["received_at"]),
        "completed": _day(request["completed_at"]),
        "due": _day(request["due_at"]),
        "looked": _looked(statement["collections"]),
        "kept_sentence": _kept_sentence(statement["kept"]),
        "recipients_sentence": _recipients_sentence(statement["recipients"]),
        "level_sentence": _LEVELS[statement["level"]],
        "level": statement["level"],
        "data_map": statement["data_map"],
        "plan": statement["plan"],
        "digest": statement_digest(statement),
        "index": str(inclusion.index),
        "log": inclusion.signed.checkpoint.origin,
    }
    parts = {
        "collections": _table(
            ("collection", "planned", "erased or changed", "left"), map(_erased, statement["collections"])
        ),
        "kept": _table(("where", "what", "ground", "until"), map(_kept, statement["kept"])),
        "recipients": _table(("system", "told"), map(_recipient, statement["recipients"])),
        "surfaces": _table(("where", "state", "what was seen"), map(_surface, statement["surfaces"])),
    }
    template = Template(files("compliance.erasure").joinpath("certificate.html").read_text(encoding="utf-8"))
    return template.substitute({name: escape(text) for name, text in texts.items()} | parts).encode()


def _looked(collections: Sequence[Mapping[str, Any]]) -> str:
    changed = sum(sum(found["affected"].values()) for found in collections)
    return (
        f"{_count(changed, 'document')} in {_count(len(collections), 'collection')} "
        f"{'was' if changed == 1 else 'were'} deleted or changed, and a second look found nothing about you."
    )


def _kept_sentence(kept: Sequence[Mapping[str, Any]]) -> str:
    if not kept:
        return "Nothing about you is kept."
    return "Some data is kept because the law allows or demands it; it is listed below, with ground and last day."


def _recipients_sentence(recipients: Sequence[Mapping[str, Any]]) -> str:
    still_open = sum(1 for recipient in recipients if recipient["state"] == "open")
    if not recipients:
        return "No other system holds data about you on our behalf."
    if not still_open:
        return "The other systems that hold data about you were told, and said that they have done the same."
    return (
        f"{_count(still_open, 'other system')} that may hold data about you had not yet said to have done the same "
        "when this certificate was made."
    )


def _erased(found: Mapping[str, Any]) -> tuple[str, ...]:
    return found["name"], _verbs(found["planned"]), _verbs(found["affected"]), str(found["remaining"])


def _kept(found: Mapping[str, Any]) -> tuple[str, ...]:
    where = found["collection"] or "beside the collections"
    documents = "" if found["documents"] is None else f" in {_count(found['documents'], 'document')}"
    return where, f"{', '.join(found['fields'])}{documents}", found["ground"], found["until"] or "no day is set"


def _recipient(found: Mapping[str, Any]) -> tuple[str, ...]:
    if found["state"] == "open":
        return found["id"], "by a person: open" if found["protocol"] == "manual" else "open"
    return found["id"], f"acknowledged {_day(found['acknowledged_at'])}"


def _surface(found: Mapping[str, Any]) -> tuple[str, ...]:
    name = found["name"].replace("_", " ")
    if found["state"] == "expires":
        return name, f"gone after {_day(found['expires_at'])}", found["evidence"]
    if found["state"] == "unknown":
        return name, "not known", f"{found['evidence']}. To do: {found['todo']}"
    return name, "clean", found["evidence"]


def _verbs(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{verb} {count}" for verb, count in sorted(counts.items())) or "none"


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _day(moment: str) -> str:
    return moment[:10]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    listed = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    if not listed:
        return _NOTHING
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "\n".join(f"<tr>{row}</tr>" for row in listed)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
