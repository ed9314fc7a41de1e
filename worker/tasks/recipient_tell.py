"""``compliance.recipient.tell``: tell one recipient that somebody was erased, until it has answered."""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from compliance.datamap.form import Name
from compliance.datamap.outside import Protocol
from compliance.datamap.subject import to_text
from compliance.erasure.notices import ITSELF, Notices, Standing
from compliance.errors import ConfigurationError, RecipientUnreachable
from compliance.jobs.job import Job, Prefix
from compliance.jobs.run import Outcome, Run
from compliance.mongo import Document, Session
from worker.intake import submit
from worker.job import ACTOR, JOBS, Payload, job
from worker.recipients.channel import Channel, Message, Said
from worker.recipients.config import VARIABLE, load_recipients
from worker.services import Services

PATIENCE = timedelta(days=3)


def _due(received: datetime) -> datetime:
    return received + PATIENCE


class TellRecipient(Payload):
    """Of which erasure, and whom.

    Attributes:
        erasure: The request id of a completed erasure.
        recipient: An id of the data map.
    """

    erasure: str
    recipient: Name


@dataclass(slots=True, kw_only=True)
class Announcement:
    """The messages about one erasure: recorded in the transaction that completes it, so that none is lost."""

    erasure: str
    services: Services
    sender: str | None = None
    jobs: list[Job] = field(default_factory=list, init=False)

    def record(self, session: Session) -> None:
        """Record a job for each recipient that a process tells."""
        self.jobs = [
            submit(
                JOBS["recipient.tell"],
                {"erasure": self.erasure, "recipient": recipient.id},
                request_id=f"{Prefix.NOTICE}{_digest(self.erasure, recipient.id)}",
                origin="erasure",
                services=self.services,
                sender=self.sender,
                session=session,
            )
            for recipient in self.services.data_map.recipients
            if recipient.protocol is not Protocol.MANUAL
        ]

    def publish(self) -> None:
        """Ring for them; what is not heard, the sweeper rings for again."""
        for job_ in self.jobs:
            self.services.publish(job_)


def _digest(erasure: str, recipient: str) -> str:
    return hashlib.sha256(f"{erasure}\x00{recipient}".encode()).hexdigest()[:32]


@job("recipient.tell", TellRecipient, queue="compliance.erasure", due=_due)
def recipient_tell(payload: TellRecipient, run: Run, services: Services) -> None:
    """Tell it (GDPR Art. 19); what it answers is noted with an entry.

    Raises:
        RecipientUnreachable: While it cannot be told, or is not done; the job is tried again.
    """
    notices = Notices(services.databases)
    request, notice = notices.find(payload.erasure, payload.recipient)
    said = Said.ERASED if notice["state"] == Standing.ACKNOWLEDGED.value else None
    if said is None:
        channel = _channel(payload.recipient, notice, services)
        is_told = notice["state"] == Standing.TOLD.value
        said = channel.tell(_message(request, payload.recipient, services), now=services.clock.now(), is_told=is_told)
    _note(run, notices, request, payload.recipient, said, now=services.clock.now())
    if said is Said.WORKING:
        raise RecipientUnreachable(f"recipient {payload.recipient} has the request, and is not done; asked again later")


def _channel(recipient: str, notice: Document, services: Services) -> Channel:
    options = load_recipients(services.settings.recipients).get(recipient)
    if options is None:
        raise ConfigurationError(
            f"{VARIABLE} says no address of recipient {recipient}; add it, then `compliance jobs retry`"
        )
    if options.protocol is not Protocol(notice["protocol"]):
        raise ConfigurationError(f"{VARIABLE}: recipient {recipient} speaks {notice['protocol']} in the data map")
    return options.open()


def _message(request: Document, recipient: str, services: Services) -> Message:
    return Message(
        request_id=request["_id"],
        recipient=recipient,
        key=services.data_map.subject.key,
        subject_id=to_text(request["subject_id"]),
        received_at=request["received_at"],
        erased_at=request["completed_at"],
    )


def _note(run: Run, notices: Notices, request: Document, recipient: str, said: Said, *, now: datetime) -> None:
    target = Standing.ACKNOWLEDGED if said is Said.ERASED else Standing.TOLD
    by = ITSELF if said is Said.ERASED else ACTOR

    def effect(session: Session) -> Outcome:
        entry = notices.move(request, recipient, target, by=by, now=now, session=session)
        result = None if said is Said.WORKING else {"recipient": recipient, "state": target.value}
        return Outcome(entries=(entry,) if entry is not None else (), result=result)

    run.commit(effect)
