"""A signed webhook: a JSON event with the headers of Standard Webhooks.

The signature is ``v1,`` and Base64 of HMAC-SHA256 under the secret, over id, time and body with dots between them.
Where there are several secrets, each signs, so that a recipient can change its own. A body of the answer that is JSON
with ``{"status": "erased"}`` says that the recipient has erased the person, too.

Source: Standard Webhooks 1.0.0 (symmetric signatures).
"""

import base64
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from compliance.audit.witness import Answer
from compliance.errors import RecipientUnreachable
from worker.recipients.channel import Message, Said, require_success
from worker.remote import NoAnswer, Remote
from worker.signature import canonical_json

EVENT = "erasure.completed"
DONE = "erased"


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Tells by webhook; see ``Channel``.

    Attributes:
        secrets: At least one; each is the bytes behind ``whsec_``.
    """

    server: Remote
    secrets: Sequence[bytes] = field(repr=False)

    def tell(self, message: Message, *, now: datetime, is_told: bool) -> Said:
        """Send the event; a repetition is the same event, with the time of this attempt."""
        del is_told
        body = event_of(message)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": sign(message.id, int(now.timestamp()), body, secrets=self.secrets),
        }
        try:
            answer = self.server.post("", body, headers)
        except NoAnswer as error:
            raise RecipientUnreachable(f"recipient {message.recipient} {error}; told again later") from None
        return _read(require_success(answer, recipient=message.recipient))


def event_of(message: Message) -> bytes:
    """Return the body of the event: the same bytes for every attempt."""
    return canonical_json(
        {
            "type": EVENT,
            "timestamp": to_text(message.erased_at),
            "data": {
                "request_id": message.request_id,
                "subject": {"key": message.key, "id": message.subject_id},
                "received_at": to_text(message.received_at),
                "erased_at": to_text(message.erased_at),
            },
        }
    )


def sign(message_id: str, timestamp: int, body: bytes, *, secrets: Sequence[bytes]) -> str:
    """Return the value of ``webhook-signature``, one signature for each of *secrets*."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join(f"v1,{base64.b64encode(hmac.digest(secret, signed, 'sha256')).decode()}" for secret in secrets)


def to_text(moment: datetime) -> str:
    """Return *moment* as RFC 3339 says it, in UTC."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _read(answer: Answer) -> Said:
    try:
        said = json.loads(answer.body) if answer.content_type == "application/json" else None
    except (ValueError, RecursionError):
        said = None
    return Said.ERASED if isinstance(said, dict) and said.get("status") == DONE else Said.TOLD
