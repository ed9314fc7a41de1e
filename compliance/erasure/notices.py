"""What recipients were told of an erasure, and what they answered (GDPR Art. 19); kept with the request.

Part of the document of a request (``erasure_requests``)::

    notices: [{recipient: str, protocol: str, state: str, told_at: date | null, acknowledged_at: date | null,
               by: str | null, reference: str | null}]

``by`` is who says that the recipient has erased the person: the recipient itself (``recipient``), or a person of ours.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from compliance.audit.entry import Detail, Entry
from compliance.datamap.outside import Protocol, Recipient
from compliance.datamap.subject import to_entity_id
from compliance.erasure.stage import COMPLETE, REQUESTS
from compliance.errors import InvalidPayload, UnknownName
from compliance.mongo import Databases, Document, Session, driver_errors

ITSELF = "recipient"
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}")


class Standing(StrEnum):
    """How far a recipient is."""

    OPEN = "open"
    TOLD = "told"
    ACKNOWLEDGED = "acknowledged"


BEFORE = {Standing.TOLD: (Standing.OPEN,), Standing.ACKNOWLEDGED: (Standing.OPEN, Standing.TOLD)}
ACTIONS = {Standing.TOLD: "recipient.told", Standing.ACKNOWLEDGED: "recipient.acknowledged"}


def open_notices(recipients: Iterable[Recipient]) -> list[Document]:
    """Return the notices of an erasure that is completed now, none of them sent."""
    nothing = dict.fromkeys(("told_at", "acknowledged_at", "by", "reference"))
    return [
        {"recipient": one.id, "protocol": one.protocol.value, "state": Standing.OPEN.value, **nothing}
        for one in recipients
    ]


def is_sent(notice: Document) -> bool:
    """Whether a process sends *notice*; else a person tells the recipient."""
    return bool(notice["protocol"] != Protocol.MANUAL.value)


def check_reference(text: str) -> str:
    """Return *text* if it is the id of a case or ticket.

    Raises:
        InvalidPayload: When it is not: it is kept in the audit log for ever.
    """
    if not _REFERENCE.fullmatch(text):
        raise InvalidPayload(
            "reference: expected an id of letters, digits and _ . : / -, at most 64; no names, no text"
        )
    return text


@dataclass(frozen=True, slots=True)
class Notices:
    """The notices of the erasures of one application."""

    databases: Databases

    def find(self, request_id: str, recipient: str) -> tuple[Document, Document]:
        """Return the completed request, and its notice to *recipient*.

        Raises:
            UnknownName: When there is none.
        """
        with driver_errors():
            request = self.databases.compliance[REQUESTS].find_one({"_id": request_id})
        if request is None or request["state"] not in [stage.value for stage in COMPLETE]:
            raise UnknownName(f"there is no completed erasure {request_id}; `compliance erasure list` shows them")
        found = {notice["recipient"]: notice for notice in request.get("notices", ())}
        if recipient not in found:
            known = ", ".join(sorted(found)) or "none"
            raise UnknownName(f"erasure {request_id} has no recipient of that name; known: {known}")
        return request, found[recipient]

    def move(
        self,
        request: Document,
        recipient: str,
        target: Standing,
        *,
        by: str,
        now: datetime,
        session: Session,
        reference: str | None = None,
    ) -> Entry | None:
        """Note how far *recipient* is, in the transaction of *session*; None where it is at least as far.

        Args:
            request: As ``find`` returned it.
            recipient: Its id in the data map.
            target: What it is now.
            by: Who says so.
            now: The time.
            session: The transaction.
            reference: The id of the case or ticket where the answer is kept.

        Returns:
            The entry to append in the same transaction.
        """
        told: dict[str, Any] = {"notices.$[one].told_at": now} if target is Standing.TOLD else {}
        done = {"acknowledged_at": now, "by": by, "reference": reference} if target is Standing.ACKNOWLEDGED else {}
        changes = told | {f"notices.$[one].{name}": value for name, value in done.items()}
        known = {"recipient": recipient, "state": {"$in": [before.value for before in BEFORE[target]]}}
        changed = self.databases.compliance[REQUESTS].update_one(
            {"_id": request["_id"], "notices": {"$elemMatch": known}},
            {"$set": {"notices.$[one].state": target.value, **changes}},
            array_filters=[{"one.recipient": recipient}],
            session=session,
        )
        if changed.matched_count == 0:
            return None
        details: dict[str, Detail] = {"recipient": recipient}
        return Entry(
            event=f"{request['_id']}#{recipient}#{target.value}",
            entity_type="user",
            entity_id=to_entity_id(request["subject_id"]),
            action=ACTIONS[target],
            created_at=now,
            performed_by=by,
            request_id=request["_id"],
            details=details | ({"reference": reference} if reference else {}),
        )
