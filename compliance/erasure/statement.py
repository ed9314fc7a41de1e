"""What a certificate of erasure states, composed from the request and what was found at its end; pure.

No personal data: the person is named as the audit log does it, texts of the data map that people wrote freely stay out,
and no text holds an ``@``. Times are RFC 3339 in UTC with milliseconds, as MongoDB keeps them.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from compliance.audit.entry import EntityId
from compliance.audit.leaf import canonical_bytes
from compliance.datamap.outside import Protocol, Recipient
from compliance.datamap.rule import ARTICLE, Kept
from compliance.erasure.surface import State, Surface, level_of
from compliance.period import parse_period

FORMAT: Final = "compliance.erasure-certificate/v1"
_LONGEST = 1000

Text = Annotated[str, StringConstraints(pattern=r"^[^@]{1,1000}$")]
Moment = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$")]
Day = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Request(_Part):
    """The request that was answered.

    Attributes:
        subject: The person, as entries of the audit log name them: an opaque id or a keyed pseudonym.
        accepted_at: When the controller took it on; null where that was not told apart from its receipt.
        due_at: The last day to answer (GDPR Art. 12(3)).
    """

    id: Text
    subject: Text
    state: Literal["completed", "completed_with_retention"]
    received_at: Moment
    accepted_at: Moment | None
    due_at: Moment
    completed_at: Moment


class Erased(_Part):
    """One collection.

    Attributes:
        planned: Documents for each action, as they were counted before.
        affected: Documents for each action, as they were changed.
        remaining: Documents in which the second look found an identifier of the person, beside what is kept.
    """

    name: Text
    planned: dict[Text, Count]
    affected: dict[Text, Count]
    remaining: Annotated[int, Field(ge=0, le=0)]


class Retained(_Part):
    """What stays, and why it may.

    Attributes:
        collection: Null for what the data map says is kept beside its collections.
        article: The exception alone, such as ``17(3)(b)``.
        until: The last day; null where the data map says none.
    """

    collection: Text | None
    documents: Count | None
    fields: list[Text]
    ground: Text
    article: Text | None
    until: Day | None


class Told(_Part):
    """A system outside the database that holds the same people (GDPR Art. 19).

    Attributes:
        state: ``open``: it is told by a person, and nobody said yet that it was.
    """

    id: Text
    protocol: Literal["webhook", "opendsr", "manual"]
    state: Literal["open", "acknowledged"]
    acknowledged_at: Moment | None


class SurfaceFound(_Part):
    """A place beside the collections; see ``compliance.erasure.surface``."""

    name: Text
    state: Literal["clean", "expires", "unknown"]
    evidence: Text
    expires_at: Moment | None
    todo: Text | None


class Statement(_Part):
    """The whole statement.

    Attributes:
        application: The name of the application database.
        data_map: SHA-256 of the data map in force.
        plan: SHA-256 of the canonical JSON of the plan.
        level: ``E2`` verified in every collection, ``E3`` gone also from what the engine keeps, ``E4`` also from
            backups and packages; as it was when the erasure was completed.
    """

    format: Literal["compliance.erasure-certificate/v1"]
    application: Text
    request: Request
    data_map: Digest
    plan: Digest
    collections: list[Erased]
    kept: list[Retained]
    recipients: list[Told]
    surfaces: list[SurfaceFound]
    level: Literal["E1", "E2", "E3", "E4"]


def compose(
    request: Mapping[str, Any],
    *,
    application: str,
    subject: EntityId,
    recipients: Iterable[Recipient],
    kept_elsewhere: Iterable[Kept],
    surfaces: Iterable[Surface],
) -> dict[str, Any]:
    """Return the statement about a request that is completed, as JSON holds it.

    Args:
        request: The document of the request as it is when completed, with ``_id``, ``state``, ``affected``, ``kept``
            and ``completed_at``.
        application: The name of the application database.
        subject: The person, as audit entries name them.
        recipients: Who holds the same people.
        kept_elsewhere: What the data map keeps beside its collections.
        surfaces: What was found beside the collections.
    """
    completed_at = request["completed_at"]
    beside = ({"collection": None, "documents": None, **kept.model_dump(mode="json")} for kept in kept_elsewhere)
    found = tuple(surfaces)
    statement = Statement(
        format=FORMAT,
        application=_text(application),
        request=_request(request, subject),
        data_map=request["map_digest"],
        plan=plan_digest(request["plan"]),
        collections=_collections(request["plan"], request["affected"]),
        kept=[_retained(item, completed_at) for item in (*request["kept"], *beside)],
        recipients=[_told(recipient) for recipient in recipients],
        surfaces=[_surface(surface) for surface in found],
        level=level_of(found).value,
    )
    return statement.model_dump(mode="json")


def plan_digest(plan: Iterable[Mapping[str, Any]]) -> str:
    """Return the SHA-256 by which a certificate names a plan."""
    steps = [{name: step[name] for name in ("collection", "action", "documents")} for step in plan]
    return hashlib.sha256(canonical_bytes({"plan": steps})).hexdigest()


def _request(request: Mapping[str, Any], subject: EntityId) -> Request:
    accepted = request.get("accepted_at")
    return Request(
        id=_text(request["_id"]),
        subject=_text(str(subject)),
        state=request["state"],
        received_at=_moment(request["received_at"]),
        accepted_at=_moment(accepted) if accepted else None,
        due_at=_moment(request["due_at"]),
        completed_at=_moment(request["completed_at"]),
    )


def _collections(plan: Iterable[Mapping[str, Any]], affected: Mapping[str, Mapping[str, int]]) -> list[Erased]:
    planned: dict[str, dict[str, int]] = {}
    for step in plan:
        verbs = planned.setdefault(step["collection"], {})
        verbs[step["action"]] = verbs.get(step["action"], 0) + step["documents"]
    return [
        Erased(name=name, planned=planned.get(name, {}), affected=dict(affected.get(name, {})), remaining=0)
        for name in sorted({*planned, *affected})
    ]


def _retained(kept: Mapping[str, Any], completed_at: datetime) -> Retained:
    article = ARTICLE.search(kept["ground"])
    return Retained(
        collection=kept["collection"],
        documents=kept["documents"],
        fields=list(kept["fields"]),
        ground=_text(kept["ground"]),
        article=article[0] if article else None,
        until=_until(kept, completed_at),
    )


def _until(kept: Mapping[str, Any], completed_at: datetime) -> str | None:
    if kept.get("until"):
        return date.fromisoformat(str(kept["until"])).isoformat()
    period = kept.get("period")
    return parse_period(str(period)).after(completed_at).date().isoformat() if period else None


def _told(recipient: Recipient) -> Told:
    return Told(id=recipient.id, protocol=Protocol(recipient.protocol).value, state="open", acknowledged_at=None)


def _surface(surface: Surface) -> SurfaceFound:
    return SurfaceFound(
        name=surface.name,
        state=State(surface.state).value,
        evidence=_text(surface.evidence),
        expires_at=_moment(surface.expires_at) if surface.expires_at else None,
        todo=_text(surface.todo) if surface.todo else None,
    )


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(text: str) -> str:
    """Return *text*, or its SHA-256 where it could hold an address or is too long to be read."""
    is_fit = 0 < len(text) <= _LONGEST and "@" not in text
    return text if is_fit else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
