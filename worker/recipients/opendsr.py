"""A recipient that speaks OpenDSR 2.0: it takes the request, and says later that it has carried it out.

Source: OpenDSR 2.0, "POST /requests" and "GET /requests/{subject_request_id}".
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from compliance.audit.witness import Answer
from compliance.errors import RecipientRefused, RecipientUnreachable
from worker.recipients.channel import Message, Said, require_success
from worker.recipients.webhook import to_text
from worker.remote import NoAnswer, Remote
from worker.signature import canonical_json

VERSION = "2.0"
IDENTITY = "controller_customer_id"
COMPLETED, CANCELLED = "completed", "cancelled"
CONFLICT = 409


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDSR:
    """Tells by OpenDSR; see ``Channel``.

    Attributes:
        token: Sent as a bearer token, where the recipient asks for one.
        regulation: By its short name.
    """

    server: Remote
    token: str | None = field(default=None, repr=False)
    regulation: str = "gdpr"

    def tell(self, message: Message, *, now: datetime, is_told: bool) -> Said:
        """Send the request, or ask for its status."""
        del now
        name = message.recipient
        try:
            if not is_told:
                answer = self.server.post("requests", self.request_of(message), self._headers)
                if answer.status != CONFLICT:  # it has the request already
                    require_success(answer, recipient=name)
                return Said.WORKING
            answer = require_success(self.server.get(f"requests/{message.uuid}", self._headers), recipient=name)
        except NoAnswer as error:
            raise RecipientUnreachable(f"recipient {name} {error}; told again later") from None
        status = _status(answer)
        if status == CANCELLED:
            raise RecipientRefused(f"recipient {name} has cancelled the request; ask its operator why")
        return Said.ERASED if status == COMPLETED else Said.WORKING

    def request_of(self, message: Message) -> bytes:
        """Return the body of the request."""
        return canonical_json(
            {
                "regulation": self.regulation,
                "subject_request_id": str(message.uuid),
                "subject_request_type": "erasure",
                "submitted_time": to_text(message.received_at),
                "subject_identities": [
                    {"identity_type": IDENTITY, "identity_value": message.subject_id, "identity_format": "raw"}
                ],
                "api_version": VERSION,
            }
        )

    @property
    def _headers(self) -> Mapping[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return headers | ({"Authorization": f"Bearer {self.token}"} if self.token else {})


def _status(answer: Answer) -> Any:
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return said.get("request_status") if isinstance(said, dict) else None
