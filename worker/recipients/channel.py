"""What a way to tell a recipient is, and what it is told."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from compliance.audit.witness import Answer
from compliance.errors import RecipientRefused, RecipientUnreachable

TOO_EARLY = frozenset({408, 425, 429})
SUCCESS, SERVER_ERROR = 200, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """That one person was erased.

    Attributes:
        request_id: Of the erasure.
        recipient: Its id in the data map.
        key: The name of the key of the data map that ``subject_id`` is a value of.
        subject_id: As requests write it.
        received_at: When the person asked.
        erased_at: When the erasure was completed.
    """

    request_id: str
    recipient: str
    key: str
    subject_id: str
    received_at: datetime
    erased_at: datetime

    @property
    def digest(self) -> bytes:
        """The same for every attempt, another one for every request and recipient."""
        return hashlib.sha256(f"{self.request_id}\x00{self.recipient}".encode()).digest()

    @property
    def id(self) -> str:
        """By which the recipient knows a repetition."""
        return f"msg_{self.digest.hex()[:32]}"

    @property
    def uuid(self) -> UUID:
        """The same, for those who want a UUID; of version 4 by its form, for that is asked for."""
        return UUID(bytes=self.digest[:16], version=4)


class Said(StrEnum):
    """What a recipient answered.

    Attributes:
        TOLD: It has taken the message.
        WORKING: It has taken it, and says later that it is done.
        ERASED: It says that the person is erased there, too.
    """

    TOLD = "told"
    WORKING = "working"
    ERASED = "erased"


class Channel(Protocol):
    """One way to tell one recipient."""

    def tell(self, message: Message, *, now: datetime, is_told: bool) -> Said:
        """Tell it, or where *is_told* ask how far it is; MUST be harmless when repeated, MUST end in bounded time.

        Raises:
            RecipientUnreachable: When it may succeed later.
            RecipientRefused: When it will not.
        """
        ...


def require_success(answer: Answer, *, recipient: str) -> Answer:
    """Return *answer* if it is one of success.

    Raises:
        RecipientUnreachable: When the server is busy or broken.
        RecipientRefused: When it does not take the message; what it said beside the status is not repeated.
    """
    if SUCCESS <= answer.status < SUCCESS + 100:
        return answer
    if answer.status in TOO_EARLY or answer.status >= SERVER_ERROR:
        raise RecipientUnreachable(f"recipient {recipient} answered with status {answer.status}; told again later")
    raise RecipientRefused(
        f"recipient {recipient} refuses the message with status {answer.status}; look at its address and secret in "
        "COMPLIANCE_RECIPIENTS, then `compliance jobs retry`"
    )
